//! How the primary itself does: how late its event loop is, and how much memory it has. The bounds here are
//! what [`SECURITY.md`] promises whatever one worker does; a breach is worth a line in the log.
//!
//! [`SECURITY.md`]: https://github.com/phalanx-rs/phalanx/blob/main/SECURITY.md

use std::collections::VecDeque;
use std::time::Duration;

/// How often the loop is asked: each time as late as it was.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// So many looks are kept: the last minute.
pub const KEPT_LOOKS: usize = 600;
/// Later than this is a breach.
pub const MOST_LAG: Duration = Duration::from_millis(250);
/// More memory than this above what was taken when all was quiet is a breach.
pub const MOST_GROWTH_BYTES: u64 = 64 << 20;
/// What one worker may add to that, for its pipes, its channel and its registration.
pub const WORKER_BYTES: u64 = 128 << 10;
/// A breach is told again after so long.
const QUIET: Duration = Duration::from_secs(10);

/// How late the loop was, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// Half of the looks found it no later than this.
    pub p50: Duration,
    /// 99 of 100 looks.
    pub p99: Duration,
    /// The worst of the last minute.
    pub max: Duration,
}

/// A bound that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breach {
    /// The loop was late.
    Lag {
        /// So late.
        by: Duration,
        /// For so much of it this process was on a processor; the rest of the time it was not let run.
        busy: Duration,
    },
    /// There is more memory in use than there should be.
    Memory {
        /// What is in use.
        bytes: u64,
        /// What was in use when all was quiet.
        idle_bytes: u64,
    },
}

/// Takes the looks down.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    looks: VecDeque<Duration>,
    memory_bytes: u64,
    /// The memory of a primary at rest, and with how many workers.
    idle: Option<(u64, u64)>,
    lag_told: Option<Duration>,
    memory_told: Option<Duration>,
}

impl Vitals {
    /// A look at the loop: it was due some time ago, and for `busy` of that this process ran.
    pub fn late(&mut self, by: Duration, busy: Duration, now: Duration) -> Option<Breach> {
        if self.looks.len() == KEPT_LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(by);
        (by > MOST_LAG && is_due(&mut self.lag_told, now)).then_some(Breach::Lag { by, busy })
    }

    /// A look at the memory, while there are so many workers.
    pub fn memory(&mut self, bytes: u64, workers: u64, now: Duration) -> Option<Breach> {
        self.memory_bytes = bytes;
        let (idle_bytes, idle_workers) = self.idle?;
        let more = workers.saturating_sub(idle_workers) * WORKER_BYTES;
        let most = idle_bytes + MOST_GROWTH_BYTES + more;
        (bytes > most && is_due(&mut self.memory_told, now))
            .then_some(Breach::Memory { bytes, idle_bytes })
    }

    /// All workers are up and nothing is under way: this much memory is what it takes. Only the first call counts.
    pub fn settled(&mut self, bytes: u64, workers: u64) {
        self.memory_bytes = bytes;
        self.idle.get_or_insert((bytes, workers));
    }

    /// The memory at the last look, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The memory when all was quiet, in bytes; nothing before it was.
    #[must_use]
    pub fn idle_bytes(&self) -> Option<u64> {
        self.idle.map(|(bytes, _)| bytes)
    }

    /// How late the loop was in the last minute.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let mut sorted: Vec<Duration> = self.looks.iter().copied().collect();
        sorted.sort_unstable();
        // The smallest look that so many of a hundred do not exceed.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Lag {
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            max: sorted.last().copied().unwrap_or_default(),
        }
    }
}

fn is_due(told: &mut Option<Duration>, now: Duration) -> bool {
    let due = told.is_none_or(|told| now.saturating_sub(told) >= QUIET);
    if due {
        *told = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_lag_of_the_last_minute_is_kept() {
        let mut vitals = Vitals::default();
        assert_eq!(vitals.lag(), Lag::default());
        for look in 0..1_000 {
            let by = if look % 100 == 99 {
                millis(80)
            } else {
                millis(1)
            };
            assert_eq!(vitals.late(by, by, INTERVAL * look), None);
        }
        let lag = vitals.lag();
        assert_eq!(
            (lag.p50, lag.p99, lag.max),
            (millis(1), millis(1), millis(80))
        );
        for look in 1_000..1_700 {
            vitals.late(millis(2), millis(2), INTERVAL * look);
        }
        assert_eq!(vitals.lag().max, millis(2));
    }

    #[test]
    fn a_breach_is_told_and_not_again_at_once() {
        let mut vitals = Vitals::default();
        assert_eq!(vitals.late(MOST_LAG, MOST_LAG, millis(0)), None);
        let breach = Breach::Lag {
            by: millis(300),
            busy: millis(20),
        };
        assert_eq!(
            vitals.late(millis(300), millis(20), millis(1)),
            Some(breach)
        );
        assert_eq!(vitals.late(millis(300), millis(20), millis(2)), None);
        assert_eq!(
            vitals.late(millis(300), millis(20), millis(10_001)),
            Some(breach)
        );
    }

    #[test]
    fn memory_counts_from_when_all_was_quiet_and_grows_with_the_workers() {
        let mut vitals = Vitals::default();
        assert_eq!(vitals.memory(1 << 40, 1, millis(0)), None);
        vitals.settled(10 << 20, 2);
        vitals.settled(1 << 40, 2);
        assert_eq!(vitals.idle_bytes(), Some(10 << 20));
        assert_eq!(vitals.memory(74 << 20, 2, millis(0)), None);
        assert_eq!(vitals.memory(80 << 20, 66, millis(0)), None);
        let bytes = (74 << 20) + 1;
        let breach = vitals.memory(bytes, 2, millis(0));
        let idle_bytes = 10 << 20;
        assert_eq!(breach, Some(Breach::Memory { bytes, idle_bytes }));
        assert_eq!(vitals.memory_bytes(), bytes);
    }
}
