//! What is seen of the slots' queues, and what follows from it.
//!
//! A position whose worker is stuck is *set aside*: it gets nothing new, and what waits in its slot moves
//! to the others. It is tried with a connection of the primary's own, which costs no client anything: it waits
//! in the slot until the worker takes it. Where none can be made, clients try it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::liveness::{Life, set_aside};
use phalanx_core::dispatch::slots::SlotGroup as _;
use phalanx_core::ids::{Position, WorkerId};
use tokio::net::TcpStream;

use super::Slots;

/// What a look at the slots of a listener calls for.
#[derive(Debug, Default)]
pub(in crate::primary) struct Sights {
    /// Stuck workers that shall be tried with a connection.
    pub(in crate::primary) to_try: Vec<WorkerId>,
    /// Workers that shall accept in batches from now on, or no longer.
    pub(in crate::primary) batches: Vec<(WorkerId, bool)>,
}

impl Slots {
    /// Looks at the queues.
    pub(in crate::primary) fn look(&mut self, now: Moment) -> Sights {
        let mut sights = Sights::default();
        let counts = self.group.migrates();
        for (position, holder, slot) in self.table.serving_mut() {
            let received = self.group.received(position);
            let waiting = if slot.pulse.rests(received, now) {
                0
            } else {
                self.group.waiting(slot)
            };
            if counts && let Some(wanted) = slot.burst.look(received.unwrap_or(0), waiting, now) {
                sights.batches.push((holder, wanted));
            }
            let progress = slot.pulse.progress(received, waiting);
            let finding = slot.pulse.liveness.look(progress, Life::Unknown, now);
            slot.pulse.follow(finding);
        }
        self.set_aside();
        for (holder, slot) in self.table.aside_mut() {
            if slot.pulse.wants_trial() {
                slot.pulse.is_prepared = true;
                sights.to_try.extend(holder);
            }
        }
        sights
    }

    /// Sets those aside that are stuck, if there are others, and lets in those that are not.
    fn set_aside(&mut self) {
        let serving = self.table.serving();
        let mut aside = set_aside(serving.map(|(at, slot)| (at, slot.pulse.liveness.is_stuck())));
        aside.retain(|position| {
            let pulse = self.table.at(*position).map(|slot| &slot.socket().pulse);
            !pulse.is_some_and(|pulse| pulse.by_clients && pulse.liveness.is_tried())
        });
        self.table.set_aside(aside, &mut self.group);
    }

    /// Since when the worker is stuck, as far as this listener shows.
    pub(in crate::primary) fn stuck_since(
        &self,
        position: Position,
        worker: WorkerId,
    ) -> Option<Moment> {
        let slot = self.table.held(position, worker)?;
        slot.pulse.liveness.stuck_since()
    }

    /// A connection of the primary's own waits in the slot of a stuck worker; or none could be made, and clients shall try it.
    pub(in crate::primary) fn tried(
        &mut self,
        position: Position,
        worker: WorkerId,
        trial: Option<TcpStream>,
    ) {
        let Some(slot) = self.table.held_mut(position, worker) else {
            return;
        };
        slot.pulse.is_prepared = false;
        match trial {
            Some(stream) => {
                slot.pulse.tried += 1;
                slot.pulse.trial = Some(stream);
            }
            None => slot.pulse.by_clients = true,
        }
        self.set_aside();
    }

    /// A connection of the primary's own was put into the slot of a stuck worker, and has moved to another: it shall be tried again.
    pub(in crate::primary) fn tries_again(&mut self, position: Position, worker: WorkerId) {
        if let Some(slot) = self.table.held_mut(position, worker) {
            slot.pulse.is_prepared = false;
        }
    }

    /// The worker's slot, if duplicates of it were promised and have not been given yet.
    pub(in crate::primary) fn duplicates_due(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> Option<Arc<OwnedFd>> {
        let slot = self.own_of(position, worker)?;
        slot.burst.take_due().then(|| Arc::clone(&slot.socket))
    }
}
