// What a Node worker does beyond Node: it drains politely, counts its responses while the primary watches
// a canary (health.cjs), tells its load (load.cjs), accepts in batches (batch.cjs), returns what it has no room
// for (full.cjs), ends connections for a rebalance (shed.cjs), and tells how busy it is (busy.cjs). `phalanx` puts this file in front of the worker's own script by
// `--require` in NODE_OPTIONS.
//
// INVARIANTS: the application sees nothing of it. Until the drain begins nothing is patched but one entry
// of the list of internal listeners, `cluster.worker.disconnect` and a slot's `onconnection`, and no frame of this file is ever on the
// stack of the application's code. Whatever fails in here is swallowed: then the worker drains as Node does.
'use strict';

(() => {
  /** How long a client of HTTP/2 may take to answer a ping. */
  const NOTICE_MS = 1000;
  /** A frame that ends nothing yet: it names the greatest stream of all (RFC 9113, 6.8). */
  const LATER_GOAWAY = Buffer.from('0000080700000000007fffffff00000000', 'hex');
  /** This long before the drain limit streams are looked for once more. */
  const ADVANCE_MS = 2000;

  function attempt(act) {
    try {
      return act();
    } catch {
      return undefined;
    }
  }

  const watchLoad = phalanxLoad(attempt);
  const full = phalanxFull(attempt);
  const batch = phalanxBatch(full);
  const health = phalanxHealth(attempt);
  const appMetrics = phalanxAppMetrics(attempt);
  const watchLoop = phalanxBusy(attempt);
  const endWhenIdle = phalanxIdle(attempt);

  /** Leaves no trace: other processes and threads that this one starts are none of phalanx's business. */
  function erase() {
    delete require.cache[__filename];
    const own = `--require ${JSON.stringify(__filename)}`;
    const publish = '--inspect-publish-uid=stderr ';
    let options = process.env.NODE_OPTIONS;
    if (options?.startsWith(publish + own)) options = options.slice(publish.length);
    if (options === own) {
      delete process.env.NODE_OPTIONS;
    } else if (options !== undefined && options.startsWith(`${own} `)) {
      process.env.NODE_OPTIONS = options.slice(own.length + 1);
    }
    const words = process.execArgv;
    if (words[0] === '--require' && words[1] === __filename) words.splice(0, 2);
  }

  /**
   * Calls `told` when the primary asks this worker to leave, before Node itself hears of it. The first
   * listener is that of Node's channel; it does nothing with this message, and what it passes on is run
   * from a queue: so the wrapper is never beneath the application, and the number of listeners stays.
   */
  function beforeDisconnect(told) {
    const listeners = process._events?.internalMessage;
    if (!Array.isArray(listeners) || listeners.length !== 2) return;
    const [ofChannel] = listeners;
    listeners[0] = function internalMessage(message, handle) {
      attempt(() => {
        if (message?.cmd === 'NODE_CLUSTER') ofCluster(message, handle, told);
        if (message?.cmd === 'NODE_PHALANX') ofPhalanx(message, handle);
      });
      return Reflect.apply(ofChannel, this, [message, handle]);
    };
  }

  function ofCluster(message, handle, told) {
    if (message.act === 'disconnect') told(message.limits ?? {});
    if (!handle || message.ack === undefined || !message.key) return;
    if (message.slot) full.keep(message.key, handle);
    batch.keep(message.key, handle);
  }

  /** A spare holds this position from now on. */
  function takePosition(position) {
    delete process.env.PHALANX_SPARE;
    process.env.NODE_APP_INSTANCE = `${position}`;
    process.env.PHALANX_POSITION = `${position}`;
  }

  let shed;

  function ofPhalanx({ act, wanted, key, backlog, id, position, lease, keep, streams, seq }, handle) {
    if (act === 'shed') {
      const http1 = { makeLast, chunkGoesOn };
      const http2 = { sessions, sessionOf, endSession, hasEvents, isEvents };
      shed ??= phalanxShed(attempt, http1, http2, { sorted, servers, above, symbolValue });
      shed(keep, streams, seq);
    }
    if (act === 'position') takePosition(position);
    if (act === 'watch-health') health.watch(wanted);
    if (act === 'watch-load') watchLoad(wanted);
    if (act === 'watch-loop') watchLoop(wanted);
    if (act === 'app-metrics') appMetrics.ask(id);
    if (act === 'batch') batch.want(key, wanted);
    if (act === 'duplicate' && handle) batch.add(key, backlog, handle);
    if (act === 'crowded') full.crowded(key, lease);
  }

  /** Calls `told` when the application makes this worker leave by its own wish, before its servers close. */
  function beforeOwnWish(told) {
    const { worker } = require('cluster');
    const prototype = Object.getPrototypeOf(worker);
    const own = Object.getOwnPropertyDescriptor(prototype, 'disconnect');
    const apply = (disconnect, self, parameters) => {
      if (self === worker) attempt(told);
      return Reflect.apply(disconnect, self, parameters);
    };
    Object.defineProperty(prototype, 'disconnect', { ...own, value: new Proxy(own.value, { apply }) });
  }

  const symbolValue = (object, description) => {
    const symbol = Object.getOwnPropertySymbols(object).find((one) => one.description === description);
    return symbol && object[symbol];
  };

  // === Connections: who is there?

  /** Sockets that a server of this process has accepted; of TLS, the TCP sockets beneath. */
  const accepted = () => process._getActiveHandles().filter((handle) => handle?.server);

  const servers = () => new Set(accepted().map((socket) => socket.server));

  /** The HTTP/1 parsers of a server, one a connection; over TLS, their sockets are the TLS ones. */
  const parsers = (server) => symbolValue(server, 'http.server.connections')?.all() ?? [];

  /** The HTTP/2 session of a socket. Its property has another name in each version of Node. */
  function sessionOf(socket) {
    const own = Object.values(Object.getOwnPropertyDescriptors(socket));
    const symbols = Object.getOwnPropertySymbols(socket).map((symbol) => ({ value: socket[symbol] }));
    return [...own, ...symbols].find(({ value }) => typeof value?.goaway === 'function')?.value;
  }

  /** The TLS socket above one that was accepted. Only the listener by which it hears of errors knows it. */
  function above(socket) {
    const listener = socket.listeners('error').find((one) => `${one}` === '(err) => this._emitTLSError(err)');
    if (!listener) return undefined;
    const { prototype } = require('tls').TLSSocket;
    const own = Object.getOwnPropertyDescriptor(prototype, '_emitTLSError');
    let found;
    Object.defineProperty(prototype, '_emitTLSError', { ...own, value() { found = this; } });
    listener();
    Object.defineProperty(prototype, '_emitTLSError', own);
    return found;
  }

  /** The HTTP/2 sessions of the accepted sockets. */
  function sessions() {
    const known = new Set();
    for (const socket of accepted()) {
      const secure = above(socket);
      const session = sessionOf(socket) ?? (secure && sessionOf(secure));
      if (session) known.add(session);
    }
    for (const server of servers()) {
      for (const session of symbolValue(server, 'sessions') ?? []) known.add(session);
    }
    return known;
  }

  // === HTTP/1

  /** The chunk that was parsed last, and how far it has been followed. */
  let followed;

  /** Whether the chunk in which `request` was found goes on after it: then more were sent behind it. */
  function chunkGoesOn(parser, request) {
    const chunk = parser.getCurrentBuffer();
    if (!chunk?.length) return false;
    const isSame = followed?.parser === parser && followed.end < chunk.length && followed.chunk.equals(chunk);
    const head = chunk.indexOf('\r\n\r\n', isSame ? followed.end : 0);
    let end = head < 0 ? chunk.length : head + 4;
    if (request.headers['transfer-encoding'] !== undefined) {
      const last = chunk.indexOf('0\r\n\r\n', end);
      end = last < 0 ? chunk.length : last + 5;
    } else {
      end += Number(request.headers['content-length'] ?? 0);
    }
    followed = { parser, chunk, end };
    return end < chunk.length;
  }

  /** Makes the header that is about to be sent the last one of its connection. */
  function insist(response) {
    if (response.statusCode === 101 || typeof response._header !== 'string') return;
    response._last = true;
    const lines = response._header.split('\r\n').filter((line) => !/^(connection|keep-alive):/i.test(line));
    lines.splice(1, 0, 'Connection: close');
    response._header = lines.join('\r\n');
  }

  /** Lets a response say that its connection ends, unless another one has to follow it. */
  function makeLast(response, goesOn) {
    if (response._header) return;
    const { _storeHeader: store, req: request } = response;
    Object.defineProperty(response, '_storeHeader', {
      configurable: true,
      writable: true,
      value: function _storeHeader(firstLine, headers) {
        delete response._storeHeader;
        const result = Reflect.apply(store, response, [firstLine, headers]);
        attempt(() => {
          const behind = request.socket?.parser?.incoming;
          const isLast = !behind || behind === request;
          if (isLast && !goesOn) insist(response);
        });
        return result;
      },
    });
  }

  function closeAfterNextResponse() {
    // https://nodejs.org/api/diagnostics_channel.html#http: published before the application is called.
    require('diagnostics_channel').channel('http.server.request.start').subscribe(
      ({ request, response, socket }) => attempt(() => {
        makeLast(response, chunkGoesOn(socket.parser, request));
      }),
    );
    for (const server of servers()) {
      for (const { socket } of parsers(server)) attempt(() => closeAfterCurrent(socket));
    }
  }

  /** A response that is under way, and those that wait behind it on the same connection. */
  function closeAfterCurrent(socket) {
    const response = socket._httpMessage;
    if (!response) return;
    makeLast(response, false);
    response.once('finish', () => attempt(() => closeAfterCurrent(socket)));
  }

  /** Keeps Node (from 19 on) from closing the connections that rest: a request may be on its way. */
  function keepIdle() {
    const { Server } = require('http');
    const { Server: SecureServer } = require('https');
    const shields = [Server.prototype, SecureServer.prototype].map((prototype) => {
      const own = Object.getOwnPropertyDescriptor(prototype, 'closeIdleConnections');
      if (!own) return () => {};
      Object.defineProperty(prototype, 'closeIdleConnections', { ...own, value() {} });
      return () => Object.defineProperty(prototype, 'closeIdleConnections', own);
    });
    for (const session of sessions()) {
      session.close = () => {};
      shields.push(() => { delete session.close; });
    }
    process.nextTick(() => shields.forEach((lift) => attempt(lift)));
  }

  // === HTTP/2

  const ending = new WeakSet();

  /**
   * Tells the client to open nothing new, and ends the session when it has heard of it: whatever it sent
   * before is here then. Node's own GOAWAY would not do in the beginning: Node ignores all streams that come
   * after it. So this one is written past Node, which only TCP allows: TLS has one writer at a time, so
   * there a client has to repeat what it sent before it heard, as the GOAWAY says.
   */
  function endSession(session) {
    if (!session || session.closed || session.destroyed || ending.has(session)) return;
    ending.add(session);
    const socket = symbolValue(session, 'socket');
    if (session.encrypted || !socket?.writable) {
      session.goaway();
    } else {
      socket.write(LATER_GOAWAY);
    }
    closeServed(session);
  }

  /**
   * Closes a session that has no stream and whose client has read everything: it has answered a ping that
   * was sent behind all of it, or had NOTICE_MS for that. To close earlier is to lose the end of an answer
   * (Node 18).
   */
  function closeServed(session) {
    const { streams } = symbolValue(session, 'state');
    const afterPing = (act) => {
      let isDone = false;
      const once = () => attempt(() => {
        if (isDone || session.destroyed) return;
        isDone = true;
        act();
      });
      setTimeout(once, NOTICE_MS).unref();
      session.ping(once);
    };
    const close = () => (streams.size > 0 ? look() : session.close());
    const look = () => attempt(() => {
      const [stream] = streams.values();
      if (stream) stream.once('close', look);
      else if (!session.destroyed) afterPing(close);
    });
    afterPing(look);
  }

  function endSessions() {
    for (const session of sessions()) attempt(() => endSession(session));
    for (const server of servers()) {
      // A session that is not known yet is found by its next stream.
      if (/^Http2/.test(server.constructor.name)) {
        server.prependListener('stream', (stream) => attempt(() => endSession(stream.session)));
      }
    }
  }

  // === Streams: upgraded connections, and server-sent events

  const isEventStream = (response) => /^content-type: *text\/event-stream/im.test(response?._header ?? '');

  /** The socket that was accepted, beneath one of TLS. */
  const beneath = (socket) => socket?._handle?._parentWrap ?? socket;

  /** Whether server-sent events are under way on a session. */
  function hasEvents(session) {
    const streams = symbolValue(session, 'state')?.streams?.values() ?? [];
    return [...streams].some(isEvents);
  }

  const isEvents = ({ sentHeaders }) => /^text\/event-stream/i.test(sentHeaders?.['content-type'] ?? '');

  /** The accepted sockets of the sessions on which server-sent events are under way. */
  function withEvents() {
    const found = new Set();
    for (const session of sessions()) {
      if (hasEvents(session)) found.add(beneath(symbolValue(session, 'socket')));
    }
    return found;
  }

  /** The accepted sockets, those that are streams apart from the others; and how many speak no HTTP at all. */
  function sorted() {
    const plain = new Map();
    for (const server of servers()) {
      for (const { socket } of parsers(server)) {
        plain.set(socket, socket);
        plain.set(beneath(socket), socket);
      }
    }
    const events = withEvents();
    const found = { streams: [], others: [], foreign: 0 };
    for (const socket of accepted()) {
      const ofParser = plain.get(socket);
      const isHttp2 = /^Http2/.test(socket.server.constructor.name);
      const isHttp1 = symbolValue(socket.server, 'http.server.connections') !== undefined && !isHttp2;
      const isUpgraded = !ofParser && isHttp1;
      if (!isHttp1 && !isHttp2) found.foreign += 1;
      const isStream = isUpgraded || events.has(socket) || isEventStream(ofParser?._httpMessage);
      (isStream ? found.streams : found.others).push(socket);
    }
    return found;
  }

  const send = process.send;

  /** Streams have a time of their own: asks the primary for it, and holds the rest to the drain limit. */
  function limitStreams({ drain, stream }) {
    if (!(drain >= 0 && stream > 0)) return;
    const begun = Date.now();
    const ask = () => {
      if (sorted().streams.length === 0) return false;
      const patience = begun + drain + stream - Date.now();
      Reflect.apply(send, process, [{ cmd: 'NODE_PHALANX', act: 'patience', patience }, () => {}]);
      return true;
    };
    const cut = () => {
      const { streams, others } = sorted();
      if (streams.length > 0) others.forEach((socket) => socket.destroy());
    };
    ask();
    const later = (act, delay) => setTimeout(() => attempt(act), delay).unref();
    later(ask, Math.max(drain - ADVANCE_MS, drain / 2));
    later(cut, drain);
  }

  attempt(() => {
    erase();
    let isDraining = false;
    const drain = (limits) => {
      if (isDraining) return;
      isDraining = true;
      attempt(health.leave);
      attempt(appMetrics.leave);
      attempt(endWhenIdle);
      attempt(keepIdle);
      attempt(closeAfterNextResponse);
      attempt(endSessions);
      attempt(() => limitStreams(limits));
    };
    beforeDisconnect(drain);
    attempt(() => beforeOwnWish(() => {
      if (isDraining) return;
      // Node tells the primary when the last connection has ended: too late for a successor.
      Reflect.apply(send, process, [{ cmd: 'NODE_PHALANX', act: 'leaving' }, () => {}]);
      drain({});
    }));
  });
})();
