//! When a worker is worn out: it takes too much memory, is too old, or has answered enough requests.
//!
//! Every limit is spread over the positions, so that workers that were started together are not worn out together:
//! position 0 has the whole limit, and each further one a little less.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::ids::Position;

/// How many of the last [`SAMPLES`] samples must be above the limit of memory.
const ABOVE: u32 = 2;
/// So many samples count.
const SAMPLES: u32 = 3;
/// The last position's limit of memory is less by nearly one such part.
const MEMORY_SPREAD: u64 = 8;
/// The same of age and requests.
const OTHER_SPREAD: u64 = 4;

/// When workers are to be replaced although nothing is wrong with them. Default: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a list of limits, each optional")]
pub struct WearLimits {
    /// The most memory that a worker may occupy, in bytes.
    pub max_memory: Option<u64>,
    /// How long a worker may have been ready.
    pub max_age: Option<Duration>,
    /// How many requests a worker may have answered, where it tells them.
    pub max_requests: Option<u64>,
}

/// What a worker is like at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "one field for each limit")]
pub struct WearSample {
    /// The memory that it occupies, in bytes; none if that is not known.
    pub memory: Option<u64>,
    /// How long it has been ready.
    pub age: Duration,
    /// How many requests it has answered; none if it does not tell.
    pub requests: Option<u64>,
}

/// Why a worker is to be replaced although it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "wear", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum Wear {
    /// It occupies too much memory.
    Memory {
        /// What it occupies.
        bytes: u64,
        /// The limit at its position.
        limit: u64,
    },
    /// It has been ready for long enough.
    Age {
        /// How long.
        #[serde(rename = "age_ms", serialize_with = "super::as_millis")]
        age: Duration,
    },
    /// It has answered enough requests.
    Requests {
        /// How many.
        requests: u64,
    },
    /// It does not answer.
    Hung {
        /// For how long.
        #[serde(rename = "silent_ms", serialize_with = "super::as_millis")]
        silent: Duration,
    },
    /// It does not answer, nor does any other worker: it gives way before it is given up, and may finish its work.
    Outage {
        /// For how long.
        #[serde(rename = "silent_ms", serialize_with = "super::as_millis")]
        silent: Duration,
    },
    /// A signal stopped it, and nobody continues it: its successor serves, and it is continued to finish its work.
    Stopped {
        /// For how long it has been.
        #[serde(rename = "stopped_ms", serialize_with = "super::as_millis")]
        stopped: Duration,
    },
    /// Somebody asked for it.
    Asked,
}

/// When a position was last recycled, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "when and why")]
pub struct Recycled {
    /// When the worker was asked to leave, as [`Fleet::step`](super::Fleet::step) counts the time.
    pub at: Duration,
    /// Why.
    pub wear: Wear,
}

impl fmt::Display for Wear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { bytes, limit } => {
                write!(f, "memory: {} of {} MiB", bytes >> 20, limit >> 20)
            }
            Self::Age { age } => write!(f, "age: {} s", age.as_secs()),
            Self::Requests { requests } => write!(f, "requests: {requests}"),
            Self::Hung { silent } => write!(f, "hung: silent for {:.1} s", silent.as_secs_f64()),
            Self::Outage { silent } => {
                let silent = silent.as_secs_f64();
                write!(f, "nobody serves: silent for {silent:.1} s")
            }
            Self::Stopped { stopped } => {
                write!(f, "stopped by a signal for {:.1} s", stopped.as_secs_f64())
            }
            Self::Asked => f.write_str("as asked"),
        }
    }
}

impl WearLimits {
    /// Whether there is any limit.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// Those of one position of so many.
    #[must_use]
    pub fn at(&self, position: Position, of: u32) -> Self {
        Self {
            max_memory: self
                .max_memory
                .map(|limit| less(limit, position, of, MEMORY_SPREAD)),
            max_age: self.max_age.map(|limit| {
                let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                Duration::from_millis(less(millis, position, of, OTHER_SPREAD))
            }),
            max_requests: self
                .max_requests
                .map(|limit| less(limit, position, of, OTHER_SPREAD).max(1)),
        }
    }
}

/// `limit` without this position's share of one `part`th of it.
fn less(limit: u64, position: Position, of: u32, part: u64) -> u64 {
    let of = u64::from(of.max(1));
    let step = u64::from(position.0) % of;
    limit - limit / part / of * step
}

/// The samples of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct WearGauge {
    /// The last samples of memory, the newest in the lowest bit: set where it was above the limit.
    above: u32,
    /// What it occupied at the sample before.
    before: Option<u64>,
    /// By how much it grew up to that sample, and up to the one before.
    grown: [u64; 2],
    told: bool,
}

