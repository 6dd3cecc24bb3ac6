//! Where a worker stands towards connections: one state, whose data is in its variant.
//!
//! A worker starts, is ready, leaves, is cut off and gone, in this order; it may skip any of them, and goes back to
//! none. Beside that stands how hard it was told to end, which only grows.

use serde::{Deserialize, Serialize};

use crate::ids::ExitStatus;

/// Why a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "it was asked, or it was not")]
pub enum Departure {
    /// It was asked to.
    Asked,
    /// It said that it wants to.
    OwnWish,
}

/// Whether a worker that serves may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "it may, or it may not yet")]
pub enum Admission {
    /// It gets no connections yet: it is to live for a while first.
    HeldBack,
    /// It gets its share.
    Open,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has to be thought of")]
pub enum Standing {
    /// It does not hold yet what it owes.
    Starting {
        /// Whether it may be chosen.
        admission: Admission,
    },
    /// It has proven that it serves.
    Ready {
        /// Whether it may be chosen.
        admission: Admission,
    },
    /// It gets nothing new, and finishes what it has.
    Leaving {
        /// Why it leaves.
        why: Departure,
        /// Whether it had been ready.
        was_ready: bool,
    },
    /// Its channel is closed, or its process has ended; its exit was not seen yet.
    CutOff {
        /// Why it leaves, if it left before.
        why: Option<Departure>,
        /// Whether it had been ready.
        was_ready: bool,
    },
    /// Its process is gone.
    Gone {
        /// Why it left, if it had.
        why: Option<Departure>,
        /// Whether it had been ready.
        was_ready: bool,
        /// How it ended.
        status: ExitStatus,
    },
}

/// How hard a worker was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "each is harder than the one before"
)]
pub enum Ending {
    /// Not at all.
    Unasked,
    /// It was sent its stop signal.
    Stopped,
    /// It is killed, with everything that it has started.
    Killed,
}

/// By what a worker is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the runtime sends both")]
pub enum StopWord {
    /// By its own stop signal.
    First,
    /// By TERM: its time to finish is over.
    Again,
}

/// A worker, as far as connections are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    standing: Standing,
    ending: Ending,
}

impl Worker {
    /// One that was started just now.
    #[must_use]
    pub fn new(admission: Admission) -> Self {
        Self {
            standing: Standing::Starting { admission },
            ending: Ending::Unasked,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// It is held back no longer.
    pub fn admit(&mut self) {
        match &mut self.standing {
            Standing::Starting { admission } | Standing::Ready { admission } => {
                *admission = Admission::Open;
            }
            Standing::Leaving { .. } | Standing::CutOff { .. } | Standing::Gone { .. } => {}
        }
    }

    /// It holds what it owes, or is waited for no longer.
    pub fn become_ready(&mut self) {
        match &mut self.standing {
            Standing::Starting { admission } => {
                self.standing = Standing::Ready {
                    admission: *admission,
                };
            }
            Standing::Leaving { was_ready, .. } | Standing::CutOff { was_ready, .. } => {
                *was_ready = true;
            }
            Standing::Ready { .. } | Standing::Gone { .. } => {}
        }
    }

    /// It leaves. False when it was leaving already, or is gone.
    pub fn leave(&mut self, why: Departure) -> bool {
        let was_ready = self.is_ready();
        match &mut self.standing {
            Standing::Starting { .. } | Standing::Ready { .. } => {
                self.standing = Standing::Leaving { why, was_ready };
                true
            }
            Standing::CutOff {
                why: before @ None, ..
            } => {
                *before = Some(why);
                true
            }
            Standing::Leaving { .. } | Standing::CutOff { .. } | Standing::Gone { .. } => false,
        }
    }

    /// Its channel is closed, or its process has ended. False when that was known.
    pub fn cut_off(&mut self) -> bool {
        if !self.is_connected() {
            return false;
        }
        self.standing = Standing::CutOff {
            why: self.departure(),
            was_ready: self.is_ready(),
        };
        true
    }

    /// Its process is gone. True when it left as asked, or by its own wish.
    pub fn exit(&mut self, status: ExitStatus) -> bool {
        let why = self.departure();
        if self.exit_status().is_none() {
            self.standing = Standing::Gone {
                why,
                was_ready: self.is_ready(),
                status,
            };
        }
        why.is_some()
    }

    /// It is told to stop; by what tells how often it was.
    pub fn stop(&mut self) -> StopWord {
        let word = match self.ending {
            Ending::Unasked => StopWord::First,
            Ending::Stopped | Ending::Killed => StopWord::Again,
        };
        self.ending = self.ending.max(Ending::Stopped);
        word
    }

    /// It is killed, with everything that it has started.
    pub fn kill(&mut self) {
        self.ending = Ending::Killed;
    }

    /// How hard it was told to end.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether it may be chosen for connections, once it listens.
    #[must_use]
    pub fn takes_part(&self) -> bool {
        match self.standing {
            Standing::Starting { admission } | Standing::Ready { admission } => {
                admission == Admission::Open
            }
            Standing::CutOff { .. } | Standing::Leaving { .. } | Standing::Gone { .. } => false,
        }
    }

    /// Whether it has proven that it serves, now or before it left.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.standing {
            Standing::Starting { .. } => false,
            Standing::Ready { .. } => true,
            Standing::Leaving { was_ready, .. }
            | Standing::CutOff { was_ready, .. }
            | Standing::Gone { was_ready, .. } => was_ready,
        }
    }

