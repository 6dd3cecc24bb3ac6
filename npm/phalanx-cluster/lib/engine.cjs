// The engine: one process beside the primary that takes the connections. It is started with the first worker and ends with
// this process. Another process holds what it has, and starts it anew when it is killed.
'use strict';

const { randomBytes } = require('crypto');
const { fitting } = require('./binary.cjs');

/** What `configure` has set, in the words of the command line. */
const settings = {};
let engine;
let isTold = false;
/** The program, once it has shown that it runs and fits. */
let program;
/** There was none: this program stays on plain Node. */
let isPlain = false;

/** Runs on plain Node, and says why, once. */
function tellPlain(error) {
  if (!isTold) process.stderr.write(`phalanx-cluster: this program runs on plain Node: ${error.message}\n`);
  isTold = true;
}

/**
 * Leaves listeners to Node's primary where the program means its calls to be seen, unless it has said who listens. Says
 * so, because phalanx dispatches nothing then.
 */
function leaveListeners() {
  if (settings.listen || process.env.PHALANX_LISTEN) return;
  settings.listen = 'primary';
  process.stderr.write("phalanx-cluster: Node's primary listens and dispatches, because this program has replaced " +
    'net.Server.prototype.listen; PHALANX_LISTEN=engine has phalanx do so all the same\n');
}

const words = () => Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);

function start(spawn, isListenReplaced) {
  program ??= fitting();
  if (isListenReplaced) leaveListeners();
  const name = `phalanx-${process.pid}-${randomBytes(8).toString('hex')}`;
  const token = randomBytes(16).toString('hex');
  // Its own session: what a terminal sends to this program's processes is for this program to act on.
  const child = spawn(program, ['hold', '-qq', ...words()], {
    detached: true,
    env: { ...process.env, PHALANX_ENGINE: name, PHALANX_TOKEN: token },
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
  });
  const started = { program, token, socket: `${name}:${child.pid}`, control: child.stdio[3], isAlive: true };
  const end = (error) => {
    started.isAlive = false;
    if (error instanceof Error) tellPlain(error);
  };
  child.once('error', end);
  // The engine has it too, and goes on without its holder.
  started.control?.once('close', end);
  // It keeps nothing alive: this program ends when it would without.
  child.unref();
  started.control?.unref();
  started.control?.on('error', () => {});
  let text = '';
  started.control?.setEncoding('utf8').on('data', (more) => {
    const lines = (text + more).split('\n');
    text = lines.pop();
    lines.forEach((line) => take(started, JSON.parse(line)));
  });
  if (child.pid === undefined) throw new Error(`${program} could not be started`);
  return started;
}

/** Carries an order out. */
async function take(from, order) {
  const error = await require('./orders.cjs').obey(order);
  if (from.isAlive) from.control.write(`${JSON.stringify({ act: 'done', number: order.number, error })}\n`);
}

/** The engine that runs. Nothing when there can be none. One that starts has to know who listens. */
function running(spawn, isListenReplaced) {
  if (engine?.isAlive) return engine;
  if (isPlain) return undefined;
  try {
    engine = start(spawn, isListenReplaced);
    return engine;
  } catch (error) {
    isPlain = true;
    tellPlain(error);
    return undefined;
  }
}

/** Tells the engine that runs, if one does. */
function tell(word) {
  if (engine?.isAlive) engine.control.write(`${JSON.stringify(word)}\n`);
}

module.exports = { running, settings, tell };
