// How a Node worker ends that has left (its connections are done and its channel is closed) and yet lives: it may have
// work that no connection is part of, or be kept alive by what is no work: repeating timers, idle pools.

/** Returns what begins to look, and what the application's word ends at once. */
function phalanxIdle(attempt) {
  /** Between two looks; longer and longer, because a look at timers walks through the heap. */
  const LOOK_MS = 50;
  const LOOK_MAX_MS = 2000;
  /** A connection to elsewhere on which nothing was sent or came for so long is idle. */
  const QUIET_MS = 5000;
  /** What waits for something that may never come. */
  const WAITING = new Set([
    'TCPServerWrap', 'PipeServerWrap', 'UDPWrap', 'TTYWrap', 'FSEventWrap', 'StatWatcher', 'SignalWrap',
  ]);
  const SOCKETS = new Set(['TCPSocketWrap', 'PipeWrap', 'TLSWrap']);

  let hasLeft = false;
  let isDone = false;
  const activity = new WeakMap();

  /** SIGTERM, as the primary would send it after the limit: the application may have a handler. */
  const end = () => process.kill(process.pid, 'SIGTERM');

  /** The objects in the heap that have one of these prototypes. */
  function instances(prototypes) {
    const { Session } = require('inspector');
    const session = new Session();
    const place = `phalanx${process.hrtime.bigint()}`;
    const post = (method, parameters) => {
      let answer;
      session.post(method, parameters, (error, result) => { answer = error ? undefined : result; });
      return answer;
    };
    let found;
    const shared = { prototypes, take: (objects) => { found = [...objects]; } };
    Object.defineProperty(globalThis, place, { configurable: true, value: shared });
    try {
      session.connect();
      return prototypes.map((_, index) => {
        const { result } = post('Runtime.evaluate', { expression: `${place}.prototypes[${index}]` });
        const { objects } = post('Runtime.queryObjects', { prototypeObjectId: result.objectId });
        const functionDeclaration = `function () { ${place}.take(this); }`;
        post('Runtime.callFunctionOn', { objectId: objects.objectId, functionDeclaration });
        return found;
      });
    } finally {
      session.disconnect();
      delete globalThis[place];
    }
  }

  /** Whether a timer that fires once, or a thread, is under way. */
  function hasTimedWork() {
    const probe = setTimeout(() => {}, 1);
    clearTimeout(probe);
    const { Worker } = require('worker_threads');
    const [timers, threads] = instances([Object.getPrototypeOf(probe), Worker.prototype]);
    const isOnce = (timer) => timer && !timer._destroyed && timer._repeat === null && timer.hasRef?.();
    return timers.some(isOnce) || threads.some((thread) => attempt(() => thread.threadId) > 0);
  }

  /** Whether nothing has passed on this connection to elsewhere for a while. */
  function isQuiet(socket) {
    const { bytesRead = 0, bytesWritten = 0 } = socket;
    const bytes = bytesRead + bytesWritten;
    const now = Date.now();
    const known = activity.get(socket);
    if (!known || known.bytes !== bytes) activity.set(socket, { bytes, since: now });
    return now - activity.get(socket).since >= QUIET_MS;
  }

  function hasWork() {
    const kinds = process.getActiveResourcesInfo();
    if (kinds.length === 0) return true; // Something that is not listed keeps it alive.
    if (kinds.some((kind) => !WAITING.has(kind) && !SOCKETS.has(kind) && kind !== 'Timeout')) return true;
    const standard = new Set([process.stdin, process.stdout, process.stderr]);
    const sockets = process._getActiveHandles().filter((handle) => handle?.bytesWritten !== undefined && !handle.fd);
    // All of them are looked at, so that all of them are quiet since their time.
    const busy = sockets.filter((socket) => !standard.has(socket) && (socket.server || !isQuiet(socket)));
    return busy.length > 0 || hasTimedWork();
  }

  function look(delay) {
    setTimeout(() => attempt(() => {
      if (hasWork()) look(Math.min(delay * 2, LOOK_MAX_MS));
      else end();
    }), delay).unref();
  }

  return () => {
    process.once('phalanx:done', () => {
      isDone = true;
      if (hasLeft) end();
    });
    process.once('disconnect', () => attempt(() => {
      hasLeft = true;
      if (isDone) end();
      else look(LOOK_MS);
    }));
  };
}