    /// Whether it belongs to the cluster: its channel is open, or it never had one and lives.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match self.standing {
            Standing::Starting { .. } | Standing::Ready { .. } | Standing::Leaving { .. } => true,
            Standing::CutOff { .. } | Standing::Gone { .. } => false,
        }
    }

    /// Why it leaves, if it does.
    #[must_use]
    pub fn departure(&self) -> Option<Departure> {
        match self.standing {
            Standing::Starting { .. } | Standing::Ready { .. } => None,
            Standing::Leaving { why, .. } => Some(why),
            Standing::CutOff { why, .. } | Standing::Gone { why, .. } => why,
        }
    }

    /// How its process ended; nothing while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match self.standing {
            Standing::Gone { status, .. } => Some(status),
            Standing::Starting { .. }
            | Standing::Ready { .. }
            | Standing::Leaving { .. }
            | Standing::CutOff { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    const DONE: ExitStatus = ExitStatus::Code(0);

    #[test]
    fn one_that_is_held_back_is_not_chosen_before_it_is_admitted() {
        let mut worker = Worker::new(Admission::HeldBack);
        worker.become_ready();
        assert!(worker.is_ready() && !worker.takes_part());
        worker.admit();
        assert!(worker.takes_part());
    }

    #[test]
    fn nobody_leaves_twice_and_the_first_reason_counts() {
        for first in [Departure::Asked, Departure::OwnWish] {
            let mut worker = Worker::new(Admission::Open);
            assert!(worker.leave(first));
            assert!(!worker.leave(Departure::Asked) && !worker.leave(Departure::OwnWish));
            assert_eq!(worker.departure(), Some(first));
            assert!(!worker.takes_part() && worker.is_connected());
            assert!(worker.cut_off() && !worker.cut_off());
            assert!(worker.exit(DONE));
            assert!(!worker.leave(Departure::Asked));
            assert_eq!(worker.departure(), Some(first));
        }
    }

    #[test]
    fn who_says_after_its_channel_has_closed_that_it_leaves_leaves_by_its_own_wish() {
        let mut worker = Worker::new(Admission::Open);
        worker.become_ready();
        assert!(worker.cut_off());
        assert!(worker.leave(Departure::OwnWish));
        assert!(worker.exit(DONE));
    }

    #[test]
    fn a_crash_is_no_departure() {
        let mut worker = Worker::new(Admission::Open);
        assert!(!worker.exit(ExitStatus::Signal(11)));
        assert_eq!(worker.departure(), None);
        assert_eq!(worker.exit_status(), Some(ExitStatus::Signal(11)));
        worker.exit(DONE);
        assert_eq!(worker.exit_status(), Some(ExitStatus::Signal(11)));
    }

    #[test]
    fn the_second_word_to_stop_is_another_and_a_kill_is_not_taken_back() {
        let mut worker = Worker::new(Admission::Open);
        assert_eq!(worker.stop(), StopWord::First);
        assert_eq!(worker.stop(), StopWord::Again);
        worker.kill();
        assert_eq!(worker.stop(), StopWord::Again);
        assert_eq!(worker.ending(), Ending::Killed);
    }

    fn rank(worker: Worker) -> u32 {
        match worker.standing {
            Standing::Starting { .. } => 0,
            Standing::Ready { .. } => 1,
            Standing::Leaving { .. } => 2,
            Standing::CutOff { .. } => 3,
            Standing::Gone { .. } => 4,
        }
    }

    fn happens(worker: &mut Worker, what: u64) {
        match what % 8 {
            0 => worker.admit(),
            1 => worker.become_ready(),
            2 => drop(worker.leave(Departure::Asked)),
            3 => drop(worker.leave(Departure::OwnWish)),
            4 => drop(worker.cut_off()),
            5 => drop(worker.exit(DONE)),
            6 => drop(worker.stop()),
            _ => worker.kill(),
        }
    }

    #[test]
    fn whatever_happens_a_worker_goes_back_to_nothing_and_survives_being_written_down() {
        for seed in 0..2_000 {
            let mut rng = SplitMix64::new(seed);
            let admission = if rng.next_u64().is_multiple_of(2) {
                Admission::Open
            } else {
                Admission::HeldBack
            };
            let mut worker = Worker::new(admission);
            for _ in 0..20 {
                let before = worker;
                happens(&mut worker, rng.next_u64() >> 8);
                assert!(rank(worker) >= rank(before), "{before:?} {worker:?}");
                assert!(worker.ending >= before.ending);
                assert!(worker.is_ready() >= before.is_ready());
                assert!(before.departure().is_none() || worker.departure() == before.departure());
                assert!(before.takes_part() || rank(before) < 2 || !worker.takes_part());
                assert!(!worker.takes_part() || worker.departure().is_none());
                let text = serde_json::to_string(&worker).unwrap();
                assert_eq!(serde_json::from_str::<Worker>(&text).unwrap(), worker);
            }
        }
    }
}
