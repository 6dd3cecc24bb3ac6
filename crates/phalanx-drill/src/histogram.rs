//! Latencies, counted in buckets that are never wider than a 32nd of their value, so that a million of them
//! need no more room than one, and that two can be put together.
//!
//! Written here, where `hdrhistogram` could be: it is shorter than what adapting that takes, grows with the longest latency
//! instead of having all its room from the start, and a drill has many of them.

use std::time::Duration;

/// Buckets from one power of two to the next.
const STEPS: usize = 32;
/// Powers of two of microseconds that are told apart: up to 134 s.
const OCTAVES: usize = 22;
const BUCKETS: usize = STEPS * (OCTAVES + 1);

/// How often each latency was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    /// Grows as far as the longest latency needs.
    counts: Vec<u32>,
    count: u64,
    longest: Duration,
}

impl Histogram {
    pub(super) fn add(&mut self, latency: Duration) {
        let bucket = bucket_of(micros(latency));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.count += 1;
        self.longest = self.longest.max(latency);
    }

    /// Takes all of another one's in.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// The latency that this share of all did not exceed, in thousandths: 500 is the median. Nothing
    /// when nothing was counted.
    pub(super) fn quantile(&self, thousandths: u64) -> Option<Duration> {
        let rank = (self.count * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        bucket.map(|bucket| Duration::from_micros(upper_end(bucket)).min(self.longest))
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

/// Below [`STEPS`] each value has a bucket; from there on the leading bits decide.
fn bucket_of(value: u64) -> usize {
    let steps = STEPS as u64;
    if value < steps {
        return usize::try_from(value).unwrap_or(BUCKETS - 1);
    }
    let octave = value.ilog2() - steps.ilog2();
    let step = (value >> octave) - steps;
    let bucket = u64::from(octave + 1) * steps + step;
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn upper_end(bucket: usize) -> u64 {
    let (octave, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    if octave == 0 {
        return step;
    }
    ((STEPS as u64 + step + 1) << (octave - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.add(Duration::from_micros(value));
        }
        histogram
    }

    #[test]
    fn a_value_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut last = 0;
        for value in (0..100_000).chain([1 << 20, (1 << 26) + 17]) {
            let bucket = bucket_of(value);
            assert!(bucket >= last, "{value}");
            assert!(upper_end(bucket) >= value, "{value}");
            assert!(
                bucket == 0 || upper_end(bucket - 1) < value,
                "{value} in {bucket}"
            );
            assert!(upper_end(bucket) - value <= value / 32, "{value}");
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_values_within_a_32nd() {
        let histogram = of(1..=10_000);
        for (thousandths, expected) in [(500, 5_000), (900, 9_000), (990, 9_900), (999, 9_990)] {
            let found = histogram.quantile(thousandths).unwrap().as_micros();
            assert!(
                (expected..=expected + expected / 32).contains(&found),
                "{thousandths}: {found}"
            );
        }
        assert_eq!(histogram.quantile(1000), Some(Duration::from_millis(10)));
        assert_eq!(histogram.longest(), Duration::from_millis(10));
    }

    #[test]
    fn nothing_has_no_quantile_and_one_value_is_every_quantile() {
        assert_eq!(Histogram::default().quantile(500), None);
        let one = of([777]);
        for thousandths in [0, 1, 500, 1000] {
            assert_eq!(one.quantile(thousandths), Some(Duration::from_micros(777)));
        }
    }

    #[test]
    fn merged_histograms_are_the_histogram_of_all() {
        let mut even = of((0..5_000).map(|value| value * 2));
        let odd = of((0..6_000).map(|value| value * 2 + 1));
        let all = of((0..5_000)
            .map(|value| value * 2)
            .chain((0..6_000).map(|value| value * 2 + 1)));
        even.merge(&odd);
        assert_eq!(even, all);
    }
}
