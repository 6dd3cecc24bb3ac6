//! Whether connections come to a slot in a burst: more at once than its worker takes one by one.

use std::time::Duration;

use phalanx_core::clock::Moment;

/// So many connections wait in a slot at once when there is a burst: a batch, with one for each of the
/// script's duplicates and one for the slot itself.
const BURST_MIN: u32 = 4;
/// A burst is over when connections have come for so long and no look has found a burst. Times in which none
/// come do not count: then the duplicates cost nothing.
const CALM: Duration = Duration::from_secs(5);
/// What one look counts for at most: a slot may not have been looked at for long.
const LOOK: Duration = Duration::from_secs(1);

/// Whether the holder of a slot is in a burst.
#[derive(Debug, Default)]
pub(in crate::primary) struct BurstDetector {
    /// For how long connections have come without a burst, in a burst.
    calm: Option<Duration>,
    /// What the slot had received at the last look, and when that was.
    last: Option<(u64, Moment)>,
    /// Its worker was told, and may ask for duplicates, once.
    due: bool,
}

impl BurstDetector {
    /// Takes down what a slot has received and how much of it waits. Answers with what the worker has to be told.
    pub(in crate::primary) fn look(
        &mut self,
        received: u64,
        waiting: u32,
        now: Moment,
    ) -> Option<bool> {
        let last = self.last.replace((received, now));
        if waiting >= BURST_MIN {
            let begins = self.calm.replace(Duration::ZERO).is_none();
            self.due |= begins;
            return begins.then_some(true);
        }
        let (before, then) = last?;
        let calm = self.calm.as_mut()?;
        if received != before {
            *calm += now.since(then).min(LOOK);
        }
        if *calm < CALM {
            return None;
        }
        *self = Self::default();
        Some(false)
    }

    /// Whether duplicates may be given; they are, then.
    pub(in crate::primary) fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(500);

    /// What a burst says to looks at a slot, one a [`STEP`]: what came since the last one, and what waits.
    fn looks(burst: &mut BurstDetector, what: &[(u64, u32)]) -> Vec<Option<bool>> {
        let (mut received, mut now) = (0, Moment::default());
        let mut answers = Vec::new();
        for &(came, waiting) in what {
            received += came;
            answers.push(burst.look(received, waiting, now));
            now = now + STEP;
        }
        answers
    }

    #[test]
    fn a_burst_begins_with_a_queue_and_ends_after_a_calm() {
        let mut burst = BurstDetector::default();
        let mut what = vec![(9, BURST_MIN - 1), (9, BURST_MIN), (900, 80)];
        what.extend([(9, 0); 9]);
        what.push((90, 30));
        assert_eq!(looks(&mut burst, &what)[..3], [None, Some(true), None]);
        let answers = looks(&mut BurstDetector::default(), &what);
        assert_eq!(answers[3..], [None; 10]);
        what.extend([(1, 1); 12]);
        let answers = looks(&mut BurstDetector::default(), &what);
        let ends = [[None; 9].as_slice(), &[Some(false), None, None]].concat();
        assert_eq!(answers[13..], ends);
    }

    #[test]
    fn a_burst_outlasts_a_pause() {
        let mut burst = BurstDetector::default();
        let pause = [&[(9, BURST_MIN)], [(0, 0); 1000].as_slice()].concat();
        let answers = looks(&mut burst, &pause);
        assert_eq!(answers.iter().flatten().count(), 1);
    }

    #[test]
    fn duplicates_are_given_once_a_rush() {
        let mut burst = BurstDetector::default();
        assert!(!burst.take_due());
        looks(&mut burst, &[(9, BURST_MIN)]);
        assert!(burst.take_due());
        assert!(!burst.take_due());
        looks(&mut burst, &[(9, BURST_MIN)]);
        assert!(!burst.take_due());
        // A worker that did not ask while it lasted gets none later.
        let mut burst = BurstDetector::default();
        looks(
            &mut burst,
            &[[(9, BURST_MIN)].as_slice(), &[(1, 0); 10]].concat(),
        );
        assert!(!burst.take_due());
    }
}
