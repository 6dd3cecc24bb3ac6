//! What workers tell while connections are rebalanced, matched with what they were asked.

use std::collections::BTreeMap;

use super::Holding;
use crate::ids::WorkerId;

/// What workers have told, and whose answer is awaited.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    told: BTreeMap<WorkerId, Holding>,
    /// The first message that asked each, and the last, where it is unanswered. A message without a number was not sent.
    first: BTreeMap<WorkerId, Option<u64>>,
    awaited: BTreeMap<WorkerId, Option<u64>>,
}

impl Answers {
    /// A worker was asked by the message of this number; by none where it could not be asked.
    pub fn asked(&mut self, worker: WorkerId, seq: Option<u64>) {
        let first = self.first.entry(worker).or_default();
        *first = first.or(seq);
        self.awaited.insert(worker, seq);
    }

    /// A worker answers the message `ack`. What answers another rebalance says nothing of this one.
    pub fn told(&mut self, holding: Holding, ack: Option<u64>) {
        let worker = holding.worker;
        let Some(&Some(first)) = self.first.get(&worker) else {
            return;
        };
        if ack.is_some_and(|ack| ack < first) {
            return;
        }
        self.told.insert(worker, holding);
        let is_the_last = |awaited: &Option<u64>| ack.is_none() || ack == *awaited;
        if self.awaited.get(&worker).is_some_and(is_the_last) {
            self.awaited.remove(&worker);
        }
    }

    /// Only these are there still.
    pub fn retain(&mut self, workers: &[WorkerId]) {
        self.told.retain(|worker, _| workers.contains(worker));
        self.first.retain(|worker, _| workers.contains(worker));
        self.awaited.retain(|worker, _| workers.contains(worker));
    }

    /// Whether somebody has not answered yet.
    #[must_use]
    pub fn are_awaited(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Whether somebody has not answered who never has.
    #[must_use]
    pub fn lack_a_first(&self) -> bool {
        self.awaited
            .keys()
            .any(|worker| !self.told.contains_key(worker))
    }

    /// What was told last.
    #[must_use]
    pub fn held(&self) -> Vec<Holding> {
        self.told.values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(worker: u32, open: u32) -> Holding {
        let (ending, fixed) = (0, 0);
        let worker = WorkerId(worker);
        Holding {
            worker,
            open,
            ending,
            fixed,
        }
    }

    #[test]
    fn what_answers_an_earlier_rebalance_is_not_taken_for_an_answer() {
        let mut answers = Answers::default();
        answers.told(told(1, 9), None);
        assert_eq!(answers.held(), [], "it was not asked");
        answers.asked(WorkerId(1), Some(7));
        answers.told(told(1, 9), Some(6));
        assert!(answers.are_awaited() && answers.lack_a_first());
        answers.told(told(1, 5), Some(7));
        assert!(!answers.are_awaited());
        answers.asked(WorkerId(1), Some(8));
        answers.told(told(1, 4), Some(7));
        assert!(answers.are_awaited() && !answers.lack_a_first());
        assert_eq!(answers.held(), [told(1, 4)], "late is better than nothing");
        answers.told(told(1, 3), None);
        assert!(!answers.are_awaited(), "an older preload says no number");
    }

    #[test]
    fn who_could_not_be_asked_is_awaited_and_who_has_gone_is_not() {
        let mut answers = Answers::default();
        answers.asked(WorkerId(1), None);
        assert!(answers.lack_a_first());
        answers.asked(WorkerId(1), Some(3));
        answers.told(told(1, 2), Some(3));
        answers.asked(WorkerId(2), Some(1));
        answers.retain(&[WorkerId(1)]);
        assert!(!answers.are_awaited());
        assert_eq!(answers.held(), [told(1, 2)]);
    }
}
