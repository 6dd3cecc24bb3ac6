// Tells the metrics that the application keeps with prom-client, when the primary asks, and once more before the worker ends.
//
// It stands in front of worker.cjs, in one file with it.
//
// INVARIANTS: an application without prom-client sees nothing of it. One that has its AggregatorRegistry answers by itself, as it would
// answer a primary of Node's own; for others the registry is asked. Nothing is patched before the drain begins.
'use strict';

/** Returns what answers a question, and what has the worker tell once more. `attempt` runs what must not fail. */
const phalanxAppMetrics = (attempt) => {
  const { setTimeout: later } = require('timers');
  const ASK = 'prom-client:getMetricsReq';
  const ANSWER = 'prom-client:getMetricsRes';
  const LAST = 'phalanx:last';
  /** How long the end of the channel waits for the last answer. */
  const LAST_MS = 500;
  const send = process.send;
  let isWanted = false;

  const tell = (requestId, metrics, done = () => {}) => {
    Reflect.apply(send, process, [{ type: ANSWER, requestId, metrics }, done]);
  };

  /** The listener by which prom-client answers a primary. */
  const ownListener = () => process.listeners('message').find((one) => /getMetricsReq|GET_METRICS_REQ/.test(`${one}`));

  /** What the application has loaded as prom-client, however often. */
  const registries = () => {
    const loaded = Object.entries(require.cache).filter(([name]) => /[\\/]prom-client[\\/]index\.js$/.test(name));
    return loaded.map(([, module]) => module.exports?.register).filter((one) => typeof one?.getMetricsAsJSON === 'function');
  };

  /** `done` is called when the registries were told; prom-client's own listener tells nobody. */
  function answer(requestId, done) {
    const listener = ownListener();
    if (listener) return listener.call(process, { type: ASK, requestId });
    // Before version 13 it gives no promise.
    return Promise.all(registries().map(async (one) => one.getMetricsAsJSON()))
      .then((metrics) => tell(requestId, metrics, done))
      .catch(() => tell(requestId, [], done));
  }

  function ask(requestId) {
    isWanted = true;
    if (requestId) answer(requestId);
  }

  /** Calls `told` when prom-client's own listener has sent the last answer. */
  function whenSent(told) {
    const own = process.send;
    process.send = function (message, ...parameters) {
      const result = Reflect.apply(own, process, [message, ...parameters]);
      if (message?.requestId === LAST) {
        process.send = own;
        told();
      }
      return result;
    };
  }

  /** The worker leaves: when its connections are done, and before its channel closes, it tells once more. */
  function leave() {
    if (!isWanted || (!ownListener() && registries().length === 0)) return;
    const { disconnect } = process;
    process.disconnect = (...parameters) => {
      process.disconnect = disconnect;
      let isDone = false;
      const once = () => attempt(() => {
        if (isDone) return;
        isDone = true;
        if (process.connected) Reflect.apply(disconnect, process, parameters);
      });
      later(once, LAST_MS);
      attempt(() => {
        if (ownListener()) whenSent(once);
        answer(LAST, once);
      });
    };
  }

  return { ask, leave };
};
