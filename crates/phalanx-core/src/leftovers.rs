//! What a worker leaves behind: processes of its tree that outlive it. They are asked to end, and killed when they
//! have not ended in time. As long as one lives, the exit of the worker is not told: whoever follows it finds
//! neither its port nor its clients taken.

use std::time::Duration;

/// How long the rest of a worker that was not asked to end may take: its position is empty meanwhile.
const UNASKED_GRACE: Duration = Duration::from_secs(1);
/// How often those that were killed are looked for, and killed again: some start others on their way.
const KILL_INTERVAL: Duration = Duration::from_millis(50);
/// How long they are killed. What lives then may not be signalled, or is stuck in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How a worker ended whose tree lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a worker ends in one of these ways"
)]
pub enum Ended {
    /// It was asked to, or wanted to: the rest has the time that a worker has.
    Asked,
    /// It crashed.
    Unasked,
    /// It was killed: so is the rest.
    Killed,
}

/// What is to be done about the rest of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever carries it out has to know all"
)]
pub enum Next {
    /// Nothing: all are gone.
    Done,
    /// Ask those to end that were not asked yet, and look again when some end, and at this time.
    Ask {
        /// When to look again at the latest.
        until: Duration,
    },
    /// Kill them, and look again when they ended, and at this time.
    Kill {
        /// When to look again at the latest.
        until: Duration,
    },
    /// Say that they cannot be ended.
    GiveUp,
}

/// The limits of one tree. Times are since an arbitrary start.
#[derive(Clone, Copy, Debug)]
pub struct Leftovers {
    kill_at: Duration,
    gives_up_at: Duration,
}

impl Leftovers {
    /// The worker itself has ended at `now`; `kill_timeout` is how long one may take after its stop signal.
    #[must_use]
    pub fn new(ended: Ended, kill_timeout: Duration, now: Duration) -> Self {
        let grace = match ended {
            Ended::Asked => kill_timeout,
            Ended::Unasked => kill_timeout.min(UNASKED_GRACE),
            Ended::Killed => Duration::ZERO,
        };
        let kill_at = now.saturating_add(grace);
        Self {
            kill_at,
            gives_up_at: kill_at.saturating_add(KILL_LIMIT),
        }
    }

    /// The worker was to be killed meanwhile: so is the rest, from now on.
    pub fn hurry(&mut self, now: Duration) {
        if now < self.kill_at {
            self.kill_at = now;
            self.gives_up_at = now.saturating_add(KILL_LIMIT);
        }
    }

    /// What to do about the `left` that live at `now`.
    #[must_use]
    pub fn next(&self, left: usize, now: Duration) -> Next {
        if left == 0 {
            Next::Done
        } else if now < self.kill_at {
            Next::Ask {
                until: self.kill_at,
            }
        } else if now < self.gives_up_at {
            Next::Kill {
                until: now.saturating_add(KILL_INTERVAL),
            }
        } else {
            Next::GiveUp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL_TIMEOUT: Duration = Duration::from_secs(5);

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_rest_of_a_worker_that_was_asked_has_the_time_of_a_worker() {
        let rest = Leftovers::new(Ended::Asked, KILL_TIMEOUT, at(10));
        assert_eq!(rest.next(2, at(10)), Next::Ask { until: at(15) });
        assert_eq!(rest.next(0, at(11)), Next::Done);
        assert!(matches!(rest.next(1, at(15)), Next::Kill { .. }));
    }

    #[test]
    fn the_rest_of_one_that_crashed_holds_its_position_up_for_a_second_at_most() {
        let rest = Leftovers::new(Ended::Unasked, KILL_TIMEOUT, at(10));
        assert_eq!(rest.next(1, at(10)), Next::Ask { until: at(11) });
        let short = Leftovers::new(Ended::Unasked, Duration::ZERO, at(10));
        assert!(matches!(short.next(1, at(10)), Next::Kill { .. }));
    }

    #[test]
    fn the_rest_of_one_that_was_killed_is_killed() {
        let rest = Leftovers::new(Ended::Killed, KILL_TIMEOUT, at(10));
        assert!(matches!(rest.next(1, at(10)), Next::Kill { .. }));
    }

    #[test]
    fn a_kill_hurries_and_never_delays() {
        let mut rest = Leftovers::new(Ended::Asked, KILL_TIMEOUT, at(10));
        rest.hurry(at(11));
        assert!(matches!(rest.next(1, at(11)), Next::Kill { .. }));
        rest.hurry(at(15));
        assert_eq!(rest.next(1, at(16)), Next::GiveUp);
    }

    #[test]
    fn killing_is_repeated_and_given_up() {
        let rest = Leftovers::new(Ended::Killed, KILL_TIMEOUT, at(10));
        let until = at(12) + KILL_INTERVAL;
        assert_eq!(rest.next(1, at(12)), Next::Kill { until });
        assert_eq!(rest.next(1, at(15)), Next::GiveUp);
        assert_eq!(rest.next(0, at(15)), Next::Done);
    }
}
