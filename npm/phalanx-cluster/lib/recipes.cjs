// The recipes of every tutorial on `cluster`, done right. They use nothing but Node's own `cluster`, and work without
// phalanx too.
'use strict';

const cluster = () => require('cluster');
const live = () => Object.values(cluster().workers).filter((worker) => worker && !worker.exitedAfterDisconnect);

/** Settles when the worker listens; fails when it ends before, or not in time. */
function listening(worker, limit) {
  return new Promise((resolve, reject) => {
    const done = (act, value) => {
      clearTimeout(timer);
      worker.removeListener('listening', ready);
      worker.removeListener('exit', ended);
      act(value);
    };
    const ready = () => done(resolve);
    const ended = (code, signal) => done(reject, new Error(`worker ${worker.id} ended before it listened (${signal ?? code})`));
    const late = () => {
      done(reject, new Error(`worker ${worker.id} does not listen after ${limit} ms`));
      worker.process.kill('SIGKILL');
    };
    const timer = setTimeout(late, limit);
    worker.once('listening', ready);
    worker.once('exit', ended);
  });
}

/**
 * Replaces all workers that are there now: a successor is started first, and the old one leaves when that listens. At
 * most `maxSurge` are replaced at the same time. When a successor fails, the rest stays as it is.
 */
async function rollingRestart({ maxSurge = 1, readyTimeout = 30_000, env } = {}) {
  const old = live();
  const replaceAll = async () => {
    for (let worker = old.shift(); worker; worker = old.shift()) {
      await listening(cluster().fork(env), readyTimeout);
      if (worker.isConnected()) worker.disconnect();
    }
  };
  const lanes = Array.from({ length: Math.max(1, maxSurge) }, () => replaceAll().catch((error) => {
    old.length = 0;
    throw error;
  }));
  const failed = (await Promise.allSettled(lanes)).find(({ status }) => status === 'rejected');
  if (failed) throw failed.reason;
}

/**
 * Replaces workers that end without having been asked to: at once, then after `backoff.first` ms, twice as long each
 * time up to `backoff.most`, and at once again when one has run for `backoff.stable`. Returns what stops that.
 */
function respawn({ backoff = {}, env } = {}) {
  const { first = 100, most = 10_000, stable = 10_000 } = backoff;
  const begun = new Map();
  let pause = 0;
  const onFork = (worker) => begun.set(worker.id, Date.now());
  const onExit = (worker) => {
    const age = Date.now() - (begun.get(worker.id) ?? 0);
    begun.delete(worker.id);
    if (worker.exitedAfterDisconnect) return;
    if (age >= stable) pause = 0;
    if (pause === 0) cluster().fork(env);
    else setTimeout(() => cluster().fork(env), pause);
    pause = Math.min(most, pause === 0 ? first : pause * 2);
  };
  cluster().on('fork', onFork);
  cluster().on('exit', onExit);
  return () => {
    cluster().removeListener('fork', onFork);
    cluster().removeListener('exit', onExit);
  };
}

/** Sends a message to every worker that can take one. Returns how many that were. */
function broadcast(message) {
  const connected = Object.values(cluster().workers).filter((worker) => worker?.isConnected());
  for (const worker of connected) worker.send(message, () => {});
  return connected.length;
}

module.exports = { broadcast, listening, live, respawn, rollingRestart };
