//! Accepting in batches, for Node workers under a burst.
//!
//! An event loop of libuv from 1.45 on (Node from 20.3) takes one connection a turn from a listening
//! descriptor, so that processes that share a socket get their shares. Nobody else accepts from a slot:
//! there it only makes the loop turn once a connection, which costs a Node worker up to 40 % of its
//! time (docs/node-workers.md). So a worker in whose slot connections queue up gets duplicates (dup(2)) of the
//! slot, by its preloaded script, and takes one connection a turn from each. While nothing queues, each duplicate
//! costs an accept4(2) in vain a connection (7 µs): so they are given up again after a calm (`burst_detector.rs`).

use std::sync::Arc;

use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::outgoing;

use crate::primary::sockets::listening::BACKLOG;
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;

impl Hub {
    /// Tells workers to accept in batches from this listener, or to stop that.
    pub(in crate::primary) fn tell_batches(
        &mut self,
        id: ListenerId,
        batches: &[(WorkerId, bool)],
    ) {
        for &(worker, wanted) in batches {
            let Some(state) = self.workers.get_mut(&worker) else {
                continue;
            };
            let mut held = self.machine.held(worker);
            let key = held.find(|(_, held)| held.listener == id);
            if let (Some((key, _)), Some(channel)) = (key, state.channel.as_mut()) {
                let what = if wanted { "to" } else { "no longer to" };
                tracing::debug!(worker = worker.0, "is told {what} accept in batches");
                let number = channel.next_seq();
                channel.queue(Outgoing {
                    bytes: outgoing::batch(key, wanted, number),
                    handle: None,
                });
            }
        }
    }

    /// A worker that was told of a burst asks for duplicates of its slot.
    pub(in crate::primary) fn duplicates_asked(&mut self, worker: WorkerId, key: &str, count: u32) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if state.cell.departure().is_some() {
            return;
        }
        let position = state.cell.position();
        let Some(held) = self.machine.held_as(worker, key) else {
            return;
        };
        let listener = self.listeners.get_mut(&held.listener);
        let slots = listener.and_then(|listener| listener.carrier.slots_mut());
        let Some(slot) = slots.and_then(|slots| slots.duplicates_due(position, worker)) else {
            return;
        };
        // The same as that of the worker's own listen(2): the last one counts.
        let backlog = held.request.backlog.unwrap_or(BACKLOG);
        for _ in 0..count {
            self.answer(worker, |number| Outgoing {
                bytes: outgoing::duplicate(key, backlog, number),
                handle: Some(Arc::clone(&slot)),
            });
        }
    }
}
