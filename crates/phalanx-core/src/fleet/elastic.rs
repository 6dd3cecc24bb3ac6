//! The size of a fleet that follows its load: when to grow, when to shrink, and why.
//!
//! Growing is fast and shrinking slow. The two limits lie so far apart that no constant load leads up and down again: a
//! fleet that shrinks by one is at most twice as busy afterwards, and one that grows aims at the middle.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

/// Grow when the workers were busier than this, in thousandths of their time,
const GROW_ABOVE: u32 = 800;
/// for so long on average.
const GROW_OVER: Duration = Duration::from_secs(10);
/// Shrink when they were less busy than this,
const SHRINK_BELOW: u32 = 200;
/// for so long on average.
const SHRINK_OVER: Duration = Duration::from_mins(1);
/// The least time between two changes.
const PAUSE: Duration = Duration::from_secs(20);
/// What growing aims at.
const AIM: u32 = 600;
/// A new worker may need so much more memory than the largest has, in hundredths.
const MEMORY_PART: u64 = 125;

/// Between which numbers of workers the size may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a range")]
pub struct ElasticRange {
    /// The least.
    pub min: NonZeroU32,
    /// The most; not less than `min`.
    pub max: NonZeroU32,
}

/// What the workers do at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what the decision takes")]
pub struct ElasticSample {
    /// How busy the workers that serve were on average since the last sample, in thousandths of their time.
    pub busy: u32,
    /// How many workers are wanted now.
    pub target: u32,
    /// How many workers the CPU quota is enough for; none where there is no quota.
    pub quota: Option<u32>,
    /// How much memory is left, and how much the largest worker has, in bytes; none where that is not known.
    pub memory: Option<(u64, u64)>,
}

/// Why the load asks for another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ElasticReason {
    /// How busy the workers were, in thousandths of their time,
    pub busy: u32,
    /// over so many seconds.
    pub seconds: u64,
    /// What kept the fleet from growing further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<ElasticLimit>,
}

/// Why the size changes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum ResizeReason {
    /// The load.
    Load(ElasticReason),
    /// There is one worker for each processor that may be used, and that number has changed.
    Cores {
        /// So many are there now.
        cores: u32,
    },
}

impl fmt::Display for ResizeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(reason) => reason.fmt(f),
            Self::Cores { cores: 1 } => f.write_str("1 processor may be used now"),
            Self::Cores { cores } => write!(f, "{cores} processors may be used now"),
        }
    }
}

/// What keeps a fleet from growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum ElasticLimit {
    /// The CPU quota.
    CpuQuota,
    /// The memory that is left.
    Memory,
}

impl fmt::Display for ElasticReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (busy, seconds) = (self.busy / 10, self.seconds);
        write!(f, "workers were busy for {busy}% of the last {seconds} s")?;
        match self.held_by {
            Some(ElasticLimit::CpuQuota) => f.write_str("; the CPU quota allows no more"),
            Some(ElasticLimit::Memory) => f.write_str("; the memory left allows no more"),
            None => Ok(()),
        }
    }
}

/// A new size. The same as the present one where the fleet should grow and may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the whole decision")]
pub struct Resize {
    /// How many workers there should be.
    pub to: u32,
    /// Why.
    pub why: ResizeReason,
}

/// Follows the load of a fleet. It has no clock: the time is an argument, from an arbitrary start.
#[derive(Clone, Debug)]
pub struct Elastic {
    range: ElasticRange,
    /// The target that the samples are of.
    target: u32,
    samples: VecDeque<(Duration, u32)>,
    changed_at: Option<Duration>,
    /// It was told that it may not grow.
    held: bool,
}

impl Elastic {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(range: ElasticRange) -> Self {
        Self {
            range,
            target: 0,
            samples: VecDeque::new(),
            changed_at: None,
            held: false,
        }
    }

    /// Takes in a sample, one a second or so, of a fleet at rest (no reload, all workers ready), and says which size is
    /// better. A size that somebody set outside of the range stays until the load leads back into it.
    pub fn look(&mut self, sample: &ElasticSample, now: Duration) -> Option<Resize> {
        if self.target != sample.target {
            // What was seen of another size says nothing about this one.
            self.samples.clear();
            if self.target != 0 {
                self.changed_at = Some(now);
            }
            self.target = sample.target;
        }
        self.samples.push_back((now, sample.busy));
        let oldest = now.saturating_sub(SHRINK_OVER);
        while self.samples.len() > 1 && self.samples.get(1).is_some_and(|(at, _)| *at <= oldest) {
            self.samples.pop_front();
        }
        if self.changed_at.is_some_and(|at| now < at + PAUSE) {
            return None;
        }
        if let Some(busy) = self.mean(now, GROW_OVER).filter(|busy| *busy > GROW_ABOVE) {
            return self.grow(busy, sample);
        }
        self.held = false;
        let busy = self.mean(now, SHRINK_OVER)?;
        let may_shrink = sample.target > self.range.min.get();
        (busy < SHRINK_BELOW && may_shrink).then(|| Resize {
            to: sample.target - 1,
            why: ResizeReason::Load(reason(busy, SHRINK_OVER, None)),
        })
    }

