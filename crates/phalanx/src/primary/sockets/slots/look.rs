//! What is seen of the slots' queues, and what follows from it.
//!
//! A position whose worker is stuck is *set aside*: it gets nothing new, and what waits in its slot moves
//! to the others. It is tried with a connection of the primary's own, which costs no client anything: it waits
//! in the slot until the worker takes it. Where none can be made, clients try it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::liveness::{Finding, Life, Limits, Liveness, Progress, set_aside};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::socket;
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

/// Whether the holder of a slot is stuck.
#[derive(Debug)]
pub(super) struct Pulse {
    pub(super) liveness: Liveness,
    /// Connections of the primary's own that were put into the slot.
    tried: u64,
    /// The last of them, until it was taken.
    trial: Option<TcpStream>,
    /// One is being made.
    is_prepared: bool,
    /// None can be made: clients are what it is tried with.
    by_clients: bool,
    /// What waited at the last look, and how often it had become less; where nobody counts what a slot receives.
    waited: u32,
    taken: u64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            liveness: Liveness::new(Limits::CONNECTIONS),
            tried: 0,
            trial: None,
            is_prepared: false,
            by_clients: false,
            waited: 0,
            taken: 0,
        }
    }

    /// What is seen, given what the slot has received and how much of it waits.
    fn progress(&mut self, received: Option<u64>, waiting: u32) -> Progress {
        self.taken += u64::from(waiting < self.waited);
        self.waited = waiting;
        let taken = match received {
            Some(received) => (received + self.tried).saturating_sub(u64::from(waiting)),
            None => self.taken,
        };
        Progress { taken, waiting }
    }

    /// Is it to be tried, with nothing to try it with? What waits already is trial enough.
    fn wants_trial(&self) -> bool {
        let has_one = self.waited > 0 || self.trial.is_some() || self.is_prepared;
        self.liveness.is_tried() && !self.by_clients && !has_one
    }

    fn follow(&mut self, finding: Option<Finding>) {
        match finding {
            Some(Finding::Recovered { .. }) => {
                self.trial = None;
                self.by_clients = false;
            }
            Some(Finding::Failed) => self.by_clients = false,
            Some(Finding::Stuck | Finding::Try) | None => {}
        }
    }
}

impl Slots {
    /// Looks at the queues.
    pub(in crate::primary) fn look(&mut self, now: Moment) -> Sights {
        let mut sights = Sights::default();
        let counts = self.steer.migrates();
        for (&position, slot) in &mut self.active {
            let Some(holder) = slot.holder else { continue };
            if !self.eligible.contains(position) {
                continue;
            }
            let received = self.steer.received(position);
            let waiting = socket::queue_length(slot.socket.as_fd()).unwrap_or(0);
            if counts && let Some(wanted) = slot.burst.look(received.unwrap_or(0), waiting, now) {
                sights.batches.push((holder, wanted));
            }
            let progress = slot.pulse.progress(received, waiting);
            let finding = slot.pulse.liveness.look(progress, Life::Unknown, now);
            slot.pulse.follow(finding);
        }
        self.set_aside();
        for position in &self.aside {
            let slot = self.active.get_mut(position);
            if let Some(slot) = slot.filter(|slot| slot.pulse.wants_trial()) {
                slot.pulse.is_prepared = true;
                sights.to_try.extend(slot.holder);
            }
        }
        sights
    }

    /// Sets those aside that are stuck, if there are others, and lets in those that are not.
    fn set_aside(&mut self) {
        let eligible =
            |(position, _): &(&Position, &super::Slot)| self.eligible.contains(**position);
        let serving = self.active.iter().filter(eligible);
        let mut aside = set_aside(serving.map(|(&at, slot)| (at, slot.pulse.liveness.is_stuck())));
        aside.retain(|position| {
            let pulse = self.active.get(position).map(|slot| &slot.pulse);
            !pulse.is_some_and(|pulse| pulse.by_clients && pulse.liveness.is_tried())
        });
        if aside == self.aside {
            return;
        }
        let before = std::mem::replace(&mut self.aside, aside);
        self.switch();
        let new: BTreeSet<Position> = self.aside.difference(&before).copied().collect();
        for position in new {
            self.empty(position);
        }
    }

    /// What waits in the position's slot moves to the others, where it can.
    fn empty(&mut self, position: Position) {
        let Some(slot) = self
            .active
            .get_mut(&position)
            .filter(|_| self.steer.migrates())
        else {
            return;
        };
        let socket = Arc::clone(&slot.socket);
        if let Err(error) = socket::empty_slot(socket.as_fd(), self.options.backlog) {
            tracing::error!(%error, "a slot cannot be emptied");
        }
        // The program forgot the socket when it stopped to listen for a moment.
        self.steer.takes(position, socket.as_fd());
        // What has moved was not taken.
        let received = self.steer.received(position);
        let waiting = socket::queue_length(socket.as_fd()).unwrap_or(0);
        let progress = slot.pulse.progress(received, waiting);
        slot.pulse.liveness.rebase(progress.taken);
    }

    /// Since when the worker is stuck, as far as this listener shows.
    pub(in crate::primary) fn stuck_since(
        &self,
        position: Position,
        worker: WorkerId,
    ) -> Option<Moment> {
        let slot = self.active.get(&position);
        let slot = slot.filter(|slot| slot.holder == Some(worker))?;
        slot.pulse.liveness.stuck_since()
    }

    /// A connection of the primary's own waits in the slot of a stuck worker; or none could be made, and clients shall try it.
    pub(in crate::primary) fn tried(
        &mut self,
        position: Position,
        worker: WorkerId,
        trial: Option<TcpStream>,
    ) {
        let slot = self.active.get_mut(&position);
        let Some(slot) = slot.filter(|slot| slot.holder == Some(worker)) else {
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

    /// The worker's slot, if duplicates of it were promised and have not been given yet.
    pub(in crate::primary) fn duplicates_due(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> Option<Arc<OwnedFd>> {
        let slot = self.own(position, |slot| slot.holder == Some(worker))?;
        slot.burst.take_due().then(|| Arc::clone(&slot.socket))
    }
}
