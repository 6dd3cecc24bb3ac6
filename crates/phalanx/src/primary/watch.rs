//! Looks after the slots of a programmed group: queues that nobody empties or that grow, and counts that drift.
//!
//! A worker that hangs says nothing; only its queue shows it. When nothing was taken from a queue for
//! [`HUNG_AFTER`] while others could have served it, the position gets nothing new and what waits moves
//! to the others. Later it is tried again, after longer and longer times. The task runs while there are
//! slots, and looks [`CALM`] times apart; much more often only while a policy goes by the length of queues.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_sys::scoreboard::Drift;

use super::Shared;
use super::hub::Hub;
use super::load::Source;
use super::slots::Sights;
use crate::event::Event;

/// Between two looks, in general.
const CALM: Duration = Duration::from_millis(500);
/// Between two looks while the length of a queue stands in for a load.
const EAGER: Duration = Duration::from_millis(20);
/// Between two looks for drift (see [`Drift`]).
const DRIFT: Duration = Duration::from_secs(1);
/// A queue of which nothing was taken for so long belongs to a worker that hangs.
pub(super) const HUNG_AFTER: Duration = Duration::from_secs(1);
/// The first trial of a position that hung comes after this time, each further one after twice the
/// time, up to [`TRIAL_MAX`].
const TRIAL_FIRST: Duration = Duration::from_secs(1);
const TRIAL_MAX: Duration = Duration::from_secs(30);

/// What was seen of one slot.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What had been taken from the queue at the last look.
    taken: u64,
    /// Since when it has been so, with something waiting.
    since: Option<Instant>,
    /// Until when the position gets nothing, because it hung.
    pub(super) suspended: Option<Instant>,
    trials: u32,
}

/// What a look at a slot calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing.
    Fine,
    /// Nothing was taken from it for too long.
    Hangs,
    /// It may be tried again.
    Trial,
}

impl Sight {
    /// Takes down what a slot has received and how much of it waits.
    pub(super) fn look(&mut self, received: u64, waiting: u32, now: Instant) -> Finding {
        if let Some(until) = self.suspended {
            return if until <= now {
                Finding::Trial
            } else {
                Finding::Fine
            };
        }
        let taken = received.saturating_sub(u64::from(waiting));
        if waiting == 0 || taken != self.taken {
            if taken > self.taken {
                self.trials = 0;
            }
            self.taken = taken;
            self.since = None;
            return Finding::Fine;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= HUNG_AFTER {
            Finding::Hangs
        } else {
            Finding::Fine
        }
    }

    /// The position gets nothing for a while.
    pub(super) fn suspend(&mut self, now: Instant) {
        let pause = TRIAL_FIRST
            .saturating_mul(1 << self.trials.min(5))
            .min(TRIAL_MAX);
        self.trials = self.trials.saturating_add(1);
        self.suspended = Some(now + pause);
        self.since = None;
    }

    pub(super) fn resume(&mut self) {
        self.suspended = None;
        self.since = None;
    }
}

/// Starts to look, unless somebody looks already.
pub(super) fn start(hub: &mut Hub) {
    if std::mem::replace(&mut hub.watching, true) {
        return;
    }
    let shared = hub.shared.clone();
    tokio::spawn(watch(shared));
}

async fn watch(shared: Weak<Shared>) {
    let mut drift = Drifts::default();
    let mut interval = CALM;
    loop {
        let next = phalanx_sys::clock::now() + interval;
        tokio::time::sleep_until(next.into()).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut hub = shared.hub();
        if !hub.has_slots() {
            hub.watching = false;
            return;
        }
        let now = phalanx_sys::clock::now();
        hub.look_at_slots(now);
        interval = if hub.needs_load() && hub.look_at_queues(&mut drift, now) {
            EAGER
        } else {
            CALM
        };
    }
}

/// The drift of each position, and when it was looked at.
#[derive(Default)]
struct Drifts {
    last: Option<Instant>,
    by_position: BTreeMap<Position, Drift>,
}

impl Drifts {
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= DRIFT);
        if due {
            self.last = Some(now);
        }
        due
    }
}

impl Hub {
    fn has_slots(&self) -> bool {
        self.listeners
            .values()
            .any(|listener| listener.slots.is_some())
    }

