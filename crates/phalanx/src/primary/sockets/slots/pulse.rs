//! What is seen of one slot's queue from look to look, and whether its holder is stuck.

use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::liveness::{Finding, Limits, Liveness, Progress};
use tokio::net::TcpStream;

/// So long after the last connection that was counted for a slot its queue is looked at each time: a handshake may go on still.
const ARRIVING: Duration = Duration::from_secs(2);
/// A slot for which nothing comes is looked at so often nevertheless: a handshake may take longer.
const RESTING: Duration = Duration::from_secs(1);

/// Whether the holder of a slot is stuck.
#[derive(Debug)]
pub(super) struct Pulse {
    pub(super) liveness: Liveness,
    /// Connections of the primary's own that were put into the slot.
    pub(super) tried: u64,
    /// The last of them, until it was taken.
    pub(super) trial: Option<TcpStream>,
    /// One is being made.
    pub(super) is_prepared: bool,
    /// None can be made: clients are what it is tried with.
    pub(super) by_clients: bool,
    /// What waited at the last look, and how often it had become less; where nobody counts what a slot receives.
    waited: u32,
    taken: u64,
    /// What the slot had received at the last look, and since when it is that.
    received: Option<(u64, Moment)>,
    /// When its queue was looked at last.
    looked_at: Option<Moment>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            liveness: Liveness::new(Limits::CONNECTIONS),
            tried: 0,
            trial: None,
            is_prepared: false,
            by_clients: false,
            waited: 0,
            taken: 0,
            received: None,
            looked_at: None,
        }
    }

    /// Whether nothing can have come since the queue was found empty. Then the system need not be asked: most slots of most
    /// apps are like that most of the time.
    pub(super) fn rests(&mut self, received: Option<u64>, now: Moment) -> bool {
        // Where nobody counts what comes, only the queue tells.
        let Some(received) = received else {
            return false;
        };
        let since = match self.received {
            Some((before, since)) if before == received => since,
            Some(_) | None => now,
        };
        self.received = Some((received, since));
        let is_calm = self.waited == 0 && self.trial.is_none() && !self.liveness.is_stuck();
        let was_looked_at = self.looked_at.is_some_and(|at| now.since(at) < RESTING);
        let rests = is_calm && was_looked_at && now.since(since) >= ARRIVING;
        if !rests {
            self.looked_at = Some(now);
        }
        rests
    }

    /// What is seen, given what the slot has received and how much of it waits.
    pub(super) fn progress(&mut self, received: Option<u64>, waiting: u32) -> Progress {
        self.taken += u64::from(waiting < self.waited);
        self.waited = waiting;
        let taken = match received {
            Some(received) => (received + self.tried).saturating_sub(u64::from(waiting)),
            None => self.taken,
        };
        Progress { taken, waiting }
    }

    /// Is it to be tried, with nothing to try it with? What waits already is trial enough.
    pub(super) fn wants_trial(&self) -> bool {
        let has_one = self.waited > 0 || self.trial.is_some() || self.is_prepared;
        self.liveness.is_tried() && !self.by_clients && !has_one
    }

    pub(super) fn follow(&mut self, finding: Option<Finding>) {
        match finding {
            Some(Finding::Recovered { .. }) => {
                self.trial = None;
                self.by_clients = false;
            }
            Some(Finding::Failed) => self.by_clients = false,
            Some(Finding::Stuck | Finding::Try) | None => {}
        }
    }

    /// What had waited has moved to other slots, a trial among it: that was not progress.
    pub(super) fn moved(&mut self, received: Option<u64>, waiting: u32) {
        let progress = self.progress(received, waiting);
        self.liveness.rebase(progress.taken);
        self.trial = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(250);

    /// At which of so many looks the queue is looked at, where so much was received by then and nothing waits.
    fn looks(received: impl Fn(u32) -> Option<u64>, count: u32) -> Vec<u32> {
        let mut pulse = Pulse::new();
        let begun = Moment::default();
        let mut looked = |at: &u32| !pulse.rests(received(*at), begun + LOOK * *at);
        (0..count).filter(|at| looked(at)).collect()
    }

    #[test]
    fn a_slot_for_which_nothing_comes_is_looked_at_once_a_second() {
        let found = looks(|_| Some(7), 24);
        assert_eq!(found[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(found[8..], [11, 15, 19, 23]);
    }

    #[test]
    fn a_slot_that_gets_something_is_looked_at_each_time_again() {
        let found = looks(|at| Some(u64::from(at >= 16)), 28);
        assert!((16..24).all(|at| found.contains(&at)), "{found:?}");
        assert!(!found.contains(&25), "{found:?}");
    }

    #[test]
    fn a_queue_of_which_nobody_counts_what_comes_is_looked_at_each_time() {
        assert_eq!(looks(|_| None, 40).len(), 40);
    }

    #[test]
    fn a_slot_in_which_something_waits_does_not_rest() {
        let mut pulse = Pulse::new();
        let late = Moment::default() + ARRIVING * 4;
        assert!(!pulse.rests(Some(1), Moment::default()));
        pulse.progress(Some(1), 1);
        assert!(!pulse.rests(Some(1), late) && !pulse.rests(Some(1), late));
        pulse.progress(Some(1), 0);
        assert!(pulse.rests(Some(1), late));
    }
}
