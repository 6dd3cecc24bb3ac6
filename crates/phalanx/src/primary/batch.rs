//! Accepting in batches, for Node workers under a burst.
//!
//! An event loop of libuv from 1.45 on (Node from 20.3) takes one connection a turn from a listening
//! descriptor, so that processes that share a socket get their shares. Nobody else accepts from a slot:
//! there it only makes the loop turn once a connection, which costs a Node worker up to 40 % of its
//! time (docs/node-workers.md). So a worker in whose slot connections queue up gets duplicates (dup(2)) of the
//! slot, by its preloaded script, and takes one connection a turn from each. While nothing queues, each duplicate
//! costs an accept4(2) in vain a connection (7 µs): so they are given up again after a [`CALM`].

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::outgoing;

use super::channel::Outgoing;
use super::hub::Hub;
use super::listeners::BACKLOG;
use super::worker::Departure;

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
pub(super) struct BurstDetector {
    /// For how long connections have come without a burst, in a burst.
    calm: Option<Duration>,
    /// What the slot had received at the last look, and when that was.
    last: Option<(u64, Moment)>,
    /// Its worker was told, and may ask for duplicates, once.
    due: bool,
}

impl BurstDetector {
    /// Takes down what a slot has received and how much of it waits. Answers with what the worker has to be told.
    pub(super) fn look(&mut self, received: u64, waiting: u32, now: Moment) -> Option<bool> {
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
    pub(super) fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }
}

impl Hub {
    /// Tells workers to accept in batches from this listener, or to stop that.
    pub(super) fn tell_batches(&mut self, id: ListenerId, batches: &[(WorkerId, bool)]) {
        for &(worker, wanted) in batches {
            let Some(state) = self.workers.get_mut(&worker) else {
                continue;
            };
            let mut held = state.held.iter();
            let key = held.find(|(_, held)| held.listener == id);
            if let (Some((key, _)), Some(channel)) = (key, state.channel.as_mut()) {
                let what = if wanted { "to" } else { "no longer to" };
                tracing::debug!(worker = worker.0, "is told {what} accept in batches");
                let number = channel.next_seq();
                channel.queue(Outgoing {
                    bytes: outgoing::batch(key, wanted, number),
                    handle: None,
                });
            }
        }
    }

    /// A worker that was told of a burst asks for duplicates of its slot.
    pub(super) fn duplicates_asked(&mut self, worker: WorkerId, key: &str, count: u32) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if state.cell.departure() != Departure::None {
            return;
        }
        let position = state.cell.position();
        let Some(held) = state.held.get(key) else {
            return;
        };
        let listener = self.listeners.get_mut(&held.listener);
        let slots = listener.and_then(|listener| listener.slots.as_mut());
        let Some(slot) = slots.and_then(|slots| slots.duplicates_due(position, worker)) else {
            return;
        };
        // The same as that of the worker's own listen(2): the last one counts.
        let backlog = held.request.backlog.unwrap_or(BACKLOG);
        for _ in 0..count {
            self.answer(worker, |number| Outgoing {
                bytes: outgoing::duplicate(key, backlog, number),
                handle: Some(Arc::clone(&slot)),
            });
        }
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
