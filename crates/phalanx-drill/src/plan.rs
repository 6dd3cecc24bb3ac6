//! What happens to the app, and when: computed before the drill starts.
//!
//! The load runs in calm for the first eighth (at most half a minute), so that there is something to compare
//! with, and for the last sixteenth (at most a quarter), so that the effects of the last action are seen. In between the actions are spread evenly,
//! kinds alternating. An action that takes longer than its share delays the next one; none is left out.

use std::time::Duration;

/// The longest calm at the beginning.
const LONGEST_CALM: Duration = Duration::from_secs(30);

/// What the drill does to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// All workers are replaced.
    Reload,
    /// One worker is killed by SIGKILL.
    Kill,
    /// One worker more, or the one more again less.
    Scale,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Reload, Self::Kill, Self::Scale];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Kill => "kill",
            Self::Scale => "scale",
        }
    }
}

/// One action to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// The how manieth of its kind, from 1.
    pub(super) number: u32,
    /// When, since the start.
    pub(super) at: Duration,
}

/// How many of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) reloads: u32,
    pub(super) kills: u32,
    pub(super) scales: u32,
}

impl Counts {
    fn of(self, kind: Kind) -> u32 {
        match kind {
            Kind::Reload => self.reloads,
            Kind::Kill => self.kills,
            Kind::Scale => self.scales,
        }
    }

    fn all(self) -> u64 {
        Kind::ALL
            .into_iter()
            .map(|kind| u64::from(self.of(kind)))
            .sum()
    }
}

/// The actions of a drill of this length, in order.
pub(super) fn plan(length: Duration, counts: Counts) -> Vec<Step> {
    let all = counts.all();
    let first = (length / 8).min(LONGEST_CALM);
    let between = length.saturating_sub(first + rest(length));
    let at = |index: u64| match all {
        0 | 1 => first,
        _ => first + between.mul_f64(as_share(index, all)),
    };
    let mut done = [0_u32; Kind::ALL.len()];
    let mut steps = Vec::new();
    for index in 0..all {
        let Some((slot, kind)) = next_kind(counts, done) else {
            break;
        };
        done[slot] += 1;
        steps.push(Step {
            kind,
            number: done[slot],
            at: at(index),
        });
    }
    steps
}

/// How long the load goes on behind the last action.
pub(super) fn rest(length: Duration) -> Duration {
    (length / 16).min(LONGEST_CALM / 2)
}

fn as_share(index: u64, all: u64) -> f64 {
    let exact = |count: u64| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
    exact(index) / exact(all)
}

/// The kind that is furthest behind its share; a reload first where several are.
fn next_kind(counts: Counts, done: [u32; Kind::ALL.len()]) -> Option<(usize, Kind)> {
    let open = Kind::ALL
        .into_iter()
        .enumerate()
        .filter(|(slot, kind)| done[*slot] < counts.of(*kind));
    // The one whose next action would lie earliest if each kind were spread alone: (done + 1/2) / of.
    let key = |slot: usize, kind: Kind| {
        let of = u64::from(counts.of(kind));
        ((2 * u64::from(done[slot]) + 1) << 20) / of
    };
    open.min_by_key(|(slot, kind)| (key(*slot, *kind), *slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(reloads: u32, kills: u32, scales: u32) -> Counts {
        Counts {
            reloads,
            kills,
            scales,
        }
    }

    #[test]
    fn every_action_is_planned_once_in_order_and_between_two_calms() {
        let length = Duration::from_secs(32);
        for wanted in [
            counts(3, 1, 2),
            counts(1000, 50, 0),
            counts(0, 0, 1),
            counts(0, 7, 0),
        ] {
            let steps = plan(length, wanted);
            for kind in Kind::ALL {
                let numbers: Vec<u32> = steps
                    .iter()
                    .filter(|step| step.kind == kind)
                    .map(|step| step.number)
                    .collect();
                assert_eq!(numbers, (1..=wanted.of(kind)).collect::<Vec<_>>());
            }
            assert!(steps.is_sorted_by_key(|step| step.at), "{steps:?}");
            assert!(
                steps
                    .iter()
                    .all(|step| step.at >= length / 8 && step.at <= length / 16 * 15)
            );
        }
        assert_eq!(plan(length, counts(0, 0, 0)), []);
    }

    #[test]
    fn a_long_drill_does_not_idle() {
        let hour = Duration::from_hours(1);
        assert_eq!(plan(hour, counts(1, 0, 0))[0].at, Duration::from_secs(30));
        assert_eq!(rest(hour), Duration::from_secs(15));
        assert_eq!(rest(Duration::from_secs(16)), Duration::from_secs(1));
    }

    #[test]
    fn kinds_alternate_as_evenly_as_their_numbers_allow() {
        let kinds = |wanted| {
            let steps = plan(Duration::from_secs(30), wanted);
            steps
                .iter()
                .map(|step| step.kind.as_str().as_bytes()[0])
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(counts(4, 2, 0)), b"rkrrkr");
        assert_eq!(kinds(counts(2, 2, 2)), b"rksrks");
    }
}
