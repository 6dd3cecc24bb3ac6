//! Random choices of a history, all from its seed.

use std::time::Duration;

use phalanx_core::rng::SplitMix64;

/// The random numbers of one history.
#[derive(Debug)]
pub(crate) struct Rng(SplitMix64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // The fleet's own generator starts from the bare seed; this stream must be another.
        Self(SplitMix64::new(seed ^ 0x5EED_0F00_D1CE_0000))
    }

    pub(crate) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// True in that many of a hundred throws.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.below(100) < percent
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.0.below(high - low + 1)
    }

    /// A time from `low` to `high` milliseconds.
    pub(crate) fn millis(&mut self, low: u32, high: u32) -> Duration {
        Duration::from_millis(self.between(low, high).into())
    }

    /// A time up to `limit`.
    pub(crate) fn up_to(&mut self, limit: Duration) -> Duration {
        limit * self.between(0, 1_000) / 1_000
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let last = u32::try_from(choices.len() - 1).expect("a short list");
        choices[usize::try_from(self.between(0, last)).expect("a short list")]
    }
}
