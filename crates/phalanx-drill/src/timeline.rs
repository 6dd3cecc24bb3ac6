//! What happened when: answers, losses and latencies in spans of time of equal length.
//!
//! A drill of any length needs the same room: when there are too many spans, neighbours are put together.

use std::time::Duration;

use super::histogram::Histogram;

/// The length of a span at the beginning.
const SHORTEST_SPAN: Duration = Duration::from_millis(100);
/// Spans kept; put together two by two when there would be more.
const MOST_SPANS: usize = 600;

/// One span of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub(super) answered: u64,
    pub(super) lost: u64,
    pub(super) latency: Histogram,
}

/// The spans from the start on.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    span: Duration,
    spans: Vec<Span>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            span: SHORTEST_SPAN,
            spans: Vec::new(),
        }
    }
}

impl Timeline {
    /// An answer at this moment since the start; with its latency, if that was measured.
    pub(super) fn answered(&mut self, at: Duration, latency: Option<Duration>) {
        let span = self.span_at(at);
        span.answered += 1;
        if let Some(latency) = latency {
            span.latency.add(latency);
        }
    }

    pub(super) fn lost(&mut self, at: Duration) {
        self.span_at(at).lost += 1;
    }

    /// The spans, each with its beginning.
    pub(super) fn spans(&self) -> impl Iterator<Item = (Duration, &Span)> {
        let starts = (0_u32..).map(|index| self.span * index);
        starts.zip(&self.spans)
    }

    /// The length of one span.
    pub(super) fn span(&self) -> Duration {
        self.span
    }

    fn span_at(&mut self, at: Duration) -> &mut Span {
        let mut index = self.index(at);
        while index >= MOST_SPANS {
            self.halve();
            index = self.index(at);
        }
        if self.spans.len() <= index {
            self.spans.resize_with(index + 1, Span::default);
        }
        &mut self.spans[index]
    }

    fn index(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.span.as_nanos()).unwrap_or(usize::MAX)
    }

    fn halve(&mut self) {
        let together = |pair: &[Span]| {
            let mut sum = Span::default();
            for span in pair {
                sum.answered += span.answered;
                sum.lost += span.lost;
                sum.latency.merge(&span.latency);
            }
            sum
        };
        self.spans = self.spans.chunks(2).map(together).collect();
        self.span *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_drill_is_kept_in_as_few_spans_and_nothing_is_forgotten() {
        let mut timeline = Timeline::default();
        let latency = Duration::from_millis(3);
        for second in 0..3_000 {
            timeline.answered(Duration::from_secs(second), Some(latency));
            timeline.lost(Duration::from_secs(second));
        }
        let spans: Vec<_> = timeline.spans().collect();
        assert!(spans.len() <= MOST_SPANS, "{}", spans.len());
        assert_eq!(
            spans.iter().map(|(_, span)| span.answered).sum::<u64>(),
            3_000
        );
        assert_eq!(spans.iter().map(|(_, span)| span.lost).sum::<u64>(), 3_000);
        let measured: u64 = spans.iter().map(|(_, span)| span.latency.count()).sum();
        assert_eq!(measured, 3_000);
        assert_eq!(spans[1].0, timeline.span());
        let end = timeline.span() * u32::try_from(spans.len()).unwrap();
        assert!(end >= Duration::from_secs(2_999));
    }
}
