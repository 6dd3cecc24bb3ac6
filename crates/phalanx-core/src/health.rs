//! How well a worker answers, in numbers, and the judgement of a canary by them.
//!
//! A worker counts its finished responses while it is asked to. What it sends are sums since then, so
//! a report that is lost costs nothing. [`judge`] is pure: counts in, finding out.
//!
//! The limits of [`judge`] are made for a watch of a minute on a server of some load: they want enough
//! answers before they say anything, and a difference that people would call one.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Response times are counted in classes: four to each power of two of microseconds, so that a
/// quantile is at most a quarter too long. The last class is for half an hour and more.
pub const LATENCY_CLASSES: usize = 120;

/// Below this many answers of the canary nothing is said about their kind.
const ENOUGH_ANSWERS: u64 = 20;
/// So many server errors of the canary may be anything.
const FEW_ERRORS: u64 = 4;
/// A canary's share of errors is bad beyond twice that of the others and so many percent more.
const MORE_ERRORS_PERCENT: u64 = 5;
/// Below this many answers, of the canary or of the others, nothing is said about their speed.
const ENOUGH_TIMES: u64 = 200;
/// A canary's 99th percentile is bad beyond twice that of the others and this much more.
const MORE_TIME: Duration = Duration::from_millis(20);

/// Finished responses of a worker, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// All of them.
    pub requests: u64,
    /// Those with a status of 500 or more.
    pub server_errors: u64,
    /// Their times.
    pub latency: Latency,
    /// The sum of their times, in microseconds.
    pub time_us: u64,
    /// Connections that are open now; none where the worker does not say.
    pub open: Option<u32>,
}

/// Response times, counted in classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Counts by class, as far as there are any.
    counts: Vec<u64>,
}

/// What is told of a [`Health`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HealthSummary {
    /// Workers that it is of.
    pub workers: u32,
    /// Those of them that report figures.
    pub reporting: u32,
    /// Finished responses.
    pub requests: u64,
    /// Those with a status of 500 or more.
    pub server_errors: u64,
    /// The 99th percentile of their times, in microseconds; none without any.
    pub p99_us: Option<u64>,
}

impl HealthSummary {
    /// Are there enough answers to say anything about their kind?
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.requests >= ENOUGH_ANSWERS
    }
}

/// What is wrong with a canary. Displays as what follows "worker 3 at position 1".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum Finding {
    /// Too many server errors.
    ServerErrors {
        /// Those of the canary.
        canary: Share,
        /// Those of the others.
        others: Share,
    },
    /// Too slow.
    Slow {
        /// The canary's 99th percentile, in microseconds.
        canary_p99_us: u64,
        /// That of the others.
        others_p99_us: u64,
    },
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Server errors.
    pub errors: u64,
    /// Answers.
    pub requests: u64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.errors, self.requests)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerErrors { canary, others } => write!(
                f,
                "answered {canary} requests with a server error, the others {others}"
            ),
            Self::Slow {
                canary_p99_us,
                others_p99_us,
            } => write!(
                f,
                "is slow: its 99th percentile is {:.1?}, that of the others {:.1?}",
                Duration::from_micros(*canary_p99_us),
                Duration::from_micros(*others_p99_us)
            ),
        }
    }
}

/// The class of a response time.
#[must_use]
pub fn latency_class(time: Duration) -> usize {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let micros = micros.min((1 << 31) - 1);
    if micros < 4 {
        return micros as usize;
    }
    let power = micros.ilog2();
    (4 * (power - 1) + ((micros >> (power - 2)) & 3)) as usize
}

/// The time below which those of a class are.
fn upper_end(class: usize) -> Duration {
    let class = u64::try_from(class).unwrap_or(u64::MAX);
    if class < 4 {
        return Duration::from_micros(class + 1);
    }
    let shift = u32::try_from(class / 4 - 1).unwrap_or(0).min(58);
    Duration::from_micros((class % 4 + 5) << shift)
}

