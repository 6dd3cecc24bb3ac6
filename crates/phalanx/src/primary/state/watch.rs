//! Looks after those who may be stuck: slots and offers of which nothing is taken. Besides, queues that
//! grow, and counts that drift.
//!
//! A worker that hangs says nothing; only what waits for it shows it. Who is stuck and when it is tried again is
//! decided by [`phalanx_core::dispatch::liveness`]; here is looked, and carried out. There are looks while there are
//! listeners, [`CALM`] apart; much more often only while a policy goes by the length of queues.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::liveness::Finding;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_sys::scoreboard::Drift;

use crate::event::Event;
use crate::primary::Cluster;
use crate::primary::clock;
use crate::primary::mailbox::{Alarm, Until};
use crate::primary::sockets::slots::Sights;
use crate::primary::state::Hub;
use crate::primary::state::load::Source;
use crate::primary::tasks::{probe, timer};

/// Between two looks, in general.
const CALM: Duration = Duration::from_millis(250);
/// Between two looks while the length of a queue stands in for a load.
const EAGER: Duration = Duration::from_millis(20);
/// Between two looks for drift (see [`Drift`]).
const DRIFT: Duration = Duration::from_secs(1);

/// What is known of a worker's being stuck.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::primary) struct Pulse {
    /// Since when it is.
    pub(in crate::primary) stuck_since: Option<Moment>,
    /// How often something had come from it when it was found so.
    heard: u64,
}

/// Who is looked after.
#[derive(Debug, Default)]
pub(in crate::primary) struct Watch {
    /// A timer after which there is a look is running.
    is_on: bool,
    drifts: Drifts,
}

/// The drift of each position, and when it was looked at.
#[derive(Debug, Default)]
struct Drifts {
    last: Option<Instant>,
    by_position: BTreeMap<Position, Drift>,
}

impl Drifts {
    fn is_due(&mut self) -> bool {
        let now = clock::real_now();
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= DRIFT);
        if due {
            self.last = Some(now);
        }
        due
    }
}

impl Cluster {
    /// How long the worker has been stuck, if it is.
    pub(crate) fn stuck_for(&self, worker: WorkerId) -> Option<Duration> {
        let hub = self.shared.hub();
        let since = hub.workers.get(&worker)?.pulse.stuck_since?;
        Some(clock::now().since(since))
    }
}

impl Hub {
    /// How many connections wait in the worker's slots.
    pub(in crate::primary) fn waiting_of(&self, worker: WorkerId) -> u32 {
        let Some(state) = self.workers.get(&worker) else {
            return 0;
        };
        let position = state.cell.position();
        self.listeners
            .values()
            .filter_map(|listener| listener.carrier.slots())
            .map(|slots| slots.waiting(position, worker))
            .fold(0, u32::saturating_add)
    }

    /// Starts to look, unless that is done already.
    pub(super) fn look_after_slots(&mut self) {
        if !std::mem::replace(&mut self.watch.is_on, true) {
            self.watch.drifts = Drifts::default();
            timer::ring(self.mailbox(), Until::Later(CALM), Alarm::Watch);
        }
    }

    /// Has a look. When to look again; never, when there are no listeners.
    pub(super) fn look_around(&mut self) -> Option<Until> {
        if self.listeners.is_empty() {
            self.watch.is_on = false;
            return None;
        }
        let now = clock::now();
        self.look_at_slots(now);
        self.look_at_offers(now);
        self.tell_stuck(now);
        let is_eager = self.needs_load() && self.look_at_queues();
        Some(Until::Later(if is_eager { EAGER } else { CALM }))
    }

    fn look_at_slots(&mut self, now: Moment) {
        let found: Vec<(ListenerId, Sights)> = self
            .listeners
            .iter_mut()
            .filter_map(|(&id, listener)| Some((id, listener.carrier.slots_mut()?.look(now))))
            .collect();
        for (id, sights) in found {
            self.settle_slots_later(id);
            self.tell_batches(id, &sights.batches);
            for worker in sights.to_try {
                probe::try_stuck(self.mailbox(), id, worker);
            }
        }
    }

