//! By what a listener's connections reach the workers, and when a listener ends.
//!
//! A listener belongs to the app and not to the worker that closed it last. That worker may be about to leave, and its
//! successor asks for the listener again. So it stays until the app serves without it.

use std::fmt;
use std::time::Duration;

/// How a listener's connections reach the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each is carried out in its own way"
)]
pub enum Dispatch {
    /// The primary accepts.
    Handoff,
    /// The workers accept from the same socket.
    Shared,
    /// Each worker accepts from its slot, which a program in the kernel picks.
    Kernel,
}

impl Dispatch {
    /// The word for it in flags, status and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::Shared => "shared",
            Self::Kernel => "kernel",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Handoff, Self::Shared, Self::Kernel]
            .into_iter()
            .find(|dispatch| dispatch.as_str() == name)
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What carries a listener's connections to the workers: for each dispatch what it needs, and nothing else.
///
/// The runtime says what that is: descriptors are none of this crate's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is one for each dispatch")]
pub enum Carrier<Handed, Socket, Slots> {
    /// The socket from which the primary accepts, and what it keeps for that.
    Handoff(Handed),
    /// The socket that all workers have.
    Shared(Socket),
    /// The sockets of the workers.
    Kernel(Slots),
}

impl<Handed, Socket, Slots> Carrier<Handed, Socket, Slots> {
    /// The dispatch that it is for.
    pub fn dispatch(&self) -> Dispatch {
        match self {
            Self::Handoff(_) => Dispatch::Handoff,
            Self::Shared(_) => Dispatch::Shared,
            Self::Kernel(_) => Dispatch::Kernel,
        }
    }

    /// The sockets of the workers, where each has its own.
    pub fn slots(&self) -> Option<&Slots> {
        match self {
            Self::Kernel(slots) => Some(slots),
            Self::Handoff(_) | Self::Shared(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn slots_mut(&mut self) -> Option<&mut Slots> {
        match self {
            Self::Kernel(slots) => Some(slots),
            Self::Handoff(_) | Self::Shared(_) => None,
        }
    }

    /// What the primary keeps where it accepts.
    pub fn handed_mut(&mut self) -> Option<&mut Handed> {
        match self {
            Self::Handoff(handed) => Some(handed),
            Self::Shared(_) | Self::Kernel(_) => None,
        }
    }
}

/// What a live worker is about, as far as one listener is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a worker has one of them")]
pub enum Stance {
    /// It may still ask for any listener.
    Starting,
    /// It has begun to serve, and holds this listener or does not.
    Serving {
        /// Whether it does.
        holds: bool,
    },
    /// It serves, but was waited for no longer before it had all that it owes. It may ask for the rest late.
    Late {
        /// Whether it holds this listener.
        holds: bool,
    },
    /// It leaves, and asks for nothing more.
    Leaving,
}

/// How long a listener has had no holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each is judged in its own way")]
pub enum Unheld {
    /// The fleet has settled, and nobody holds it.
    Settled {
        /// How many workers the app is to have.
        workers: u32,
    },
    /// Nobody has held it for this time.
    For {
        /// How long.
        time: Duration,
        /// How long a worker may take to leave.
        patience: Duration,
    },
}

/// Whether the app has given up a listener that nobody holds: it serves without it.
///
/// When the fleet settles, a whole generation is ready that does not ask for the listener: it closes at once. But the
/// fleet learns of an exit or a start a moment after it happens, so the workers are looked at again. At other times
/// the listener stays until the workers that serve have done without for as long as one may take to leave.
pub fn is_given_up(workers: impl IntoIterator<Item = Stance>, unheld: Unheld) -> bool {
    let (mut serves, mut is_late) = (false, false);
    for stance in workers {
        match stance {
            Stance::Starting | Stance::Serving { holds: true } | Stance::Late { holds: true } => {
                return false;
            }
            Stance::Serving { holds: false } => serves = true,
            Stance::Late { holds: false } => (serves, is_late) = (true, true),
            Stance::Leaving => {}
        }
    }
    match unheld {
        Unheld::Settled { workers: 0 } => true,
        Unheld::Settled { .. } => serves && !is_late,
        Unheld::For { time, patience } => serves && time >= patience,
    }
}

#[cfg(test)]
mod tests {
    use super::Stance::{Late, Leaving, Serving, Starting};
    use super::*;

    const HOLDS: Stance = Serving { holds: true };
    const WITHOUT: Stance = Serving { holds: false };

    fn ends(workers: &[Stance], unheld: Unheld) -> bool {
        is_given_up(workers.iter().copied(), unheld)
    }

    const SETTLED: Unheld = Unheld::Settled { workers: 2 };

    fn after(millis: u64) -> Unheld {
        Unheld::For {
            time: Duration::from_millis(millis),
            patience: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_listener_ends_when_the_app_serves_without_it() {
        assert!(ends(&[WITHOUT, WITHOUT, Leaving], after(5_000)));
        assert!(!ends(&[WITHOUT, WITHOUT], after(4_999)));
        assert!(ends(&[WITHOUT, Leaving], SETTLED));
    }

    #[test]
    fn a_listener_stays_while_somebody_holds_it_or_may_ask_for_it() {
        for unheld in [after(60_000), SETTLED] {
            assert!(!ends(&[WITHOUT, HOLDS], unheld));
            assert!(!ends(&[WITHOUT, Late { holds: true }], unheld));
            assert!(!ends(&[WITHOUT, Starting], unheld), "it may ask for it");
            assert!(!ends(&[Leaving], unheld), "a successor may ask for it");
            assert!(!ends(&[], unheld), "the next worker waits for its time");
        }
    }

    #[test]
    fn an_app_that_is_to_have_no_workers_keeps_no_listener() {
        assert!(ends(&[], Unheld::Settled { workers: 0 }));
    }

    #[test]
    fn who_is_late_has_the_time_that_a_leave_takes() {
        let late = [WITHOUT, Late { holds: false }];
        assert!(!ends(&late, SETTLED));
        assert!(!ends(&late, after(4_999)));
        assert!(ends(&late, after(5_000)));
    }
}
