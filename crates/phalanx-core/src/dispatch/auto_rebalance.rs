//! When connections are rebalanced without being asked for (`--rebalance auto`).
//!
//! Workers that have come since the last time have nothing yet that clients keep: at the start behind the first, after a scale-up, in place of one that crashed, after a reload. Some
//! seconds later, when the app is at rest, it is looked at how uneven it is. Ending connections costs clients something, so little
//! unevenness is left alone ([`is_worth_it`]), there is a pause between two times, and where ending connections has not helped (clients
//! rest, or are streams) the pause doubles.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rebalance::{Holding, Rebalance};
use crate::ids::WorkerId;

/// New workers serve for so long first: clients that lost their connections come back by themselves.
const SETTLING: Duration = Duration::from_secs(3);
/// The least time between two rebalances.
const PAUSE: Duration = Duration::from_secs(30);
/// The most, where they do not help.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// Uneven is when more than so many hundredths of the connections are above the workers' shares,
const UNEVEN: u32 = 10;
/// and no fewer than so many.
const FEWEST: u32 = 4;

/// See the module's documentation. It has no clock: the time is an argument, from an arbitrary start.
#[derive(Clone, Debug)]
pub struct AutoRebalance {
    /// Who served at the last look.
    serving: BTreeSet<WorkerId>,
    due: Option<Duration>,
    /// Not before this.
    rests_until: Duration,
    pause: Duration,
}

/// Whether connections that are held like this should be rebalanced.
#[must_use]
pub fn is_worth_it(held: &[Holding]) -> bool {
    let open: u64 = held.iter().map(|one| u64::from(one.open)).sum();
    let movable = |one: &Holding| one.open.saturating_sub(one.fixed);
    let above = Rebalance::above(held).min(held.iter().map(movable).sum());
    above >= FEWEST && u64::from(above) * 100 > open * u64::from(UNEVEN)
}

impl AutoRebalance {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            serving: BTreeSet::new(),
            due: None,
            rests_until: Duration::ZERO,
            pause: PAUSE,
        }
    }

    /// Takes in who serves, and whether the app is at rest. True when it is time to look how uneven it is.
    pub fn look(&mut self, serving: BTreeSet<WorkerId>, is_at_rest: bool, now: Duration) -> bool {
        let has_come = |worker: &WorkerId| !self.serving.contains(worker);
        if serving.iter().any(has_come) {
            self.due = Some(now + SETTLING);
        }
        if !serving.is_empty() {
            self.serving = serving;
        }
        let is_due = self
            .due
            .is_some_and(|due| now >= due && now >= self.rests_until);
        let may_begin = is_due && is_at_rest && self.serving.len() > 1;
        if may_begin {
            self.due = None;
        }
        may_begin
    }

    /// A rebalance is over, with so many connections above their shares before and after.
    pub fn ended(&mut self, before: u32, after: u32, now: Duration) {
        let has_helped = after <= before / 2;
        self.pause = if has_helped {
            PAUSE
        } else {
            (self.pause * 2).min(LONGEST_PAUSE)
        };
        self.rests_until = now + self.pause;
    }
}

impl Default for AutoRebalance {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn held(open: &[(u32, u32)]) -> Vec<Holding> {
        let all = (1..).map(WorkerId).zip(open);
        all.map(|(worker, &(open, fixed))| Holding {
            worker,
            open,
            ending: 0,
            fixed,
        })
        .collect()
    }