impl WearGauge {
    /// Takes in one sample, and says once that the worker is worn out by one of these limits, those of its position.
    /// One peak of memory is no wear: two of three samples must be above the limit, or be about to pass it.
    pub fn look(&mut self, sample: &WearSample, limits: &WearLimits) -> Option<Wear> {
        let bytes = sample.memory.unwrap_or(0);
        let soon = self.soon(bytes);
        let is_above = limits.max_memory.is_some_and(|limit| soon > limit);
        self.above = (self.above << 1 | u32::from(is_above)) & ((1 << SAMPLES) - 1);
        if self.told {
            return None;
        }
        let wear = if let Some(limit) = limits.max_memory
            && is_above
            && self.above.count_ones() >= ABOVE
        {
            Some(Wear::Memory { bytes, limit })
        } else if limits.max_age.is_some_and(|limit| sample.age >= limit) {
            Some(Wear::Age { age: sample.age })
        } else {
            let requests = sample.requests.unwrap_or(0);
            limits
                .max_requests
                .is_some_and(|limit| requests >= limit)
                .then_some(Wear::Requests { requests })
        };
        self.told = wear.is_some();
        wear
    }

    /// What memory will be soon if it grows on as it did: at the next sample, and where it grew evenly up to the last three, at the
    /// one after that. So the successor of a worker that leaks serves when the limit is reached, and not seconds later.
    fn soon(&mut self, bytes: u64) -> u64 {
        let before = self.before.replace(bytes).unwrap_or(bytes);
        let grew = bytes.saturating_sub(before);
        let least = self.grown.into_iter().fold(grew, u64::min);
        let most = self.grown.into_iter().fold(grew, u64::max);
        self.grown = [self.grown[1], grew];
        // A start grows too, but less and less.
        let grows_evenly = most <= least.saturating_mul(2);
        let by = if grows_evenly {
            grew.saturating_add(least)
        } else {
            grew
        };
        bytes.saturating_add(by)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEMORY: WearLimits = WearLimits {
        max_memory: Some(200),
        max_age: None,
        max_requests: None,
    };

    fn takes(bytes: u64) -> WearSample {
        WearSample {
            memory: Some(bytes),
            ..WearSample::default()
        }
    }

    #[test]
    fn one_peak_of_memory_is_no_wear_and_two_of_three_are() {
        let mut gauge = WearGauge::default();
        for bytes in [201, 200, 199, 300, 100, 100, 201] {
            assert_eq!(gauge.look(&takes(bytes), &MEMORY), None, "{bytes}");
        }
        assert_eq!(gauge.look(&takes(150), &MEMORY), None);
        let worn = Wear::Memory {
            bytes: 250,
            limit: 200,
        };
        assert_eq!(gauge.look(&takes(250), &MEMORY), Some(worn));
        assert_eq!(gauge.look(&takes(260), &MEMORY), None, "it is told once");
    }

    #[test]
    fn one_that_grows_steadily_is_worn_before_it_passes_the_limit() {
        let mut gauge = WearGauge::default();
        for bytes in [150, 160, 170, 180, 190] {
            assert_eq!(gauge.look(&takes(bytes), &MEMORY), None, "{bytes}");
        }
        assert!(gauge.look(&takes(199), &MEMORY).is_some());
        let mut gauge = WearGauge::default();
        for bytes in [20, 100, 160, 175, 180, 180] {
            assert_eq!(
                gauge.look(&takes(bytes), &MEMORY),
                None,
                "a start is no leak"
            );
        }
    }

    #[test]
    fn age_and_requests_count_at_once() {
        let limits = WearLimits {
            max_age: Some(Duration::from_secs(10)),
            max_requests: Some(100),
            ..WearLimits::default()
        };
        let sample = |secs, requests| WearSample {
            memory: None,
            age: Duration::from_secs(secs),
            requests,
        };
        let look = |sample| WearGauge::default().look(&sample, &limits);
        assert_eq!(look(sample(9, Some(99))), None);
        assert_eq!(look(sample(9, None)), None);
        let age = Duration::from_secs(10);
        assert_eq!(look(sample(10, None)), Some(Wear::Age { age }));
        let requests = 100;
        assert_eq!(
            look(sample(1, Some(100))),
            Some(Wear::Requests { requests })
        );
    }

    proptest! {
        #[test]
        fn positions_have_limits_of_their_own_near_the_one_that_is_set(
            memory in 1_u64 << 20..1 << 40, secs in 60_u64..1_000_000, of in 1_u32..64,
        ) {
            let limits = WearLimits {
                max_memory: Some(memory),
                max_age: Some(Duration::from_secs(secs)),
                max_requests: Some(secs * 1000),
            };
            let at = |position| limits.at(Position(position), of);
            prop_assert_eq!(at(0), limits);
            for position in 1..of {
                let (before, here) = (at(position - 1), at(position));
                prop_assert!(here.max_memory < before.max_memory);
                prop_assert!(here.max_age < before.max_age);
                prop_assert!(here.max_requests < before.max_requests);
                prop_assert!(here.max_memory >= Some(memory - memory / MEMORY_SPREAD));
                prop_assert!(here.max_requests >= Some(secs * 750));
            }
        }
    }
}