impl Latency {
    /// From pairs of class and count, as a worker sends them. What is out of range is left out.
    #[must_use]
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut latency = Self::default();
        for (class, count) in pairs {
            if let Ok(class) = usize::try_from(class) {
                latency.add(class, count);
            }
        }
        latency
    }

    /// The pairs of class and count, where there is a count.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.counts.iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0)
    }

    fn add(&mut self, class: usize, count: u64) {
        if class >= LATENCY_CLASSES {
            return;
        }
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0);
        }
        self.counts[class] = self.counts[class].saturating_add(count);
    }

    /// How many times there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many took no longer than a power of two of microseconds, for each of these powers (2 or more).
    pub fn below_powers(&self, powers: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = u64> {
        powers.map(|power| {
            // The first class beyond 2^power µs: classes hold what is shorter than their end.
            let classes = usize::try_from(4 * (power.max(2) - 1)).unwrap_or(usize::MAX);
            let counts = self.counts.iter().take(classes);
            counts.fold(0, |sum: u64, count| sum.saturating_add(*count))
        })
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |class: usize| earlier.counts.get(class).copied().unwrap_or(0);
        let counts = self.counts.iter().enumerate();
        Self {
            counts: counts
                .map(|(class, count)| count.saturating_sub(before(class)))
                .collect(),
        }
    }

    /// The time that so many of a hundred responses did not exceed; none without any.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let all = self.count();
        let rank = all.saturating_mul(percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0_u64;
        let class = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= rank
        })?;
        Some(upper_end(class))
    }
}

impl Health {
    /// Counts a finished response.
    pub fn record(&mut self, is_server_error: bool, time: Duration) {
        self.requests = self.requests.saturating_add(1);
        self.server_errors = self
            .server_errors
            .saturating_add(u64::from(is_server_error));
        self.latency.add(latency_class(time), 1);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.time_us = self.time_us.saturating_add(micros);
    }

    /// What was counted since `earlier`, of the same worker.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            latency: self.latency.since(&earlier.latency),
            time_us: self.time_us.saturating_sub(earlier.time_us),
            open: self.open,
        }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.server_errors = self.server_errors.saturating_add(other.server_errors);
        for (class, count) in other.latency.pairs() {
            self.latency.add(class, count);
        }
        self.time_us = self.time_us.saturating_add(other.time_us);
        self.open = match (self.open, other.open) {
            (Some(one), Some(another)) => Some(one.saturating_add(another)),
            (one, another) => one.or(another),
        };
    }

    fn share(&self) -> Share {
        Share {
            errors: self.server_errors.min(self.requests),
            requests: self.requests,
        }
    }

    /// The 99th percentile in microseconds.
    #[must_use]
    pub fn p99_us(&self) -> Option<u64> {
        let p99 = self.latency.percentile(99)?;
        u64::try_from(p99.as_micros()).ok()
    }
}

/// Judges a canary by what the others do at the same time. `at_the_end` of the watch its speed counts
/// too: the first answers of a young worker are always slow.
///
/// Server errors are bad when the canary has at least 20 answers and more than 4 errors, and their
/// share is more than twice that of the others and 5 percentage points above it. (The others count as
/// free of errors as long as they have fewer than 20 answers.) It is slow when both have at least 200
/// answers, and its 99th percentile is more than twice that of the others and 20 ms above it.
#[must_use]
pub fn judge(canary: &Health, others: &Health, at_the_end: bool) -> Option<Finding> {
    has_errors(canary.share(), others.share())
        .or_else(|| at_the_end.then(|| is_slow(canary, others)).flatten())
}

fn has_errors(canary: Share, others: Share) -> Option<Finding> {
    if canary.requests < ENOUGH_ANSWERS || canary.errors <= FEW_ERRORS {
        return None;
    }
    let percent = |share: Share| u128::from(share.errors) * 100;
    // In hundredths of `canary.requests × usual.requests`, so that nothing is divided.
    let usual = if others.requests < ENOUGH_ANSWERS {
        Share {
            errors: 0,
            requests: 1,
        }
    } else {
        others
    };
    let measured = percent(canary) * u128::from(usual.requests);
    let allowed = (percent(usual) * 2
        + u128::from(MORE_ERRORS_PERCENT) * u128::from(usual.requests))
        * u128::from(canary.requests);
    (measured > allowed).then_some(Finding::ServerErrors { canary, others })
}

