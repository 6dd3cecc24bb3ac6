// How a Node worker accepts in batches, while the primary wants it to: with duplicates of its slot, by
// which libuv takes a connection each, every turn of its loop.
//
// It stands in front of worker.cjs, in one file with it.
//
// INVARIANTS: a duplicate never keeps the process alive, has the server's own callbacks, and is closed with
// the slot, in the same call. No duplicate is asked for before the primary tells of a rush.
'use strict';

/** Answers with what to do for messages of the primary. `full` is what full.cjs answers with. */
const phalanxBatch = (full) => {
  /** How many, besides the slot itself: with more of them more accepts find nothing. */
  const COUNT = 3;
  const [major, minor] = process.versions.uv.split('.').map(Number);
  /** libuv before 1.45 takes all connections that wait, anyway. */
  const takesOne = major > 1 || minor >= 45;

  const send = process.send;
  /** What this worker listens with, by the key that the primary gave it. */
  const slots = new Map();

  const closeAll = (slot) => slot.duplicates.splice(0).forEach((duplicate) => duplicate.close());

  /** The primary has answered `queryServer`; `handle` listens soon. Node puts its own `close` above this one. */
  function keep(key, handle) {
    if (!takesOne || typeof handle.close !== 'function') return;
    const slot = { handle, isWanted: false, duplicates: [] };
    const { close } = handle;
    slots.set(key, slot);
    handle.close = function (...parameters) {
      if (slots.get(key) === slot) slots.delete(key);
      slot.isWanted = false;
      closeAll(slot);
      return Reflect.apply(close, this, parameters);
    };
  }

  function want(key, isWanted) {
    const slot = slots.get(key);
    if (!slot || slot.isWanted === isWanted) return;
    slot.isWanted = isWanted;
    if (isWanted) {
      const question = { cmd: 'NODE_PHALANX', act: 'duplicates', key, count: COUNT };
      Reflect.apply(send, process, [question, () => {}]);
    } else {
      closeAll(slot);
    }
  }

  function add(key, backlog, duplicate) {
    const slot = slots.get(key);
    const owner = slot && Object.getOwnPropertySymbols(slot.handle).find((one) => one.description === 'owner_symbol');
    const isOpen = owner && slot.isWanted && slot.handle.fd >= 0 && typeof full.listenerOf(slot.handle) === 'function';
    if (!isOpen) {
      duplicate.close();
      return;
    }
    full.join(key, duplicate);
    duplicate[owner] = slot.handle[owner];
    if (duplicate.listen(backlog) !== 0) {
      duplicate.close();
      return;
    }
    duplicate.unref();
    slot.duplicates.push(duplicate);
  }

  return { keep, want, add };
};
