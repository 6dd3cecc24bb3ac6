//! What each worker has answered, where it tells: Node workers by their preloaded script, Rust workers by a
//! [`Meter`](crate::Meter). The limit on requests, the watch over canaries and the metrics go by it.
//!
//! INVARIANT: a worker that counts is not asked again: it would begin anew, and what it had counted since it told last would be
//! lost. What a worker that is gone had told stays, by position.

use std::collections::BTreeMap;

use phalanx_core::health::Health;
use phalanx_core::ids::{Position, WorkerId};

use crate::primary::state::Hub;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::primary) struct Answered {
    /// Workers are to tell always, not only while canaries are watched.
    pub(in crate::primary) wanted: bool,
    /// Those that were asked to count.
    counts: BTreeMap<WorkerId, Count>,
    /// What those that are gone had told.
    gone: BTreeMap<Position, Health>,
}

#[derive(Clone, Debug, Default)]
struct Count {
    /// What was told before the counting began anew, by the worker's own decision.
    before: Health,
    /// What was told last.
    last: Health,
    /// What was told in all when the watch over canaries began.
    at_watch: Health,
}

impl Count {
    fn total(&self) -> Health {
        let mut total = self.last.clone();
        total.merge(&Health {
            open: None,
            ..self.before.clone()
        });
        total
    }
}

impl Answered {
    /// Whether the worker has to be asked, or told to stop.
    pub(in crate::primary) fn changes(&mut self, worker: WorkerId, wanted: bool) -> bool {
        if self.counts.contains_key(&worker) == wanted {
            return false;
        }
        if wanted {
            self.counts.insert(worker, Count::default());
        } else {
            self.counts.remove(&worker);
        }
        true
    }

    /// The watch over canaries begins: they are judged by what is counted from now on.
    pub(in crate::primary) fn watch_begins(&mut self) {
        for count in self.counts.values_mut() {
            count.at_watch = count.total();
        }
    }

    /// A worker told what it has counted. Returns what that is since the watch over canaries began.
    pub(in crate::primary) fn told(&mut self, worker: WorkerId, health: Health) -> Option<Health> {
        let count = self.counts.get_mut(&worker)?;
        if health.requests < count.last.requests {
            count.before.merge(&count.last);
        }
        count.last = health;
        Some(count.total().since(&count.at_watch))
    }

    pub(in crate::primary) fn forget(&mut self, worker: WorkerId, position: Position) {
        if let Some(count) = self.counts.remove(&worker) {
            let total = Health {
                open: None,
                ..count.total()
            };
            if !position.is_spare() {
                self.gone.entry(position).or_default().merge(&total);
            }
        }
    }

    /// What all workers at each position have answered; nothing where none of them ever told.
    pub(in crate::primary) fn by_position(
        &self,
        position_of: impl Fn(WorkerId) -> Option<Position>,
    ) -> BTreeMap<Position, Health> {
        let mut sums = self.gone.clone();
        for (&worker, count) in &self.counts {
            if let Some(position) = position_of(worker).filter(|at| !at.is_spare()) {
                sums.entry(position).or_default().merge(&count.total());
            }
        }
        sums.retain(|_, health| health.requests > 0);
        sums
    }
}

impl Hub {
    /// Has all workers count their answers, those to come too.
    pub(in crate::primary) fn count_answers(&mut self, wanted: bool) {
        self.answered.wanted |= wanted;
        if wanted {
            let online = self.workers.iter().filter(|(_, state)| state.online);
            let online: Vec<WorkerId> = online.map(|(&worker, _)| worker).collect();
            for worker in online {
                self.ask_health(worker, true);
            }
        }
    }

    /// The same, once.
    pub(in crate::primary) fn count_answers_always(&mut self) {
        if !self.answered.wanted {
            self.count_answers(true);
        }
    }

    pub(in crate::primary) fn answered(&self, worker: WorkerId) -> Option<u64> {
        let count = self.answered.counts.get(&worker)?;
        Some(count.before.requests.saturating_add(count.last.requests)).filter(|&sum| sum > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(requests: u64) -> Health {
        Health {
            requests,
            ..Health::default()
        }
    }

    #[test]
    fn a_count_that_begins_anew_goes_on() {
        let worker = WorkerId(1);
        let mut answered = Answered::default();
        assert!(answered.changes(worker, true) && !answered.changes(worker, true));
        for requests in [5, 9, 2, 4] {
            answered.told(worker, health(requests));
        }
        assert_eq!(answered.counts[&worker].total().requests, 13);
    }

    #[test]
    fn a_canary_is_judged_by_what_comes_after_the_watch_began() {
        let worker = WorkerId(1);
        let mut answered = Answered::default();
        answered.changes(worker, true);
        answered.told(worker, health(100));
        answered.watch_begins();
        assert_eq!(answered.told(worker, health(107)), Some(health(7)));
    }

    #[test]
    fn what_a_worker_had_told_stays_with_its_position() {
        let mut answered = Answered::default();
        let position = Position(3);
        for worker in [1, 2].map(WorkerId) {
            answered.changes(worker, true);
            answered.told(worker, health(10));
            answered.forget(worker, position);
            assert_eq!(answered.told(worker, health(11)), None);
        }
        let sums = answered.by_position(|_| None);
        assert_eq!(sums[&position].requests, 20);
    }
}
