//! Rebalancing: who holds more than its share of the open connections, how many it is to give up, and when it is over.
//!
//! New connections are spread evenly; those that are kept open stay where they are. A rebalance has the workers that hold more than
//! their share end so many of them politely, and lets nobody newcomers that holds its share already. So whoever comes back lands on those
//! who hold less. Every look gives whole numbers, not changes: one that is lost or doubled does no harm.
//!
//! INVARIANT: at least one worker is let newcomers at any time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::WorkerId;

/// A rebalance ends after so long, even or not: clients need not come back.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Even is what is no more than so many hundredths above the share.
const TOLERANCE: u32 = 5;

/// Clients whose connections were ended are waited for so long, while nobody holds too many: then they do not come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what the decision takes")]
pub struct Holding {
    /// The worker.
    pub worker: WorkerId,
    /// Its open connections.
    pub open: u32,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the whole decision")]
pub struct Step {
    /// How many connections each is to end, those left out that it is ending already.
    pub shed: Vec<(WorkerId, u32)>,
    /// Who gets no newcomers.
    pub aside: BTreeSet<WorkerId>,
    /// It is over.
    pub is_over: bool,
}

/// A rebalance under way.
#[derive(Clone, Debug)]
pub struct Rebalance {
    begun: Duration,
    /// The most connections that there were at once: some are always on their way.
    total: u32,
    /// How many the workers held above their shares at the beginning.
    excess: Option<u32>,
    /// Since when nobody holds too many.
    even_since: Option<Duration>,
}

impl Rebalance {
    /// One that begins now.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            begun: now,
            total: 0,
            excess: None,
            even_since: None,
        }
    }

    /// How many connections were in the wrong place at the beginning.
    #[must_use]
    pub fn excess(&self) -> u32 {
        self.excess.unwrap_or(0)
    }

    /// How many connections workers hold above their shares.
    #[must_use]
    pub fn above(held: &[Holding]) -> u32 {
        let share = share(held.iter().map(|one| one.open).sum(), held.len());
        let above = held.iter().map(|one| one.open.saturating_sub(share));
        above.sum()
    }

    /// Looks at what all workers hold that serve.
    pub fn look(&mut self, held: &[Holding], now: Duration) -> Step {
        let open: u32 = held.iter().map(|one| one.open).sum();
        self.total = self.total.max(open);
        let share = share(self.total, held.len());
        let above = |one: &&Holding| one.open > share;
        let excess = held.iter().filter(above).map(|one| one.open - share).sum();
        self.excess.get_or_insert(excess);
        let most = share + (share * TOLERANCE / 100).max(1);
        let is_even = held.iter().all(|one| one.open <= most);
        let even_since = is_even.then(|| self.even_since.unwrap_or(now));
        self.even_since = even_since;
        // Those that are on their way may land so that it is even no longer.
        let are_back = open >= self.total - self.total * TOLERANCE / 100;
        let is_calm = even_since.is_some_and(|since| now.saturating_sub(since) >= PATIENCE);
        let is_late = now.saturating_sub(self.begun) >= LIMIT;
        if (is_even && are_back) || is_calm || is_late {
            return Step {
                is_over: true,
                ..Step::default()
            };
        }
        let mut aside: BTreeSet<WorkerId> = held
            .iter()
            .filter(|one| one.open >= share)
            .map(|one| one.worker)
            .collect();
        if aside.len() == held.len() {
            aside.clear();
        }
        let shed = held
            .iter()
            .map(|one| (one.worker, one.open.saturating_sub(share)));
        Step {
            shed: shed.collect(),
            aside,
            is_over: false,
        }
    }
}

/// The share of one of so many, rounded up.
fn share(total: u32, workers: usize) -> u32 {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    total.div_ceil(workers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(open: &[u32]) -> Vec<Holding> {
        let all = (1..).map(WorkerId).zip(open);
        all.map(|(worker, &open)| Holding { worker, open })
            .collect()
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn those_above_their_share_give_up_what_is_above_it() {
        let mut rebalance = Rebalance::new(at(0));
        let step = rebalance.look(&held(&[100, 100, 0, 0]), at(0));
        let shed = [(1, 50), (2, 50), (3, 0), (4, 0)];
        assert_eq!(step.shed, shed.map(|(id, count)| (WorkerId(id), count)));
        assert_eq!(step.aside, [WorkerId(1), WorkerId(2)].into());
        assert_eq!(rebalance.excess(), 100);
    }

    #[test]
    fn the_share_stays_while_clients_are_on_their_way() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[200, 0]), at(0));
        let step = rebalance.look(&held(&[120, 10]), at(1));
        assert_eq!(step.shed, [(WorkerId(1), 20), (WorkerId(2), 0)]);
        let step = rebalance.look(&held(&[100, 100]), at(2));
        assert!(step.is_over && step.aside.is_empty());
    }

    #[test]
    fn it_ends_though_clients_do_not_come_back_and_though_workers_hold_on() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[200, 0]), at(0));
        assert!(!rebalance.look(&held(&[100, 0]), at(1)).is_over);
        assert!(rebalance.look(&held(&[100, 0]), at(2)).is_over);
        let mut rebalance = Rebalance::new(at(0));
        assert!(!rebalance.look(&held(&[200, 0]), at(0)).is_over);
        assert!(rebalance.look(&held(&[200, 0]), at(10)).is_over);
    }

    #[test]
    fn who_lands_on_one_that_has_its_share_is_sent_on() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[8, 8, 0, 0]), at(0));
        // More have gone than were to, and nobody has come back yet.
        assert!(!rebalance.look(&held(&[2, 2, 0, 0]), at(0)).is_over);
        let step = rebalance.look(&held(&[2, 2, 6, 6]), at(0));
        assert_eq!(step.shed[2..], [(WorkerId(3), 2), (WorkerId(4), 2)]);
        assert_eq!(step.aside, [WorkerId(3), WorkerId(4)].into());
        assert!(rebalance.look(&held(&[4, 4, 4, 4]), at(1)).is_over);
    }

    #[test]
    fn nothing_is_to_be_done_for_one_worker_or_none() {
        assert!(Rebalance::new(at(0)).look(&held(&[7]), at(0)).is_over);
        assert!(Rebalance::new(at(0)).look(&[], at(0)).is_over);
    }

    proptest! {
        #[test]
        fn somebody_is_always_let_newcomers(open in proptest::collection::vec(0_u32..500, 1..20)) {
            let step = Rebalance::new(at(0)).look(&held(&open), at(0));
            prop_assert!(step.aside.len() < open.len());
        }

        /// Clients whose connections are ended come back, to those who may have them.
        #[test]
        fn it_comes_to_an_even_end(open in proptest::collection::vec(0_u32..200, 2..12)) {
            let mut held = held(&open);
            let mut rebalance = Rebalance::new(at(0));
            for second in 0.. {
                let step = rebalance.look(&held, at(second));
                if step.is_over {
                    break;
                }
                for (worker, count) in &step.shed {
                    let from = held.iter_mut().find(|one| one.worker == *worker).unwrap();
                    from.open -= count;
                    for _ in 0..*count {
                        let may = |one: &&mut Holding| !step.aside.contains(&one.worker);
                        held.iter_mut().filter(may).min_by_key(|one| one.open).unwrap().open += 1;
                    }
                }
            }
            let total: u32 = open.iter().sum();
            let share = share(total, open.len());
            let most = share + (share / 10).max(1);
            prop_assert!(held.iter().all(|one| one.open <= most), "{held:?}");
        }
    }
}
