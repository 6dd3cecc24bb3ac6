//! The last samples of a figure.

use std::collections::VecDeque;

/// As wide as a terminal may be, sensibly.
const SAMPLES: usize = 240;

/// Samples, the newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    samples: VecDeque<f64>,
}

impl History {
    pub(crate) fn push(&mut self, sample: f64) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(if sample.is_finite() {
            sample.max(0.0)
        } else {
            0.0
        });
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<f64> {
        self.samples.back().copied()
    }

    /// The last samples as heights from 0 to `steps`, relative to the greatest of them. What is more than nothing is at least 1.
    pub(crate) fn heights(&self, width: usize, steps: u8) -> Vec<u8> {
        let shown = self
            .samples
            .iter()
            .skip(self.samples.len().saturating_sub(width));
        let greatest = shown
            .clone()
            .fold(0.0, |greatest: f64, sample| greatest.max(*sample));
        let height = |sample: &f64| {
            let part = if greatest > 0.0 {
                sample / greatest
            } else {
                0.0
            };
            let levels = (1..=steps).rev();
            // The level whose lower end it reaches; comparing needs no cast.
            let mut reached = levels.filter(|level| part > f64::from(level - 1) / f64::from(steps));
            reached.next().unwrap_or(0)
        };
        shown.map(height).collect()
    }
}

/// Milliseconds in seconds, at least one of a thousand.
pub(super) fn seconds(millis: u64) -> f64 {
    float(millis.max(1)) / 1000.0
}

/// A count as a number to calculate with.
pub(super) fn float(count: u64) -> f64 {
    // Beyond 4,294,967,295 of anything within a second it is not the figure that is wrong.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_relative_to_the_greatest_that_is_shown() {
        let mut history = History::default();
        for sample in [1000.0, 0.0, 1.0, 4.0, 8.0] {
            history.push(sample);
        }
        assert_eq!(history.heights(4, 8), [0, 1, 4, 8]);
        assert_eq!(history.heights(9, 8), [8, 0, 1, 1, 1]);
        assert_eq!(History::default().heights(9, 8), [0_u8; 0]);
    }

    #[test]
    fn a_history_keeps_the_last_samples_and_no_nonsense() {
        let mut history = History::default();
        for sample in 0..1000_u32 {
            history.push(f64::from(sample));
        }
        history.push(f64::NAN);
        assert_eq!(
            (history.samples.len(), history.last()),
            (SAMPLES, Some(0.0))
        );
    }
}