    fn workers(ids: impl IntoIterator<Item = u32>) -> BTreeSet<WorkerId> {
        ids.into_iter().map(WorkerId).collect()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn little_unevenness_and_streams_are_left_alone() {
        assert!(is_worth_it(&held(&[(100, 0), (0, 0)])));
        assert!(!is_worth_it(&held(&[(55, 0), (45, 0)])));
        assert!(!is_worth_it(&held(&[(6, 0), (0, 0)])), "too few");
        assert!(!is_worth_it(&held(&[(100, 100), (0, 0)])), "only streams");
        assert!(!is_worth_it(&[]));
    }

    #[test]
    fn it_is_time_some_seconds_after_a_worker_has_come_and_the_app_rests() {
        let mut auto = AutoRebalance::new();
        assert!(!auto.look(workers([1, 2]), true, secs(0)));
        assert!(auto.look(workers([1, 2]), true, secs(4)), "they have come");
        assert!(
            !auto.look(workers([1, 2]), true, secs(60)),
            "nobody has come"
        );
        assert!(!auto.look(workers([1, 2, 3]), false, secs(61)));
        assert!(
            !auto.look(workers([1, 2, 3]), false, secs(70)),
            "it does not rest"
        );
        assert!(auto.look(workers([1, 2, 3]), true, secs(71)));
        assert!(!auto.look(workers([1, 2, 3]), true, secs(72)), "once");
        assert!(
            !auto.look(workers([1, 2]), true, secs(80)),
            "fewer have nothing to get"
        );
        assert!(!auto.look(workers([1, 2]), true, secs(90)));
    }

    #[test]
    fn where_it_does_not_help_the_pauses_grow() {
        let mut auto = AutoRebalance::new();
        auto.look(workers([1, 2]), true, secs(0));
        let mut times = Vec::new();
        for second in 1..20_000 {
            // A worker crashes every 10 s.
            let newest = u32::try_from(second / 10).unwrap() + 2;
            if auto.look(workers([1, newest]), true, secs(second)) {
                times.push(second);
                auto.ended(100, 90, secs(second + 10));
            }
        }
        let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses[0] >= 60 && pauses.is_sorted(), "{pauses:?}");
        assert!(
            pauses.last().is_some_and(|last| *last >= 3600),
            "{pauses:?}"
        );
    }

    /// Clients come and go, workers crash and are scaled at random: there are never two without a pause, and after a change that
    /// lasts it gets even.
    #[test]
    fn whatever_happens_there_is_a_pause_and_in_the_end_it_is_even() {
        for seed in 0..500 {
            let mut rng = SplitMix64::new(seed);
            let mut auto = AutoRebalance::new();
            let mut open: Vec<(u32, u32)> = vec![(1, rng.below(100)), (2, rng.below(100))];
            let mut next = 3;
            let mut last: Option<u64> = None;
            for second in 0..2_000_u64 {
                let is_calm = second > 1_900;
                if !is_calm && rng.below(40) == 0 {
                    let moved = open.remove(usize::try_from(rng.below(2)).unwrap()).1;
                    open.push((next, 0));
                    next += 1;
                    // Clients that lost their connections come back to all.
                    let count = u32::try_from(open.len()).unwrap();
                    for one in &mut open {
                        one.1 += moved / count;
                    }
                }
                if !is_calm && rng.below(400) == 0 && open.len() < 8 {
                    open.push((next, 0));
                    next += 1;
                }
                let serving = workers(open.iter().map(|one| one.0));
                if !auto.look(serving, true, secs(second)) {
                    continue;
                }
                let figures: Vec<(u32, u32)> = open.iter().map(|one| (one.1, 0)).collect();
                let holdings = held(&figures);
                if !is_worth_it(&holdings) {
                    continue;
                }
                if let Some(last) = last.replace(second) {
                    assert!(second - last >= PAUSE.as_secs(), "seed {seed}");
                }
                let total: u32 = open.iter().map(|one| one.1).sum();
                let count = u32::try_from(open.len()).unwrap();
                for (index, one) in (0..).zip(&mut open) {
                    one.1 = total / count + u32::from(index < total % count);
                }
                auto.ended(Rebalance::above(&holdings), 0, secs(second + 1));
            }
            let figures: Vec<(u32, u32)> = open.iter().map(|one| (one.1, 0)).collect();
            assert!(!is_worth_it(&held(&figures)), "seed {seed}: {figures:?}");
        }
    }
}
