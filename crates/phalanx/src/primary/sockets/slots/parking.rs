//! The parking lot: a slot of nobody's, where newcomers wait while no worker may take them.
//!
//! When the last worker that serves is to leave, the kernel would go on giving it connections, since no other socket
//! is there: it would never have finished. So the position gets a new slot without a holder. The successor inherits it
//! with what waits in it; when another position serves first, what waits moves there.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::policy::PositionSet;

use super::BurstDetector;
use super::Pulse;
use super::Slot;
use super::Slots;

/// Where newcomers wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lot {
    /// Somebody serves, or served last.
    Empty,
    /// In the slot of this position.
    At(Position),
    /// Newcomers are refused.
    Closed,
}

impl Slots {
    /// The worker's slot is its own, and newcomers wait in another, if nobody serves.
    pub(super) fn park(&mut self, position: Position, worker: WorkerId) {
        if !self.eligible.is_empty() || self.lot != Lot::Empty {
            return;
        }
        let (socket, name) = match self.another() {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(%error, "newcomers go on to a worker that leaves: they have nowhere to wait");
                return;
            }
        };
        let slot = Slot {
            socket: Arc::clone(&socket),
            name,
            holder: None,
            base_count: self.received(position).unwrap_or(0),
            overdue: true,
            pulse: Pulse::new(),
            burst: BurstDetector::default(),
            is_full: false,
        };
        if let Some(own) = self.active.insert(position, slot) {
            self.retired.insert(worker, own);
        }
        self.steer.takes(position, socket.as_fd());
        self.lot = Lot::At(position);
        self.switch();
    }

    /// Somebody serves again.
    pub(super) fn leave_lot(&mut self) {
        if let Lot::At(_) = self.lot {
            self.lot = Lot::Empty;
        }
    }

    /// The position where newcomers wait, if nobody serves.
    pub(super) fn parked(&self) -> Option<PositionSet> {
        let Lot::At(position) = self.lot else {
            return None;
        };
        let mut parked = PositionSet::new();
        parked.insert(position);
        self.eligible.is_empty().then_some(parked)
    }

    /// Newcomers are refused from now on: what listens.
    pub(in crate::primary) fn close_intake(&mut self) -> Vec<&Arc<OwnedFd>> {
        self.lot = Lot::Closed;
        let slots = self.active.values();
        let slots = slots
            .chain(self.pending.values())
            .chain(self.retired.values());
        let spare = self.spare.iter().map(|(socket, _)| socket);
        slots.map(|slot| &slot.socket).chain(spare).collect()
    }
}