    fn grow(&mut self, busy: u32, sample: &ElasticSample) -> Option<Resize> {
        let now = sample.target;
        if now >= self.range.max.get() {
            return None;
        }
        let needed = (u64::from(now) * u64::from(busy)).div_ceil(u64::from(AIM));
        let wanted = u32::try_from(needed).unwrap_or(u32::MAX).max(now + 1);
        let wanted = wanted.min(self.range.max.get());
        let by_quota = sample.quota.unwrap_or(u32::MAX);
        let by_memory = sample.memory.map_or(u32::MAX, |(left, largest)| {
            let each = (largest / 100 * MEMORY_PART).max(1);
            now.saturating_add(u32::try_from(left / each).unwrap_or(u32::MAX))
        });
        let to = wanted.min(by_quota).min(by_memory).max(now);
        let held_by = if to == wanted {
            None
        } else if by_quota <= by_memory {
            Some(ElasticLimit::CpuQuota)
        } else {
            Some(ElasticLimit::Memory)
        };
        if to == now && std::mem::replace(&mut self.held, true) {
            return None;
        }
        let why = ResizeReason::Load(reason(busy, GROW_OVER, held_by));
        Some(Resize { to, why })
    }

    /// The mean over the last `span`, if there are samples of all of it.
    fn mean(&self, now: Duration, span: Duration) -> Option<u32> {
        let from = now.checked_sub(span)?;
        self.samples.front().filter(|(at, _)| *at <= from)?;
        let (mut sum, mut count) = (0_u64, 0_u64);
        for (_, busy) in self.samples.iter().rev().take_while(|(at, _)| *at > from) {
            sum += u64::from(*busy);
            count += 1;
        }
        u32::try_from(sum.checked_div(count)?).ok()
    }
}

fn reason(busy: u32, span: Duration, held_by: Option<ElasticLimit>) -> ElasticReason {
    ElasticReason {
        busy,
        seconds: span.as_secs(),
        held_by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    /// As many as there are histories of the fleet: fewer where the build is slow.
    const CURVES: u32 = if cfg!(debug_assertions) {
        1_000
    } else {
        10_000
    };

    fn elastic(min: u32, max: u32) -> Elastic {
        let number = |number| NonZeroU32::new(number).unwrap();
        Elastic::new(ElasticRange {
            min: number(min),
            max: number(max),
        })
    }

    fn sample(busy: u32, target: u32) -> ElasticSample {
        ElasticSample {
            busy,
            target,
            quota: None,
            memory: None,
        }
    }

    /// Plays a load, in thousandths of a worker by second; returns the sizes with their times.
    fn play(mut elastic: Elastic, load: impl Fn(u64) -> u64, seconds: u64) -> Vec<(u64, u32)> {
        let mut target = elastic.range.min.get();
        let mut sizes = Vec::new();
        for second in 0..seconds {
            let busy = (load(second) / u64::from(target)).min(1000);
            let sample = sample(u32::try_from(busy).unwrap(), target);
            if let Some(resize) = elastic.look(&sample, Duration::from_secs(second)) {
                assert_ne!(resize.to, target, "nothing holds it");
                target = resize.to;
                sizes.push((second, target));
            }
        }
        sizes
    }

    #[test]
    fn a_step_of_load_leads_up_fast_and_down_slowly() {
        let load = |second| if second < 100 { 4_500 } else { 100 };
        let sizes = play(elastic(2, 6), load, 600);
        assert_eq!(
            sizes,
            [(10, 4), (31, 6), (144, 5), (205, 4), (266, 3), (327, 2)]
        );
    }

    #[test]
    fn what_is_not_there_is_not_used() {
        let after = |sample: ElasticSample| {
            let mut elastic = elastic(2, 8);
            (0..30).find_map(|second| elastic.look(&sample, Duration::from_secs(second)))
        };
        let quota = ElasticSample {
            quota: Some(3),
            ..sample(1000, 2)
        };
        let held = |by| ResizeReason::Load(reason(1000, GROW_OVER, Some(by)));
        let why = held(ElasticLimit::CpuQuota);
        assert_eq!(after(quota), Some(Resize { to: 3, why }));
        let memory = ElasticSample {
            memory: Some((100, 100)),
            ..sample(1000, 2)
        };
        let why = held(ElasticLimit::Memory);
        assert_eq!(after(memory), Some(Resize { to: 2, why }), "it says so");
    }

    #[test]
    fn curves_of_all_kinds_stay_in_their_range_and_rest_between_changes() {
        let mut rng = SplitMix64::new(7);
        for _ in 0..CURVES {
            let min = 1 + rng.below(4);
            let max = min + rng.below(8);
            let kind = rng.below(4);
            let (base, swing) = (u64::from(rng.below(9_000)), u64::from(rng.below(6_000)));
            let (period, noise) = (u64::from(20 + rng.below(200)), rng.next_u64());
            let load = |second: u64| match kind {
                0 => base,
                1 => {
                    base + if (second / period).is_multiple_of(2) {
                        swing
                    } else {
                        0
                    }
                }
                2 => base + swing * (second % period) / period,
                _ => base + SplitMix64::new(noise ^ second).next_u64() % (swing + 1),
            };
            let sizes = play(elastic(min, max), load, 400);
            for pair in sizes.windows(2) {
                assert!(pair[1].0 >= pair[0].0 + PAUSE.as_secs(), "{sizes:?}");
            }
            assert!(
                sizes.iter().all(|(_, size)| (min..=max).contains(size)),
                "{sizes:?}"
            );
            if kind == 0 {
                let rises = sizes
                    .windows(2)
                    .filter(|pair| pair[1].1 > pair[0].1)
                    .count();
                assert!(
                    rises == 0 || rises + 1 == sizes.len(),
                    "it oscillates: {sizes:?}"
                );
            }
        }
    }
}
