// Puts phalanx into the channels between Node's primary and its workers: each worker starts by a shim, which exchanges
// its end of the channel for one of the engine's and becomes Node.
//
// INVARIANT: `cluster` is Node's own, and so is everything that the program sees of it. What is changed is the public
// `child_process.fork`, for workers of `cluster` alone, and the order of two events that the way through the engine
// would leave to chance.
'use strict';

const childProcess = require('child_process');
const net = require('net');
const { constants } = require('os');
const { isMainThread } = require('worker_threads');
const engine = require('./engine.cjs');

/** How long an exit waits for the channel to end. A process of the worker's may have it still. */
const CHANNEL_MS = 1000;

const { fork, spawn } = childProcess;
const { listen } = net.Server.prototype;
let isRegistered = false;

/** Keeps 'disconnect' before 'exit', and tells the engine how the worker ended. */
function keepOrder(child, worker) {
  const handle = child._handle;
  if (typeof handle?.onexit !== 'function') return;
  const { onexit } = handle;
  handle.onexit = function (...status) {
    let isDone = false;
    const tell = () => {
      if (isDone) return;
      isDone = true;
      clearTimeout(limit);
      child.removeListener('disconnect', tell);
      const [code, signal] = status;
      engine.tell({ act: 'exit', worker, ...(signal ? { signal: constants.signals[signal] } : { code }) });
      Reflect.apply(onexit, this, status);
    };
    const limit = setTimeout(tell, CHANNEL_MS);
    if (child.channel) child.once('disconnect', tell);
    else tell();
  };
}

/** `cluster.disconnect()` ends the listeners with the last worker. */
function watchDisconnect(cluster) {
  if (watchDisconnect.isDone) return;
  watchDisconnect.isDone = true;
  cluster.disconnect = new Proxy(cluster.disconnect, {
    apply(disconnect, self, parameters) {
      engine.tell({ act: 'close' });
      return Reflect.apply(disconnect, self, parameters);
    },
  });
}

/** Node's primary calls it for its workers, but for those that accept themselves. */
const isListenReplaced = (cluster) => cluster.schedulingPolicy !== cluster.SCHED_NONE && net.Server.prototype.listen !== listen;

function forkWorker(self, [script, args, options]) {
  const cluster = require('cluster');
  const running = engine.running(spawn, isListenReplaced(cluster));
  if (!running) return Reflect.apply(fork, self, [script, args, options]);
  watchDisconnect(cluster);
  const node = options.execPath ?? process.execPath;
  const child = Reflect.apply(fork, self, [script, args, {
    ...options,
    env: {
      ...options.env,
      PHALANX_ENGINE: running.socket,
      PHALANX_SHIM_NODE: node,
      PHALANX_SHIM_POLICY: cluster.schedulingPolicy === cluster.SCHED_NONE ? 'none' : 'rr',
      PHALANX_TOKEN: running.token,
    },
    execArgv: ['shim', ...(options.execArgv ?? process.execArgv)],
    execPath: running.program,
  }]);
  child.spawnfile = node;
  child.spawnargs = [node, ...child.spawnargs.slice(2)];
  keepOrder(child, Number(options.env.NODE_UNIQUE_ID));
  return child;
}

/** Takes effect for workers that are forked from now on. */
function register() {
  if (isRegistered || !isMainThread || process.platform !== 'linux') return;
  isRegistered = true;
  if (process.env.PHALANX_SUPERVISED && !process.env.NODE_UNIQUE_ID) require('./orders.cjs').supervised();
  delete process.env.PHALANX_SUPERVISED;
  // `cluster` takes it from here when it is loaded.
  childProcess.fork = new Proxy(fork, {
    apply(_, self, parameters) {
      const isWorker = parameters[2]?.env?.NODE_UNIQUE_ID !== undefined;
      return isWorker ? forkWorker(self, parameters) : Reflect.apply(fork, self, parameters);
    },
  });
}

module.exports = { register };