fn is_slow(canary: &Health, others: &Health) -> Option<Finding> {
    if canary.latency.count().min(others.latency.count()) < ENOUGH_TIMES {
        return None;
    }
    let (canary_p99_us, others_p99_us) = (canary.p99_us()?, others.p99_us()?);
    let more = u64::try_from(MORE_TIME.as_micros()).unwrap_or(u64::MAX);
    let is_bad = canary_p99_us > others_p99_us.saturating_mul(2).saturating_add(more);
    is_bad.then_some(Finding::Slow {
        canary_p99_us,
        others_p99_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(requests: u64, errors: u64, millis: u64) -> Health {
        let mut health = Health::default();
        for number in 0..requests {
            health.record(number < errors, Duration::from_millis(millis));
        }
        health
    }

    #[test]
    fn what_is_below_a_power_of_two_is_counted_exactly() {
        let mut latency = Latency::default();
        for micros in [0, 3, 4, 511, 512, 1_023, 1_024, 1 << 30] {
            latency.add(latency_class(Duration::from_micros(micros)), 1);
        }
        let below: Vec<u64> = latency.below_powers(9..=11).collect();
        assert_eq!(below, [4, 6, 7]);
        assert_eq!(latency.since(&latency).count(), 0);
    }

    #[test]
    fn classes_and_their_ends_agree() {
        for micros in (0..5_000).chain([1 << 20, (1 << 31) - 1, 1 << 40]) {
            let time = Duration::from_micros(micros);
            let class = latency_class(time);
            assert!(class < LATENCY_CLASSES, "{micros}");
            let capped = time.min(Duration::from_micros((1 << 31) - 1));
            assert!(capped < upper_end(class), "{micros}");
            assert!(class == 0 || capped >= upper_end(class - 1), "{micros}");
        }
    }

    #[test]
    fn a_percentile_is_at_most_a_quarter_too_long() {
        let mut health = Health::default();
        for millis in 1..=100 {
            health.record(false, Duration::from_millis(millis));
        }
        let p99 = health.latency.percentile(99).unwrap();
        assert!(
            p99 >= Duration::from_millis(99) && p99 <= Duration::from_millis(124),
            "{p99:?}"
        );
        assert_eq!(Latency::default().percentile(99), None);
    }

    #[test]
    fn what_a_worker_sends_is_what_it_counted() {
        let counted = health(50, 0, 3);
        let pairs = counted
            .latency
            .pairs()
            .map(|(class, count)| (class as u64, count));
        assert_eq!(Latency::from_pairs(pairs), counted.latency);
        assert_eq!(Latency::from_pairs([(120, 1), (u64::MAX, 1)]).count(), 0);
    }

    #[test]
    fn a_canary_that_only_fails_is_found_at_once() {
        let finding = judge(&health(20, 20, 1), &health(100, 0, 1), false).unwrap();
        let text = finding.to_string();
        assert_eq!(
            text,
            "answered 20 of 20 requests with a server error, the others 0 of 100"
        );
        assert!(judge(&health(20, 20, 1), &Health::default(), false).is_some());
    }

    #[test]
    fn a_canary_without_enough_answers_is_not_judged() {
        let of = |requests| HealthSummary {
            requests,
            ..HealthSummary::default()
        };
        assert!(!of(ENOUGH_ANSWERS - 1).is_enough());
        assert!(of(ENOUGH_ANSWERS).is_enough());
    }

    #[test]
    fn few_answers_and_few_errors_say_nothing() {
        assert_eq!(judge(&health(19, 19, 1), &health(100, 0, 1), true), None);
        assert_eq!(judge(&health(20, 4, 1), &health(100, 0, 1), true), None);
        assert_eq!(judge(&Health::default(), &health(100, 0, 1), true), None);
    }

    #[test]
    fn a_canary_may_fail_as_often_as_the_others_do() {
        assert_eq!(judge(&health(100, 40, 1), &health(100, 30, 1), true), None);
        assert_eq!(
            judge(&health(100, 100, 1), &health(100, 100, 1), true),
            None
        );
        assert!(judge(&health(100, 40, 1), &health(100, 10, 1), true).is_some());
        assert_eq!(judge(&health(100, 6, 1), &health(1_000, 10, 1), true), None);
        assert!(judge(&health(100, 8, 1), &health(1_000, 10, 1), true).is_some());
    }

    #[test]
    fn speed_is_judged_at_the_end_and_with_enough_answers_alone() {
        let (slow, fast) = (health(200, 0, 100), health(200, 0, 10));
        assert_eq!(judge(&slow, &fast, false), None);
        assert!(matches!(
            judge(&slow, &fast, true),
            Some(Finding::Slow { .. })
        ));
        assert_eq!(judge(&health(199, 0, 100), &fast, true), None);
        assert_eq!(judge(&slow, &health(199, 0, 10), true), None);
        assert_eq!(judge(&health(200, 0, 20), &health(200, 0, 1), true), None);
    }
}
