// Connections that a Node worker is to end politely although it stays, so that their clients come to others
// (`phalanx rebalance`). It stands in front of worker.cjs, in one file with it.
//
// INVARIANTS: before the primary asks nothing is subscribed to, and nothing when it is over. What the primary wants are whole
// numbers, those included that are ending already: so what counts is how many end at a time.
'use strict';

/** Answers with what takes the primary's word. `attempt` runs what must not fail; the other means are worker.cjs's. */
const phalanxShed = (attempt, { makeLast, chunkGoesOn, sessions, endSession }) => {
  /** Sockets and sessions that were told to end, and are there still. */
  const ending = new Set();
  let wanted = 0;
  let subscribed = false;

  const isMore = () => ending.size < wanted;

  function note(connection) {
    ending.add(connection);
    connection.once('close', () => {
      ending.delete(connection);
      // What was wanted included it.
      wanted = Math.max(0, wanted - 1);
    });
  }

  const onRequest = ({ request, response, socket }) => attempt(() => {
    // After an upgrade there is no answer with which the connection could end.
    if (request.headers.upgrade !== undefined) return;
    if (!ending.has(socket)) {
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
      if (ending.has(session) || session.closed || session.destroyed) continue;
      note(session);
      attempt(() => endSession(session));
    }
  }

  return (count) => {
    wanted = Number(count) || 0;
    if (isMore()) attempt(endSessions);
    subscribe(wanted > 0);
  };
};
