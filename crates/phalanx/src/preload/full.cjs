// What a Node worker does that accepts from a slot of its own and is full (`server.maxConnections`): it tells the primary so,
// which gives it nothing more until it has room, and returns what the kernel had steered to it already. Node by
// itself closes that.
//
// It stands in front of worker.cjs, in one file with it.
//
// INVARIANTS: a server without a limit is left as it is. No frame of this file is on the stack when a connection is
// given to the application: what stands in Node's place is read, before it is called, and answers with Node's own.
'use strict';

/** Answers with what to do with handles and messages of the primary. `attempt` runs what must not fail. */
const phalanxFull = (attempt) => {
  /** While it is full: for what changes without a word, such as the limit. */
  const LOOK_MS = 100;
  /** Since then a limit of 0 is one. */
  const isZeroOne = Number(process.versions.node.split('.')[0]) >= 21;

  // The application may put others in their place.
  const { setInterval: every, clearInterval: endOf } = globalThis;
  const now = process.hrtime.bigint;
  const send = process.send;
  /** What this worker listens with, by the key that the primary gave it. */
  const slots = new Map();
  /** What is above each handle of a slot, and what Node has set there. */
  const guards = new WeakMap();
  const watched = new WeakMap();

  /** Whether a server takes no more connections, when it has so many more. */
  function isFull(server, more) {
    const { maxConnections: most, dropMaxConnection: drops } = server;
    if (drops || most === undefined || most === null || (!most && !isZeroOne)) return false;
    return server._connections + more >= most;
  }

  const ownerOf = (handle) => {
    const owner = Object.getOwnPropertySymbols(handle).find((one) => one.description === 'owner_symbol');
    return owner && handle[owner];
  };

  function tell(slot, server, full) {
    if (slot.isFull === full || !process.connected) return;
    slot.isFull = full;
    const message = { cmd: 'NODE_PHALANX', act: 'full', key: slot.key, full };
    Reflect.apply(send, process, [message, () => {}]);
    endOf(slot.timer);
    if (full) {
      watch(server, slot);
      slot.timer = every(() => attempt(() => look(server, slot)), LOOK_MS);
      slot.timer.unref();
    }
  }

  function look(server, slot) {
    if (server._handle !== slot.handle) endOf(slot.timer);
    else if (!isFull(server, 0)) tell(slot, server, false);
  }

  /** Node calls this when a connection of a server has ended. */
  function watch(server, slot) {
    const known = watched.has(server);
    watched.set(server, slot);
    if (known) return;
    const { _emitCloseIfDrained: own } = server;
    Object.defineProperty(server, '_emitCloseIfDrained', {
      configurable: true,
      writable: true,
      value: function _emitCloseIfDrained(...parameters) {
        attempt(() => look(server, watched.get(server)));
        return Reflect.apply(own, this, parameters);
      },
    });
  }

  /** What is to be called for the connection that has come. */
  function instead(slot, own) {
    const server = typeof own === 'function' && ownerOf(slot.handle);
    if (!server || !isFull(server, 1)) return own;
    tell(slot, server, true);
    const isCrowded = now() < slot.crowdedUntil;
    if (!isFull(server, 0) || isCrowded || !process.connected) return own;
    return function onconnection(error, client) {
      if (error || !client) return Reflect.apply(own, this, [error, client]);
      const message = { cmd: 'NODE_PHALANX', act: 'return', key: slot.key };
      const isSent = attempt(() => Reflect.apply(send, process, [message, client, {}, () => client.close()]) ?? true);
      if (isSent === undefined) client.close();
      return undefined;
    };
  }

  function guard(handle, slot, set) {
    const state = { own: set };
    guards.set(handle, state);
    Object.defineProperty(handle, 'onconnection', {
      configurable: true,
      enumerable: true,
      get: () => attempt(() => instead(slot, state.own)) ?? state.own,
      set: (listener) => { state.own = listener; },
    });
  }

  /** The primary has answered `queryServer` with a slot; `handle` listens soon. */
  function keep(key, handle) {
    const slot = { key, handle, isFull: false, timer: undefined, crowdedUntil: 0n };
    slots.set(key, slot);
    guard(handle, slot, handle.onconnection);
  }

  /** What Node has set to be called for connections. */
  const listenerOf = (handle) => (guards.has(handle) ? guards.get(handle).own : handle.onconnection);

  /** A duplicate of a slot is about to listen. */
  function join(key, duplicate) {
    const slot = slots.get(key);
    if (slot) guard(duplicate, slot, listenerOf(slot.handle));
  }

  /** Nobody has room: it does as Node does for so long. */
  function crowded(key, lease) {
    const slot = slots.get(key);
    if (slot) slot.crowdedUntil = now() + BigInt(lease) * 1000000n;
  }

  return { keep, join, listenerOf, crowded };
};
