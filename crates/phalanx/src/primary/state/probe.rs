//! The ways on which a worker is asked (`tasks/probe.rs`): over a slot that nobody else is steered to, or by handing one
//! connection over. The program that chooses slots knows the question by its source port.
//!
//! INVARIANT: the exception for the port ends before the next question of the same listener begins, and before the
//! worker's slot becomes its position's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::ClientHash;

use crate::primary::mailbox::{Put, Way};
use crate::primary::sockets::slots::Place;
use crate::primary::state::{Hub, Share};

impl Hub {
    /// How the worker is asked this time: on each of its TCP listeners in turn.
    pub(super) fn way_to(&self, worker: WorkerId, turn: usize) -> Option<Way> {
        let held = self.machine.held(worker);
        let ways = held.filter_map(|(_, held)| {
            let listener = self.listeners.get(&held.listener)?;
            match &listener.carrier {
                Carrier::Kernel(slots) => Some(Way::Slot(held.listener, slots.address())),
                Carrier::Handoff(_) if held.share != Share::None => {
                    Some(Way::Handed(held.listener))
                }
                Carrier::Handoff(_) | Carrier::Shared(_) => None,
            }
        });
        let ways: Vec<Way> = ways.collect();
        ways.get(turn.checked_rem(ways.len())?).copied()
    }

    pub(super) fn hand_probe(
        &mut self,
        id: ListenerId,
        worker: WorkerId,
        connection: OwnedFd,
    ) -> io::Result<()> {
        let position = self.workers.get(&worker).map(|state| state.cell.position());
        self.ledger
            .admit(worker, position.ok_or(io::ErrorKind::NotConnected)?);
        if !self.hand_over(id, worker, &connection) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.ledger
            .offer(id, worker, ClientHash::UNKNOWN, connection);
        self.count_offered(worker);
        Ok(())
    }

    /// The worker's position, and where it is reached.
    pub(super) fn probed_slot(
        &self,
        worker: WorkerId,
        id: ListenerId,
    ) -> Option<(Position, SocketAddr)> {
        let position = self.workers.get(&worker)?.cell.position();
        let slots = self.listeners.get(&id)?.carrier.slots()?;
        Some((position, slots.address()))
    }

    pub(super) fn begin_probe(
        &mut self,
        id: ListenerId,
        worker: WorkerId,
        port: u16,
    ) -> io::Result<Place> {
        let slots = self.listeners.get_mut(&id);
        let slots = slots.and_then(|listener| listener.carrier.slots_mut());
        slots
            .ok_or(io::ErrorKind::NotFound)?
            .begin_probe(worker, port)
    }

    /// Whether no one but the worker can have been given the connection that was put there.
    pub(super) fn has_stayed(&self, id: ListenerId, worker: WorkerId, place: &Place) -> bool {
        let slots = self.listeners.get(&id);
        let slots = slots.and_then(|listener| listener.carrier.slots());
        slots.is_some_and(|slots| slots.has_stayed(worker, place))
    }

    pub(super) fn end_probe(&mut self, id: ListenerId) {
        let slots = self.listeners.get_mut(&id);
        if let Some(slots) = slots.and_then(|listener| listener.carrier.slots_mut()) {
            slots.end_probe();
        }
    }

    /// The stuck worker was tried over its slot; `trial` is the connection that waits there.
    pub(super) fn tried(
        &mut self,
        id: ListenerId,
        (position, worker): (Position, WorkerId),
        trial: Option<Put>,
    ) {
        let slots = self.listeners.get_mut(&id);
        if let Some(slots) = slots.and_then(|listener| listener.carrier.slots_mut()) {
            // One that has moved meanwhile tries nobody.
            let stays = |trial: &Put| slots.has_stayed(worker, &trial.place);
            let has_moved = trial.as_ref().is_some_and(|trial| !stays(trial));
            if has_moved {
                slots.tries_again(position, worker);
            } else {
                slots.tried(position, worker, trial.map(|trial| trial.stream));
            }
        }
        self.settle_slots_later(id);
    }
}
