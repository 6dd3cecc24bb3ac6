//! Rebalancing: who holds more than its share of the open connections, how many each is to keep, and when it is over.
//!
//! New connections are spread evenly; those that are kept open stay where they are. A rebalance has the workers that hold more than
//! their share end what is above it politely, and lets nobody newcomers that holds its share already. So whoever comes back lands on those
//! who hold less.
//!
//! Figures are the workers' own: each tells at the same moment what is open, what of that it is ending already, and what it cannot end. A
//! worker is told how many to keep, never how many to end: it alone knows what it has ended since, so nothing is ended twice, however late
//! its figures are. A connection that ends and the one with which its client comes back are there at the same time for a while; the one
//! that ends counts no more.
//!
//! INVARIANT: at least one worker is let newcomers at any time.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::WorkerId;

mod answers;

pub use answers::Answers;

/// A rebalance ends after so long, even or not: clients need not come back.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Even is what is no more than so many hundredths above the share.
const TOLERANCE: u32 = 5;

/// Clients whose connections were ended are waited for so long after the last of them came back, while nobody holds too many: then
/// they do not come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Clients are more than they were once so many looks in a row say so: a client that has come back may be counted twice for one look.
const LOOKS: usize = 5;

/// What a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what the decision takes")]
pub struct Holding {
    /// The worker.
    pub worker: WorkerId,
    /// Its open connections.
    pub open: u32,
    /// Those of them that it is ending.
    pub ending: u32,
    /// Those of them that it does not end: streams.
    pub fixed: u32,
}

impl Holding {
    /// What will be left when those have ended that are ending.
    fn stays(&self) -> u32 {
        self.open.saturating_sub(self.ending)
    }
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the whole decision")]
pub struct Step {
    /// How many connections each is to keep; it ends what it holds above that.
    pub keep: u32,
    /// Who gets no newcomers.
    pub aside: BTreeSet<WorkerId>,
    /// It is over.
    pub is_over: bool,
}

/// A rebalance under way.
#[derive(Clone, Debug)]
pub struct Rebalance {
    begun: Duration,
    /// How many clients there are, those included that are on their way.
    clients: Option<u32>,
    /// What the last looks found that stays.
    last: VecDeque<u32>,
    /// How many the workers held above their shares at the beginning.
    excess: u32,
    /// Since when nobody holds too many and nobody comes back.
    even_since: Option<Duration>,
    /// The most that stayed, and the fewest that were ending, at one of the looks since nobody holds too many.
    furthest: (u32, u32),
}

impl Rebalance {
    /// One that begins now.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            begun: now,
            clients: None,
            last: VecDeque::new(),
            excess: 0,
            even_since: None,
            furthest: (0, 0),
        }
    }

    /// How many connections were in the wrong place at the beginning.
    #[must_use]
    pub fn excess(&self) -> u32 {
        self.excess
    }

    /// How many connections workers hold above their shares, streams included.
    #[must_use]
    pub fn above(held: &[Holding]) -> u32 {
        let share = share(held.iter().map(Holding::stays).sum(), held.len());
        let above = held.iter().map(|one| one.stays().saturating_sub(share));
        above.sum()
    }

    /// Looks at what all workers hold that serve.
    pub fn look(&mut self, held: &[Holding], now: Duration) -> Step {
        let stay: u32 = held.iter().map(Holding::stays).sum();
        if self.clients.is_none() {
            self.excess = Self::above(held);
        }
        let clients = self.count(stay);
        let keep = level(held, clients);
        let most = keep + (keep * TOLERANCE / 100).max(1);
        // Those that cannot be moved are not waited for.
        let is_even = held.iter().all(|one| one.stays() <= most.max(one.fixed));
        let ending = held.iter().map(|one| one.ending).sum();
        if self.even_since.is_none() {
            self.furthest = (stay, ending);
        }
        let since = self.even_since.filter(|_| !self.goes_on(stay, ending));
        let even_since = is_even.then(|| since.unwrap_or(now));
        self.even_since = even_since;
        // Those that are on their way may land so that it is even no longer.
        let are_back = stay >= clients - clients * TOLERANCE / 100;
        let is_calm = even_since.is_some_and(|since| now.saturating_sub(since) >= PATIENCE);
        let is_late = now.saturating_sub(self.begun) >= LIMIT;
        if (is_even && are_back) || is_calm || is_late {
            return Step {
                is_over: true,
                ..Step::default()
            };
        }
        let has_its_share = |one: &&Holding| one.stays() >= keep;
        let mut aside: BTreeSet<WorkerId> = held
            .iter()
            .filter(has_its_share)
            .map(|one| one.worker)
            .collect();
        if aside.len() == held.len() {
            aside.clear();
        }
        Step {
            keep,
            aside,
            is_over: false,
        }
    }

    /// Whether clients have come back, or were let go, since the last look.
    fn goes_on(&mut self, stay: u32, ending: u32) -> bool {
        let (most, fewest) = self.furthest;
        self.furthest = (most.max(stay), fewest.min(ending));
        stay > most || ending < fewest
    }

    /// How many clients there are, by what stays now.
    fn count(&mut self, stay: u32) -> u32 {
        self.last.push_back(stay);
        if self.last.len() > LOOKS {
            self.last.pop_front();
        }
        let proven = self.last.iter().min().copied().unwrap_or(stay);
        let clients = match self.clients {
            Some(clients) if self.last.len() == LOOKS => clients.max(proven),
            Some(clients) => clients,
            None => stay,
        };
        self.clients = Some(clients);
        clients
    }
}

