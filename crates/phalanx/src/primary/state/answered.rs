//! How many requests each worker has answered, where it tells: Node workers by their preloaded script, Rust workers by
//! a [`Meter`](crate::Meter). They tell the figures of the watch over canaries, and begin anew whenever that watch does.

use std::collections::BTreeMap;

use phalanx_core::ids::WorkerId;

use crate::primary::state::Hub;

/// The counts of those that have told any.
#[derive(Debug, Default)]
pub(in crate::primary) struct Answered {
    /// Workers are asked to tell.
    pub(in crate::primary) wanted: bool,
    counts: BTreeMap<WorkerId, Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// What was told before the counting last began anew.
    before: u64,
    /// What was told last.
    last: u64,
}

impl Answered {
    pub(in crate::primary) fn told(&mut self, worker: WorkerId, requests: u64) {
        if !self.wanted {
            return;
        }
        let count = self.counts.entry(worker).or_default();
        if requests < count.last {
            count.before = count.before.saturating_add(count.last);
        }
        count.last = requests;
    }

    pub(in crate::primary) fn forget(&mut self, worker: WorkerId) {
        self.counts.remove(&worker);
    }
}

impl Hub {
    /// Has all workers count their answers, those to come too.
    pub(in crate::primary) fn count_answers(&mut self, wanted: bool) {
        self.answered.wanted = wanted;
    }

    pub(in crate::primary) fn answered(&self, worker: WorkerId) -> Option<u64> {
        let count = self.answered.counts.get(&worker)?;
        Some(count.before.saturating_add(count.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_begins_anew_goes_on() {
        let worker = WorkerId(1);
        let mut answered = Answered {
            wanted: true,
            ..Answered::default()
        };
        for requests in [5, 9, 2, 4] {
            answered.told(worker, requests);
        }
        let count = answered.counts[&worker];
        assert_eq!(count.before + count.last, 13);
    }
}
