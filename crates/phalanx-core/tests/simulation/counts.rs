//! What the judge counts: who is ready, who could be spared, how many processes there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phalanx_core::ids::{Generation, Position};

use crate::known::Known;
use crate::model::Model;

impl Model {
    /// Takes note of who could be spared, after a step.
    pub(crate) fn note_spares(&mut self, now: Duration) {
        let mut ready: BTreeMap<Position, u32> = BTreeMap::new();
        for known in self.workers.values().filter(|known| known.is_ready()) {
            *ready.entry(known.position).or_default() += 1;
        }
        for known in self.workers.values_mut() {
            let is_spare = known.position.0 >= self.target || ready.get(&known.position) > Some(&1);
            known.spare_since = if known.is_ready() && is_spare {
                known.spare_since.or(Some(now))
            } else {
                None
            };
        }
    }

    pub(crate) fn is_wanted(&self, position: Position) -> bool {
        position.0 < self.target
    }

    /// The workers at that position.
    pub(crate) fn at(&self, position: Position) -> impl Iterator<Item = &Known> {
        self.workers
            .values()
            .filter(move |known| known.position == position)
    }

    pub(crate) fn ready(&self) -> usize {
        self.workers
            .values()
            .filter(|known| known.is_ready())
            .count()
    }

    /// How many must be ready after one was taken down.
    pub(crate) fn floor(&self) -> usize {
        let staffed = if self.config.respawn {
            self.target
        } else {
            let active: BTreeSet<Position> = self
                .workers
                .values()
                .filter(|known| !known.is_leaving && self.is_wanted(known.position))
                .map(|known| known.position)
                .collect();
            u32::try_from(active.len()).expect("few positions")
        };
        let allowed = self.unavailable.rounded_down(self.target);
        let floor = staffed.saturating_sub(allowed.max(u32::from(self.surge() == 0)));
        usize::try_from(floor).expect("few workers")
    }

    /// How many may be missing.
    pub(crate) fn may_be_missing(&self) -> bool {
        self.unavailable.rounded_down(self.target) > 0 || self.surge() == 0
    }

    pub(crate) fn surge(&self) -> u32 {
        self.surge.rounded_up(self.target)
    }

    /// All processes, and those that do not finish their work; each with one for every position that
    /// has none.
    pub(crate) fn processes(&self) -> (usize, usize) {
        let target = usize::try_from(self.target).expect("few workers");
        let all = self.with_vacancies(target, |_| true);
        let working = self.with_vacancies(target, |known| !known.is_retiring);
        (all, working)
    }

    /// Processes as the limit on them counts: those that finish their work are overlooked, as far as
    /// that is allowed.
    pub(crate) fn counted(&self, (all, working): (usize, usize)) -> usize {
        let overlooked = match self.config.max_draining {
            Some(amount) => amount.rounded_up(self.target),
            None if self.surge.is_zero() => 0,
            None => self.target,
        };
        let overlooked = usize::try_from(overlooked).expect("few workers");
        all.saturating_sub(overlooked).max(working)
    }

    /// Processes that count, with one for each position that has none of them.
    fn with_vacancies(&self, target: usize, counts: impl Fn(&Known) -> bool) -> usize {
        let counted: Vec<Position> = self
            .serving()
            .filter(|known| !known.is_lost && counts(known))
            .map(|known| known.position)
            .collect();
        let held: BTreeSet<Position> = counted
            .iter()
            .copied()
            .filter(|position| self.is_wanted(*position))
            .collect();
        counted.len() + target - held.len()
    }

    /// Workers that use what a start uses.
    pub(crate) fn booting(&self) -> u32 {
        let starting = self.workers.values().filter(|known| known.is_starting());
        u32::try_from(starting.filter(|known| !known.serves).count()).expect("few workers")
    }

    /// Positions at which somebody of that generation serves or starts.
    pub(crate) fn positions_of(&self, generation: Generation) -> usize {
        let active = self.serving().filter(|known| !known.is_leaving);
        let of_it = active.filter(|known| known.generation == generation);
        let positions: BTreeSet<Position> = of_it.map(|known| known.position).collect();
        positions.len()
    }

    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.target + self.surge()).expect("few workers")
    }

    /// Whether each position has exactly one worker, and that one is ready, and nothing else lives.
    pub(crate) fn is_converged(&self) -> bool {
        let mut held = BTreeSet::new();
        self.has_its_spares()
            && self.serving().all(|known| {
                known.is_ready() && self.is_wanted(known.position) && held.insert(known.position)
            })
            && u32::try_from(held.len()) == Ok(self.target)
    }

    pub(crate) fn is_uniform(&self) -> bool {
        self.workers
            .values()
            .all(|known| known.generation == self.base)
    }
}
