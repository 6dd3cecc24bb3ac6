//! Full Node workers under dispatch in the kernel (`server.maxConnections`).
//!
//! Node closes what reaches a full server. Its own primary offers a connection elsewhere instead, and so does handoff;
//! the kernel has given it to the worker already. So the preloaded script (`preload/full.cjs`) tells when its server is full and when it
//! has room again, and the slot is left out meanwhile (`sockets/slots/full.rs`). What the kernel has steered to it in that instant the worker
//! returns, and it is handed over to one that has room. When nobody has, it is closed, as Node would.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::{HANDLE_ACK, HANDLE_NACK, outgoing};
use phalanx_sys::socket;

use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;

/// For so long a full worker returns nothing after nobody had room.
const LEASE: Duration = Duration::from_millis(100);
/// Returned connections that may wait at once; each is a descriptor of the primary's.
const RETURNED_MAX: usize = 1024;

impl Hub {
    /// A worker is full at the slot of this key, or has room again.
    pub(in crate::primary) fn full_told(&mut self, worker: WorkerId, key: &str, is_full: bool) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        let position = state.cell.position();
        let Some(id) = self.machine.held_as(worker, key).map(|held| held.listener) else {
            return;
        };
        let slots = self.listeners.get_mut(&id);
        let Some(slots) = slots.and_then(|listener| listener.carrier.slots_mut()) else {
            return;
        };
        if !slots.set_full(position, worker, is_full) || !self.ledger.has_listener(id) {
            return;
        }
        if slots.has_room(position, worker) {
            self.ledger.join(id, worker, position);
            self.pump();
        } else {
            self.ledger.leave(id, worker);
        }
    }

    /// A full worker returns a connection.
    pub(in crate::primary) fn connection_returned(&mut self, worker: WorkerId, key: &str) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        let connection = channel.received.pop_front();
        let answer = connection.as_ref().map_or(HANDLE_NACK, |_| HANDLE_ACK);
        self.write(worker, answer.to_vec());
        let Some(connection) = connection else {
            return;
        };
        let held = self.machine.held_as(worker, key);
        let Some(id) = held.map(|held| held.listener) else {
            return;
        };
        if !self.is_connection_of(id, &connection) {
            return self.complain(
                worker,
                "returned what is no connection of its listener: closed",
            );
        }
        self.count_returned(worker, 1);
        self.full_told(worker, key, true);
        self.take_returns(id);
        let others = self.ledger.has_members(id);
        if others && self.ledger.waiting() < RETURNED_MAX {
            let client = self.client_of(&connection);
            self.ledger.hold(id, client, connection);
            return self.pump();
        }
        if !others {
            self.answer(worker, |number| Outgoing {
                bytes: outgoing::crowded(key, LEASE, number),
                handle: None,
            });
        }
    }

    /// Another process gives it out as a connection: workers are handed nothing else.
    fn is_connection_of(&self, id: ListenerId, connection: &OwnedFd) -> bool {
        let listener = self.listeners.get(&id);
        let slots = listener.and_then(|listener| listener.carrier.slots());
        slots.is_some_and(|slots| {
            let port = slots.address().port();
            socket::is_tcp_connection_at(connection.as_fd(), port).unwrap_or(false)
        })
    }

    /// From the first time that somebody returns a connection, those with room may be offered it.
    fn take_returns(&mut self, id: ListenerId) {
        if self.ledger.has_listener(id) {
            return;
        }
        let policy = self.make_policy(id);
        self.ledger.add_listener(id, policy);
        let listener = self.listeners.get(&id);
        let Some(slots) = listener.and_then(|listener| listener.carrier.slots()) else {
            return;
        };
        for (&worker, state) in &self.workers {
            let position = state.cell.position();
            if state.channel.is_some() && slots.has_room(position, worker) {
                self.ledger.join(id, worker, position);
            }
        }
    }
}