    /// How many connections wait in the worker's slots.
    pub(super) fn waiting_of(&self, worker: WorkerId) -> u32 {
        let Some(state) = self.workers.get(&worker) else {
            return 0;
        };
        let position = state.cell.position;
        self.listeners
            .values()
            .filter_map(|listener| listener.slots.as_ref())
            .map(|slots| slots.waiting(position, worker))
            .fold(0, u32::saturating_add)
    }

    fn look_at_slots(&mut self, now: Instant) {
        let found: Vec<(ListenerId, Sights)> = self
            .listeners
            .iter_mut()
            .filter_map(|(&id, listener)| Some((id, listener.slots.as_mut()?.look(now))))
            .collect();
        for (id, sights) in found {
            self.tell_batches(id, &sights.batches);
            for (position, worker) in sights.hung {
                self.move_queue(id, position, worker, now);
            }
        }
    }

    /// The worker hangs: what waits for it moves to the others.
    fn move_queue(&mut self, id: ListenerId, position: Position, worker: WorkerId, now: Instant) {
        let message = format!(
            "takes no connections although some wait: what waits at position {position} moves to the others"
        );
        self.emit(&Event::Error { worker, message });
        let listener = self.listeners.get_mut(&id);
        if let Some(slots) = listener.and_then(|listener| listener.slots.as_mut()) {
            slots.suspend(position, now);
        }
    }

    /// Sets the load of workers that tell nothing, and corrects the counts of the others. True if there
    /// are any of the former.
    fn look_at_queues(&mut self, drifts: &mut Drifts, now: Instant) -> bool {
        let Some(board) = self.board.clone() else {
            return false;
        };
        let drift_due = drifts.is_due(now);
        let mut silent = false;
        let mut waiting: BTreeMap<Position, (u32, bool)> = BTreeMap::new();
        for (&worker, state) in &self.workers {
            let tells = state.standing.source != Source::Unknown;
            let in_kernel = state.held.values().any(|held| {
                let listener = self.listeners.get(&held.listener);
                listener.is_some_and(|listener| listener.slots.is_some())
            });
            if !in_kernel {
                continue;
            }
            silent |= !tells;
            let entry = waiting.entry(state.cell.position).or_insert((0, tells));
            entry.0 = entry.0.saturating_add(self.waiting_of(worker));
            entry.1 &= tells;
        }
        for (position, (waiting, tells)) in waiting {
            if !tells {
                board.set_open(position.0, waiting);
            } else if drift_due {
                let drift = drifts.by_position.entry(position).or_default();
                board.correct(position.0, drift.look(board.surplus(position.0, waiting)));
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        phalanx_sys::clock::now() + Duration::from_millis(millis)
    }

    #[test]
    fn a_queue_that_is_emptied_is_fine() {
        let mut sight = Sight::default();
        let start = phalanx_sys::clock::now();
        for step in 0..10 {
            let now = start + CALM * step;
            let received = 100 + u64::from(step);
            assert_eq!(sight.look(received, 5, now), Finding::Fine);
        }
    }

    #[test]
    fn a_queue_of_which_nothing_is_taken_hangs() {
        let mut sight = Sight::default();
        let start = phalanx_sys::clock::now();
        assert_eq!(sight.look(10, 2, start), Finding::Fine);
        assert_eq!(sight.look(11, 3, start), Finding::Fine);
        assert_eq!(sight.look(12, 4, start + CALM), Finding::Fine);
        assert_eq!(sight.look(12, 4, start + HUNG_AFTER), Finding::Hangs);
    }

    #[test]
    fn an_empty_queue_never_hangs() {
        let mut sight = Sight::default();
        for millis in [0, 1_000, 10_000, 100_000] {
            assert_eq!(sight.look(7, 0, at(millis)), Finding::Fine);
        }
    }

    #[test]
    fn trials_come_after_longer_and_longer_times() {
        let mut sight = Sight::default();
        let start = phalanx_sys::clock::now();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            sight.suspend(start);
            pauses.push((sight.suspended.unwrap() - start).as_secs());
            assert_eq!(sight.look(0, 0, start), Finding::Fine);
            assert_eq!(sight.look(0, 0, start + TRIAL_MAX), Finding::Trial);
            sight.resume();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        // A connection that was taken makes good.
        assert_eq!(sight.look(1, 0, start), Finding::Fine);
        sight.suspend(start);
        assert_eq!((sight.suspended.unwrap() - start).as_secs(), 1);
    }
}
