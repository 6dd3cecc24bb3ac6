// Connections that a Node worker is to end politely although it stays, so that their clients come to others
// (`phalanx rebalance`). It stands in front of worker.cjs, in one file with it.
//
// INVARIANTS: before the primary asks nothing is subscribed to, and nothing when it is over. The primary says how many to keep, never
// how many to end: what was ended meanwhile only this worker knows. Its answer says what is open, what of that is ending and what
// cannot be ended, all at the same moment.
'use strict';

/** Answers with what takes the primary's word. `attempt` runs what must not fail; the other means are worker.cjs's. */
const phalanxShed = (attempt, { makeLast, chunkGoesOn }, http2, { sorted, servers, above, symbolValue }) => {
  const { sessions, sessionOf, endSession, hasEvents, isEvents } = http2;
  /** Between two looks at which connections are streams: each of them is looked at. */
  const STREAMS_MS = 1000;

  const { send } = process;
  const now = Date.now;
  /** Sockets and sessions that were told to end, and are there still. */
  const ending = new Set();
  /** Servers that have connections. */
  let known = new Set();
  let keep;
  let subscribed = false;
  let fixed = 0;
  let fixedAt = 0;
  /** Whether streams were to end when `fixed` was counted. */
  let fixedWithout = false;

  const open = () => {
    let count = 0;
    for (const server of known) count += server._connections ?? 0;
    return count;
  };

  const isMore = () => keep !== undefined && open() - ending.size > keep;

  function note(connection) {
    ending.add(connection);
    connection.once('close', () => ending.delete(connection));
  }

  const onRequest = ({ request, response, socket }) => attempt(() => {
    // After an upgrade there is no answer with which the connection could end.
    if (request.headers.upgrade !== undefined) return;
    if (!ending.has(socket)) {
      if (socket.server) known.add(socket.server);
      if (!isMore()) return;
      note(socket);
    }
    makeLast(response, chunkGoesOn(socket.parser, request));
  });

  function subscribe(wish) {
    if (subscribed === wish) return;
    subscribed = wish;
    const channel = require('diagnostics_channel').channel('http.server.request.start');
    if (wish) channel.subscribe(onRequest);
    else channel.unsubscribe(onRequest);
  }

  function endSessions() {
    for (const session of sessions()) {
      if (!isMore()) return;
      if (ending.has(session) || session.closed || session.destroyed || hasEvents(session)) continue;
      note(session);
      attempt(() => endSession(session));
    }
  }

  /**
   * Ends a stream although this worker stays: a WebSocket of the package ws with its closing handshake (1001, "going away"),
   * server-sent events behind the last one that was written, whatever else was upgraded at the end of what was written.
   */
  function endStream(socket) {
    const upper = above(socket) ?? socket;
    const session = sessionOf(upper);
    if (session) {
      for (const stream of symbolValue(session, 'state').streams.values()) if (isEvents(stream)) stream.end();
      endSession(session);
      return true;
    }
    const webSocket = symbolValue(upper, 'websocket');
    const response = upper._httpMessage;
    if (typeof webSocket?.close === 'function') {
      webSocket.close(1001);
    } else if (response) {
      response._last = true;
      response.end();
    } else {
      upper.end();
    }
    return true;
  }

  /** Ends streams above what is to be kept; they are the last that go. */
  function endStreams() {
    for (const socket of sorted().streams) {
      if (!isMore()) return;
      if (ending.has(socket) || socket.destroyed) continue;
      if (attempt(() => endStream(socket))) note(socket);
    }
  }

  /** How many connections nothing of this can end, or is to. */
  function countFixed(streamsToo) {
    const { streams, foreign } = sorted();
    return foreign + (streamsToo ? 0 : streams.filter((socket) => !ending.has(socket)).length);
  }

  return (wanted, streamsToo, asked) => {
    keep = wanted ?? undefined;
    known = servers();
    if (now() - fixedAt >= STREAMS_MS || streamsToo !== fixedWithout) {
      fixedWithout = streamsToo;
      fixed = countFixed(streamsToo);
      fixedAt = now();
    }
    if (isMore()) attempt(endSessions);
    if (isMore() && streamsToo) attempt(endStreams);
    subscribe(keep !== undefined);
    const held = open();
    const figures = { open: held, ending: ending.size, fixed: Math.min(fixed, held) };
    const report = { cmd: 'NODE_PHALANX', act: 'holds', ...figures, ack: asked };
    if (process.connected) Reflect.apply(send, process, [report, () => {}]);
  };
};
