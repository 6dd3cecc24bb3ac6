// How busy a Node worker's event loop is (`performance.eventLoopUtilization()`), told once a second while the primary wants to know it:
// the size of the app follows that. It stands in front of worker.cjs, in one file with it.
//
// INVARIANT: before the primary asks there is no timer, and none that keeps the process from ending.
'use strict';

/** Answers with what starts and stops the telling. `attempt` runs what must not fail. */
const phalanxBusy = (attempt) => {
  const INTERVAL_MS = 1000;

  // The application may put others in their place.
  const { clearInterval, setInterval } = globalThis;
  const send = process.send;
  let timer;

  return (wanted) => {
    clearInterval(timer);
    if (!wanted) return;
    const { performance } = require('perf_hooks');
    const utilization = performance.eventLoopUtilization.bind(performance);
    let before = utilization();
    const tell = () => {
      const now = utilization();
      const busy = Math.round(utilization(now, before).utilization * 1000);
      before = now;
      const report = { cmd: 'NODE_PHALANX', act: 'loop', busy };
      if (process.connected) Reflect.apply(send, process, [report, () => {}]);
    };
    timer = setInterval(() => attempt(tell), INTERVAL_MS);
    timer.unref();
  };
};
