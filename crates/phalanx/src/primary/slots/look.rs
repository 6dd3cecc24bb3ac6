//! What is seen of the slots' queues, and what follows from it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::socket;

use super::Slots;
use crate::primary::watch::Finding;

/// What a look at the slots of a listener calls for.
#[derive(Debug, Default)]
pub(in crate::primary) struct Sights {
    /// Workers that take nothing while others could.
    pub(in crate::primary) hung: Vec<(Position, WorkerId)>,
    /// Workers that shall accept in batches from now on, or no longer.
    pub(in crate::primary) batches: Vec<(WorkerId, bool)>,
}

impl Slots {
    /// Looks at the queues.
    pub(in crate::primary) fn look(&mut self, now: Instant) -> Sights {
        let mut sights = Sights::default();
        if !self.steer.migrates() {
            return sights;
        }
        let mut trials = Vec::new();
        let mut fine = 0;
        for (&position, slot) in &mut self.active {
            let Some(holder) = slot.holder else { continue };
            if !self.eligible.contains(position) && slot.sight.suspended.is_none() {
                continue;
            }
            let received = self.steer.received(position).unwrap_or(0);
            let waiting = socket::queue_length(slot.socket.as_fd()).unwrap_or(0);
            if let Some(wanted) = slot.rush.look(received, waiting, now) {
                sights.batches.push((holder, wanted));
            }
            match slot.sight.look(received, waiting, now) {
                Finding::Fine => fine += u32::from(slot.sight.suspended.is_none()),
                Finding::Hangs => sights.hung.push((position, holder)),
                Finding::Trial => trials.push(position),
            }
        }
        for position in trials {
            if let Some(slot) = self.active.get_mut(&position) {
                slot.sight.resume();
                self.eligible.insert(position);
                self.switch();
            }
        }
        if fine == 0 {
            // Where all hang there is nobody to move anything to.
            sights.hung.clear();
        }
        sights
    }

    /// The position gets nothing for a while, and what waits in its slot moves to the others.
    pub(in crate::primary) fn suspend(&mut self, position: Position, now: Instant) {
        let Some(slot) = self.active.get_mut(&position) else {
            return;
        };
        slot.sight.suspend(now);
        let socket = Arc::clone(&slot.socket);
        self.eligible.remove(position);
        self.switch();
        if let Err(error) = socket::empty_slot(socket.as_fd(), self.options.backlog) {
            tracing::error!(%error, "a slot cannot be emptied");
        }
        // The program forgot the socket when it stopped to listen for a moment.
        self.steer.takes(position, socket.as_fd());
    }

    /// The worker's slot, if duplicates of it were promised and have not been given yet.
    pub(in crate::primary) fn duplicates_due(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> Option<Arc<OwnedFd>> {
        let slot = self.own(position, |slot| slot.holder == Some(worker))?;
        slot.rush.take_due().then(|| Arc::clone(&slot.socket))
    }
}
