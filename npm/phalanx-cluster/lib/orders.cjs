// What `phalanx reload`, `scale` and `stop` ask of this program. It does as its own signals say, where it listens to
// them, and else as Node's documentation teaches it.
'use strict';

const { listening, live, rollingRestart } = require('./recipes.cjs');

const READY_MS = 30_000;

const cluster = () => require('cluster');
const ended = (worker) => new Promise((resolve) => { worker.once('exit', resolve); });

/** Signals that are acted upon here where the program does not. */
const fallbacks = new Map();
const handles = (signal) => process.listenerCount(signal) > (fallbacks.has(signal) ? 1 : 0);
/** Calls the program's own handler. False when it has none. */
const raise = (signal) => handles(signal) && process.emit(signal, signal);

async function reload({ surge }) {
  if (raise('SIGUSR2')) return;
  await rollingRestart({ maxSurge: Number(surge) || 1 });
}

async function scale({ workers }) {
  const there = live();
  const fresh = Array.from({ length: Math.max(0, workers - there.length) }, () => cluster().fork());
  const surplus = there.slice(workers).filter((worker) => worker.isConnected());
  for (const worker of surplus) worker.disconnect();
  await Promise.all([...fresh.map((worker) => listening(worker, READY_MS)), ...surplus.map(ended)]);
}

async function stop({ fast }) {
  if (!fast && raise('SIGTERM')) return;
  if (fast) for (const worker of Object.values(cluster().workers)) worker?.process.kill('SIGKILL');
  else await new Promise((resolve) => { cluster().disconnect(resolve); });
  // The answer goes first.
  setImmediate(() => setTimeout(() => process.exit(0), 50));
}

const ORDERS = { reload, scale, stop };

/** Carries an order out. Returns the reason when it could not. */
async function obey(order) {
  try {
    const act = ORDERS[order.act];
    if (!act) return `phalanx-cluster does not know how to ${order.act}`;
    await act(order);
    return undefined;
  } catch (error) {
    return error.message;
  }
}

/** What a supervisor's signals ask for, where the program has no handler of its own. */
function supervised() {
  const acts = { SIGUSR2: reload, SIGHUP: reload, SIGTERM: stop, SIGINT: stop };
  for (const [signal, act] of Object.entries(acts)) {
    fallbacks.set(signal, act);
    process.on(signal, () => {
      if (handles(signal)) return;
      act({}).catch((error) => process.stderr.write(`phalanx-cluster: ${signal}: ${error.message}\n`));
    });
  }
}

module.exports = { obey, supervised };