/// The share of one of so many, rounded up.
fn share(total: u32, workers: usize) -> u32 {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    total.div_ceil(workers)
}

/// What each is to have at most, so that all clients have a place: those who hold more streams than that keep them, and
/// the others share the rest.
fn level(held: &[Holding], clients: u32) -> u32 {
    let mut fixed: Vec<u32> = held.iter().map(|one| one.fixed).collect();
    fixed.sort_unstable_by(|one, other| other.cmp(one));
    let mut rest = clients;
    for (index, &most) in fixed.iter().enumerate() {
        let level = share(rest, fixed.len() - index);
        if most <= level {
            return level;
        }
        rest = rest.saturating_sub(most);
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(open: &[u32]) -> Vec<Holding> {
        let all = (1..).map(WorkerId).zip(open);
        all.map(|(worker, &open)| Holding {
            worker,
            open,
            ending: 0,
            fixed: 0,
        })
        .collect()
    }

    /// Of each: what is open, and how many of them are ending.
    fn ending(open: &[(u32, u32)]) -> Vec<Holding> {
        let mut all = held(&open.iter().map(|one| one.0).collect::<Vec<_>>());
        for (one, (_, ending)) in all.iter_mut().zip(open) {
            one.ending = *ending;
        }
        all
    }

    /// Of each: what is open, and how many of them are streams.
    fn fixed(open: &[(u32, u32)]) -> Vec<Holding> {
        let mut all = held(&open.iter().map(|one| one.0).collect::<Vec<_>>());
        for (one, (_, fixed)) in all.iter_mut().zip(open) {
            one.fixed = *fixed;
        }
        all
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn those_above_their_share_keep_their_share() {
        let mut rebalance = Rebalance::new(at(0));
        let step = rebalance.look(&held(&[100, 100, 0, 0]), at(0));
        assert_eq!(step.keep, 50);
        assert_eq!(step.aside, [WorkerId(1), WorkerId(2)].into());
        assert_eq!(rebalance.excess(), 100);
    }

    #[test]
    fn the_share_stays_while_clients_are_on_their_way() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[200, 0]), at(0));
        assert_eq!(rebalance.look(&held(&[120, 10]), at(1)).keep, 100);
        let step = rebalance.look(&held(&[100, 100]), at(2));
        assert!(step.is_over && step.aside.is_empty());
    }

    #[test]
    fn a_client_that_is_back_before_its_old_connection_has_ended_counts_once() {
        let mut rebalance = Rebalance::new(at(0));
        assert_eq!(rebalance.look(&held(&[8, 8, 0, 0]), at(0)).keep, 4);
        let step = rebalance.look(&ending(&[(8, 4), (8, 4), (3, 0), (3, 0)]), at(0));
        assert_eq!((step.keep, step.is_over), (4, false));
        let step = rebalance.look(&ending(&[(8, 4), (8, 4), (4, 0), (4, 0)]), at(0));
        assert!(step.is_over, "what ends is not waited for");
    }

    #[test]
    fn clients_are_more_when_several_looks_say_so_and_not_before() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[100, 0]), at(0));
        for _ in 0..LOOKS - 2 {
            assert_eq!(rebalance.look(&held(&[140, 0]), at(0)).keep, 50);
        }
        // The first look is one of the last still.
        assert_eq!(rebalance.look(&held(&[140, 0]), at(0)).keep, 50);
        assert_eq!(rebalance.look(&held(&[140, 0]), at(0)).keep, 70);
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
    fn as_long_as_clients_come_back_the_others_are_waited_for() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[100, 100, 0, 0]), at(0));
        for (secs, back) in (1..).zip([0, 20, 40, 60]) {
            let now = [(50, 0), (50, 0), (back / 2, 0), (back / 2, 0)];
            assert!(!rebalance.look(&ending(&now), at(secs)).is_over, "{back}");
        }
        let now = [(50, 0), (50, 0), (30, 0), (30, 0)];
        assert!(rebalance.look(&ending(&now), at(5)).is_over, "nobody came");
    }

    #[test]
    fn as_long_as_connections_are_ending_their_clients_are_waited_for() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[4, 0]), at(0));
        assert!(!rebalance.look(&ending(&[(4, 2), (0, 0)]), at(1)).is_over);
        assert!(!rebalance.look(&ending(&[(3, 1), (0, 0)]), at(2)).is_over);
        assert!(rebalance.look(&ending(&[(3, 1), (0, 0)]), at(3)).is_over);
    }

    #[test]
    fn streams_are_not_waited_for_and_the_others_are_spread_around_them() {
        let mut rebalance = Rebalance::new(at(0));
        assert!(rebalance.look(&fixed(&[(8, 8), (0, 0)]), at(0)).is_over);
        let mut rebalance = Rebalance::new(at(0));
        let step = rebalance.look(&fixed(&[(40, 20), (0, 0), (0, 0)]), at(0));
        assert_eq!(step.keep, 10, "20 of 40 stay, the others have two places");
        let step = rebalance.look(&fixed(&[(20, 20), (10, 0), (10, 0)]), at(1));
        assert!(step.is_over);
    }

    #[test]
    fn who_lands_on_one_that_has_its_share_is_sent_on() {
        let mut rebalance = Rebalance::new(at(0));
        rebalance.look(&held(&[8, 8, 0, 0]), at(0));
        // More have gone than were to, and nobody has come back yet.
        assert!(!rebalance.look(&held(&[2, 2, 0, 0]), at(0)).is_over);
        let step = rebalance.look(&held(&[2, 2, 6, 6]), at(0));
        assert_eq!((step.keep, step.is_over), (4, false));
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
        fn somebody_is_always_let_newcomers(open in proptest::collection::vec((0_u32..500, 0_u32..50), 1..20)) {
            let step = Rebalance::new(at(0)).look(&fixed(&open), at(0));
            prop_assert!(step.aside.len() < open.len());
        }

        /// Clients whose connections are ended come back, to those who may have them.
        #[test]
        fn it_comes_to_an_even_end(open in proptest::collection::vec((0_u32..200, 0_u32..100), 2..12)) {
            let open: Vec<(u32, u32)> = open.iter().map(|(open, fixed)| (open + fixed, *fixed)).collect();
            let mut held = fixed(&open);
            let mut rebalance = Rebalance::new(at(0));
            for look in 0.. {
                let step = rebalance.look(&held, Duration::from_millis(100 * look));
                if step.is_over {
                    break;
                }
                for index in 0..held.len() {
                    let gone = held[index].open.saturating_sub(step.keep.max(held[index].fixed));
                    held[index].open -= gone;
                    for _ in 0..gone {
                        let may = |one: &&mut Holding| !step.aside.contains(&one.worker);
                        held.iter_mut().filter(may).min_by_key(|one| one.open).unwrap().open += 1;
                    }
                }
            }
            let total: u32 = open.iter().map(|one| one.0).sum();
            let keep = level(&held, total);
            let most = keep + (keep / 10).max(1);
            prop_assert!(held.iter().all(|one| one.open <= most.max(one.fixed)), "{held:?}");
        }
    }
}
