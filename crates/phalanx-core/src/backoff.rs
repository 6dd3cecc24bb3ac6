//! How long to wait before the next try: at once, then longer each time, up to a cap.
//!
//! A [`Backoff`] counts the failures of one position. It has no clock: the caller says how long the
//! last run was ready, and a stable run makes the past forgotten. Jitter spreads the tries of a
//! fleet that failed as one.
//!
//! INVARIANT: no delay exceeds the cap, and nothing here ever says "give up".

use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::rng::SplitMix64;

/// Part of a delay by which jitter may lengthen or shorten it, in percent.
const JITTER_PERCENT: u32 = 20;

/// The bounds of the waiting times. Made by [`BackoffConfig::new`], which checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackoffConfig {
    first_delay: Duration,
    max_delay: Duration,
    stable_after: Duration,
}

/// Why a [`BackoffConfig`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackoffError {
    /// Doubling nothing gives nothing: a crash loop would spin.
    #[error("the first delay of the backoff must be above zero")]
    ZeroFirstDelay,
    /// The cap lies below where the delays start.
    #[error("the backoff's longest delay is shorter than its first")]
    CapBelowFirstDelay,
    /// Every run would count as stable, so no delay would ever grow.
    #[error("the time after which a run counts as stable must be above zero")]
    ZeroStableAfter,
}

impl BackoffConfig {
    /// Waiting times that start at `first_delay`, double up to `max_delay`, and start over after a
    /// worker stayed ready for `stable_after`.
    ///
    /// # Errors
    ///
    /// A zero `first_delay` or `stable_after`, and a `max_delay` below `first_delay`, are refused.
    pub fn new(
        first_delay: Duration,
        max_delay: Duration,
        stable_after: Duration,
    ) -> Result<Self, BackoffError> {
        if first_delay.is_zero() {
            return Err(BackoffError::ZeroFirstDelay);
        }
        if max_delay < first_delay {
            return Err(BackoffError::CapBelowFirstDelay);
        }
        if stable_after.is_zero() {
            return Err(BackoffError::ZeroStableAfter);
        }
        Ok(Self {
            first_delay,
            max_delay,
            stable_after,
        })
    }

    /// The delay before the second try in a row. Default 100 ms.
    #[must_use]
    pub fn first_delay(&self) -> Duration {
        self.first_delay
    }

    /// The cap: no delay is longer. Default 30 s.
    #[must_use]
    pub fn max_delay(&self) -> Duration {
        self.max_delay
    }

    /// A run that stayed ready this long was stable. Default 10 s.
    #[must_use]
    pub fn stable_after(&self) -> Duration {
        self.stable_after
    }

    /// The delay before try `failures` + 1, without jitter; zero for the first.
    #[must_use]
    pub fn nominal_delay(&self, failures: u32) -> Duration {
        match failures {
            0 | 1 => Duration::ZERO,
            _ => self
                .first_delay
                .saturating_mul(1_u32.checked_shl(failures - 2).unwrap_or(u32::MAX))
                .min(self.max_delay),
        }
    }
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            stable_after: Duration::from_secs(10),
        }
    }
}

/// The failures in a row of one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and says how long to wait: nothing after the first one, then doubling with
    /// up to 20 % jitter either way, never more than the cap.
    pub fn record_failure(&mut self, config: &BackoffConfig, rng: &mut SplitMix64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let nominal = config.nominal_delay(self.failures);
        jittered(nominal, rng).min(config.max_delay)
    }

    /// The last failure says nothing about the program: it counts only while there were fewer than
    /// `limit`.
    pub fn excuse(&mut self, limit: u32) {
        let without = self.failures.saturating_sub(1);
        self.failures = without.max(self.failures.min(limit));
    }

    /// Forgets the past: the run was stable, or another release is to be tried.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row so far.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// True once the waiting has reached its cap.
    #[must_use]
    pub fn is_at_cap(&self, config: &BackoffConfig) -> bool {
        config.nominal_delay(self.failures) == config.max_delay
    }
}

/// `nominal` times a factor from 0.8 to 1.2, in steps of a thousandth.
fn jittered(nominal: Duration, rng: &mut SplitMix64) -> Duration {
    let span = JITTER_PERCENT * 10;
    let per_mille = 1_000 - span + rng.below(2 * span + 1);
    (nominal / 1_000).saturating_mul(per_mille)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delays(config: &BackoffConfig, seed: u64, count: u32) -> Vec<Duration> {
        let mut rng = SplitMix64::new(seed);
        let mut backoff = Backoff::default();
        (0..count)
            .map(|_| backoff.record_failure(config, &mut rng))
            .collect()
    }

    #[test]
    fn the_first_retry_is_at_once_and_the_second_waits() {
        let drawn = delays(&BackoffConfig::default(), 1, 2);
        assert_eq!(drawn[0], Duration::ZERO);
        assert!(drawn[1] >= Duration::from_millis(80) && drawn[1] <= Duration::from_millis(120));
    }

    #[test]
    fn nominal_delays_double_up_to_the_cap() {
        let config = BackoffConfig::default();
        let nominal: Vec<u128> = (0..13)
            .map(|n| config.nominal_delay(n).as_millis())
            .collect();
        assert_eq!(
            nominal,
            [
                0, 0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        assert_eq!(config.nominal_delay(u32::MAX), config.max_delay());
    }

    #[test]
    fn a_reset_starts_over_and_leaves_the_cap() {
        let config = BackoffConfig::default();
        let mut rng = SplitMix64::new(3);
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.record_failure(&config, &mut rng);
        }
        assert!(backoff.is_at_cap(&config));
        backoff.reset();
        assert!(!backoff.is_at_cap(&config));
        assert_eq!(backoff.record_failure(&config, &mut rng), Duration::ZERO);
    }

    #[test]
    fn bounds_that_make_no_sense_are_refused() {
        let second = Duration::from_secs(1);
        let refusal = |first, cap, stable| BackoffConfig::new(first, cap, stable).unwrap_err();
        assert_eq!(
            refusal(Duration::ZERO, second, second),
            BackoffError::ZeroFirstDelay
        );
        assert_eq!(
            refusal(second * 2, second, second),
            BackoffError::CapBelowFirstDelay
        );
        assert_eq!(
            refusal(second, second, Duration::ZERO),
            BackoffError::ZeroStableAfter
        );
    }

    proptest! {
        #[test]
        fn every_delay_stays_within_twenty_percent_and_below_the_cap(
            seed: u64,
            first_ms in 1_u64..5_000,
            cap_factor in 1_u32..2_000,
            failures in 2_u32..60,
        ) {
            let first = Duration::from_millis(first_ms);
            let config = BackoffConfig::new(first, first * cap_factor, first).expect("valid");
            for (index, delay) in delays(&config, seed, failures).into_iter().enumerate() {
                let nominal = config.nominal_delay(u32::try_from(index).expect("small") + 1);
                prop_assert!(delay <= config.max_delay());
                prop_assert!(delay >= nominal.mul_f64(0.799));
                prop_assert!(delay <= nominal.mul_f64(1.201));
            }
        }

        #[test]
        fn the_same_seed_gives_the_same_delays(seed: u64) {
            let config = BackoffConfig::default();
            prop_assert_eq!(delays(&config, seed, 30), delays(&config, seed, 30));
        }
    }
}
