// What a Node worker tells of its load, while the primary wants to know it: open connections, requests
// that await their answer, and the slowest answer. A policy that compares loads goes by it.
//
// It stands in front of worker.cjs, in one file with it.
//
// INVARIANTS: before the primary asks, nothing is subscribed to and nothing is counted. Afterwards the
// application sees subscribers of `diagnostics_channel` and nothing else. A report is written at most
// every INTERVAL_MS, and only when something has changed.
'use strict';

/** Answers with what starts and stops the telling. `attempt` runs what must not fail. */
const phalanxLoad = (attempt) => {
  /** Between two reports while there is traffic. A choice by what was true 20 ms ago is a poor one. */
  const INTERVAL_MS = 2;
  /** Between two looks while connections are open and nothing happens. */
  const REST_MS = 250;

  // The application may put others in their place.
  const { clearTimeout, setTimeout } = globalThis;
  const now = process.hrtime.bigint;
  const send = process.send;
  const answered = () => {};

  const servers = new Set();
  /** When each unanswered request began. */
  const outstanding = new Map();
  let accepted = 0;
  let openBefore = 0;
  let slowestUs = 0;
  let told = '';
  let timer;

  const open = () => {
    let count = 0;
    for (const server of servers) {
      count += server._connections ?? 0;
      if (!server.listening && !server._connections) servers.delete(server);
    }
    return count;
  };

  /** Requests whose client went away are never answered. */
  function sweep() {
    for (const response of outstanding.keys()) {
      if (response.destroyed || response.writableFinished) outstanding.delete(response);
    }
  }

  function tell() {
    timer = undefined;
    sweep();
    const held = open();
    const report = {
      cmd: 'NODE_PHALANX',
      act: 'load',
      open: held,
      closed: openBefore + accepted - held,
      outstanding: outstanding.size,
      slowest_us: slowestUs,
    };
    slowestUs = 0;
    const text = JSON.stringify(report);
    const changed = text !== told;
    if (changed && process.connected) {
      told = text;
      Reflect.apply(send, process, [report, answered]);
    }
    if (changed || held > 0) wake(changed ? INTERVAL_MS : REST_MS);
  }

  function wake(delay) {
    if (timer !== undefined) return;
    timer = setTimeout(() => attempt(tell), delay);
    timer.unref();
  }

  /** Something has happened: a report is due soon. */
  function stir() {
    if (timer !== undefined && timer._idleTimeout > INTERVAL_MS) {
      clearTimeout(timer);
      timer = undefined;
    }
    wake(INTERVAL_MS);
  }

  const onSocket = ({ socket }) => attempt(() => {
    if (socket.server) servers.add(socket.server);
    accepted += 1;
    stir();
  });

  const onRequest = ({ response }) => attempt(() => {
    outstanding.set(response, now());
    stir();
  });

  const onResponse = ({ response }) => attempt(() => {
    const began = outstanding.get(response);
    if (began === undefined) return;
    outstanding.delete(response);
    // A stream of events is meant to last.
    if (/event-stream/.test(response.getHeader('content-type') ?? '')) return;
    slowestUs = Math.max(slowestUs, Number((now() - began) / 1000n), 1);
    stir();
  });

  const channels = [
    ['net.server.socket', onSocket],
    ['http.server.request.start', onRequest],
    ['http.server.response.finish', onResponse],
  ];

  function watch(wanted) {
    const { channel } = require('diagnostics_channel');
    for (const [name, listener] of channels) {
      channel(name).unsubscribe(listener);
      if (wanted) channel(name).subscribe(listener);
    }
    clearTimeout(timer);
    timer = undefined;
    outstanding.clear();
    servers.clear();
    if (!wanted) return;
    // What is open already: its servers are known by their sockets.
    for (const handle of process._getActiveHandles()) {
      if (handle?.server) servers.add(handle.server);
    }
    accepted = 0;
    openBefore = open();
    told = '';
    tell();
  }

  return watch;
};
