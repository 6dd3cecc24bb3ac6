// Counts the responses of a Node worker and tells the primary of them, while it watches a canary.
//
// It stands in front of worker.cjs, in one file with it.
//
// INVARIANT: nothing is subscribed to and nothing is counted but between the primary's two words.
'use strict';

/** Answers with what starts and stops the counting. `attempt` runs what must not fail. */
const phalanxHealth = (attempt) => {
  const { setInterval: every, clearInterval: endOf } = require('timers');
  const clock = () => process.hrtime();
  const send = process.send;

  /** Four classes to each power of two of microseconds, as `phalanx-core/src/health.rs` has them. */
  function latencyClass(micros) {
    const time = Math.min(Math.floor(micros), 2 ** 31 - 1);
    if (time < 4) return time;
    const power = 31 - Math.clz32(time);
    return 4 * (power - 1) + ((time >> (power - 2)) & 3);
  }

  /** Counts finished responses of http and https from now on; returns what ends that. */
  function countResponses() {
    const { channel } = require('diagnostics_channel');
    const begun = new WeakMap();
    const latency = new Map();
    let [requests, errors] = [0, 0];
    const start = ({ response }) => attempt(() => begun.set(response, clock()));
    const finish = ({ response }) => attempt(() => {
      const since = begun.get(response);
      if (since === undefined || response.statusCode === 101) return;
      const [seconds, nanos] = process.hrtime(since);
      const place = latencyClass(seconds * 1e6 + nanos / 1e3);
      latency.set(place, (latency.get(place) ?? 0) + 1);
      requests += 1;
      if (response.statusCode >= 500) errors += 1;
    });
    // https://nodejs.org/api/diagnostics_channel.html#http
    const wanted = [['http.server.request.start', start], ['http.server.response.finish', finish]];
    wanted.forEach(([name, listener]) => channel(name).subscribe(listener));
    const timer = every(() => attempt(() => {
      if (requests === 0) return;
      const figures = { cmd: 'NODE_PHALANX', act: 'health', requests, errors, latency: [...latency] };
      Reflect.apply(send, process, [figures, () => {}]);
    }), 1000).unref();
    return () => {
      endOf(timer);
      wanted.forEach(([name, listener]) => channel(name).unsubscribe(listener));
    };
  }

  let stopCounting;

  function watchHealth(wanted) {
    stopCounting?.();
    stopCounting = wanted ? countResponses() : undefined;
  }

  return watchHealth;
};