    /// Looks at what was offered and not answered.
    pub(in crate::primary) fn look_at_offers(&mut self, now: Moment) {
        let workers = &self.workers;
        let shows_life = |worker: WorkerId| {
            let state = workers.get(&worker);
            let heard =
                state.and_then(|state| Some((state.channel.as_ref()?.heard, state.pulse.heard)));
            heard.is_some_and(|(heard, before)| heard != before)
        };
        let findings = self.ledger.look(now, shows_life);
        let mut changed = !findings.is_empty();
        for (worker, finding) in findings {
            if let (Finding::Stuck | Finding::Failed, Some(state)) =
                (finding, self.workers.get_mut(&worker))
            {
                state.pulse.heard = state.channel.as_ref().map_or(0, |channel| channel.heard);
            }
        }
        let stuck: Vec<WorkerId> = self
            .workers
            .keys()
            .copied()
            .filter(|&worker| self.ledger.stuck_since(worker).is_some())
            .collect();
        for worker in stuck {
            changed |= self.take_back_offers(worker) > 0;
            // Its answer is the sign of life for which a trial waits.
            if let Some(channel) = self.channel_mut(worker) {
                channel.probe();
            }
        }
        if changed {
            let workers: Vec<_> = self.workers.keys().copied().collect();
            for worker in workers {
                self.refresh(worker);
            }
        }
    }

    /// Tells who has become stuck, and who is no longer.
    pub(in crate::primary) fn tell_stuck(&mut self, now: Moment) {
        let mut events = Vec::new();
        for (&worker, state) in &self.workers {
            let position = state.cell.position();
            let by_slots = self
                .listeners
                .values()
                .filter_map(|listener| listener.carrier.slots()?.stuck_since(position, worker))
                .min();
            let since = [self.ledger.stuck_since(worker), by_slots];
            let since = since.into_iter().flatten().min();
            match (state.pulse.stuck_since, since) {
                (None, Some(_)) => events.push((since, Event::Stuck { worker })),
                // What waited is no longer its own when its successor is there, or it is gone.
                (Some(_), None) if !state.cell.is_connected() => {}
                (Some(before), None) => {
                    let after = now.since(before);
                    events.push((None, Event::Recovered { worker, after }));
                }
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
        for (since, event) in events {
            let worker = event.worker();
            if let Some(state) = worker.and_then(|worker| self.workers.get_mut(&worker)) {
                state.pulse.stuck_since = since;
            }
            self.emit(&event);
        }
    }

    /// Sets the load of workers that tell nothing, and corrects the counts of the others. True if there
    /// are any of the former.
    fn look_at_queues(&mut self) -> bool {
        let Some(board) = self.board.clone() else {
            return false;
        };
        let drift_due = self.watch.drifts.is_due();
        let mut silent = false;
        let mut waiting: BTreeMap<Position, (u32, bool)> = BTreeMap::new();
        for (&worker, state) in &self.workers {
            let tells = state.load_source.source != Source::Unknown;
            let in_kernel = self.machine.held(worker).any(|(_, held)| {
                let listener = self.listeners.get(&held.listener);
                listener.is_some_and(|listener| listener.carrier.slots().is_some())
            });
            if !in_kernel {
                continue;
            }
            silent |= !tells;
            let entry = waiting.entry(state.cell.position()).or_insert((0, tells));
            entry.0 = entry.0.saturating_add(self.waiting_of(worker));
            entry.1 &= tells;
        }
        for (position, (waiting, tells)) in waiting {
            if !tells {
                board.set_open(position.0, waiting);
            } else if drift_due {
                let drift = self.watch.drifts.by_position.entry(position).or_default();
                board.correct(position.0, drift.look(board.surplus(position.0, waiting)));
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use phalanx_core::policy::PolicyName;

    use super::*;
    use crate::primary::Shared;
    use crate::primary::clock::by_hand::ByHand;

    #[tokio::test]
    async fn nobody_is_looked_after_when_there_are_no_listeners() {
        let hand = ByHand::new();
        let shared = Shared::new(PolicyName::RoundRobin);
        shared.hub().look_after_slots();
        hand.pass(CALM.saturating_sub(Duration::from_millis(1)))
            .await;
        assert!(shared.hub().watch.is_on);
        hand.pass(Duration::from_millis(1)).await;
        assert!(!shared.hub().watch.is_on);
    }
}
