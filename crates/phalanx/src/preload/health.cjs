// Counts the responses of a Node worker and tells the primary of them, while it wants to know: it watches a canary, recycles by
// requests, or has its metrics read.
//
// It stands in front of worker.cjs, in one file with it.
//
// INVARIANT: nothing is subscribed to and nothing is counted but between the primary's two words.
'use strict';

/** Answers with what starts and stops the counting. `attempt` runs what must not fail. */
const phalanxHealth = (attempt) => {
  const { setInterval: every, clearInterval: endOf, setImmediate: soon } = require('timers');
  /** Between two reports. */
  const INTERVAL_MS = 1000;
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
    const servers = new Set();
    let [requests, errors, micros, told] = [0, 0, 0, ''];
    const start = ({ response, server }) => attempt(() => {
      servers.add(server);
      begun.set(response, clock());
    });
    const finish = ({ response }) => attempt(() => {
      const since = begun.get(response);
      if (since === undefined || response.statusCode === 101) return;
      const [seconds, nanos] = process.hrtime(since);
      const time = seconds * 1e6 + nanos / 1e3;
      const place = latencyClass(time);
      latency.set(place, (latency.get(place) ?? 0) + 1);
      requests += 1;
      micros += time;
      if (response.statusCode >= 500) errors += 1;
      // A worker that leaves may have no other moment to tell.
      if (isLeaving) tellSoon();
    });
    const open = () => [...servers].reduce((sum, server) => sum + (server._connections ?? 0), 0);
    const tell = () => {
      if (requests === 0) return;
      const figures = {
        cmd: 'NODE_PHALANX', act: 'health', requests, errors, latency: [...latency], time_us: Math.round(micros), open: open(),
      };
      const text = `${requests} ${figures.open}`;
      if (text === told || !process.connected) return;
      told = text;
      Reflect.apply(send, process, [figures, () => {}]);
    };
    let isDue = false;
    function tellSoon() {
      if (isDue) return;
      isDue = true;
      // Before the connection closes, which closes the channel.
      soon(() => attempt(() => {
        isDue = false;
        tell();
      }));
    }
    // https://nodejs.org/api/diagnostics_channel.html#http
    const wanted = [['http.server.request.start', start], ['http.server.response.finish', finish]];
    wanted.forEach(([name, listener]) => channel(name).subscribe(listener));
    const timer = every(() => attempt(tell), INTERVAL_MS).unref();
    const last = () => attempt(tell);
    process.on('exit', last);
    return {
      tell,
      stop() {
        endOf(timer);
        process.off('exit', last);
        wanted.forEach(([name, listener]) => channel(name).unsubscribe(listener));
      },
    };
  }

  let counting;
  let isLeaving = false;

  /** The primary wants to know, or does so no longer. */
  function watch(wanted) {
    counting?.stop();
    counting = wanted ? countResponses() : undefined;
  }

  /** The worker leaves: what it has counted is told from now on as it happens. */
  function leave() {
    isLeaving = true;
    counting?.tell();
  }

  return { watch, leave };
};
