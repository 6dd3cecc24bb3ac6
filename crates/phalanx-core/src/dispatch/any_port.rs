//! Whose a listener on port 0 is: all workers', or the one's that opened it.
//!
//! A program that listens on port 0 and nowhere else means its clients by it, and all workers get the same port. Beside
//! another listener, port 0 is a helper's, of which the port is told to somebody in particular (a helper thread, FTP's
//! passive mode, RPC), and stays private. Which of the two it is shows only when the program opens its next listener,
//! or does not: so the first worker is watched for a while, and the others wait for what comes of it.

use crate::ids::WorkerId;

/// What is known of an app's listeners on port 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are no others")]
pub enum AnyPort {
    /// Nothing: there was none.
    #[default]
    Unknown,
    /// This worker has opened one, and may still open another listener.
    Trial(WorkerId),
    /// They are all that the app has.
    Shared,
}

/// A socket that is to listen on port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the caller, field by field"
)]
pub struct Asks {
    /// Whose it is.
    pub worker: WorkerId,
    /// The user has said that it is to be shared.
    pub is_named: bool,
    /// Another worker has opened its counterpart, or this one has.
    pub is_known: bool,
    /// The app has a listener that is not on port 0.
    pub has_other: bool,
}

/// Whose it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are no others")]
pub enum Owner {
    /// All workers'.
    App,
    /// The worker's own.
    Worker,
    /// That will show soon.
    Undecided,
}

impl AnyPort {
    /// Whose the socket is to be. Starts a trial when it is the first.
    pub fn decide(&mut self, asks: Asks) -> Owner {
        if asks.is_named {
            return Owner::App;
        }
        match *self {
            Self::Trial(first) if first == asks.worker => Owner::App,
            Self::Trial(_) => Owner::Undecided,
            Self::Shared if asks.is_known => Owner::App,
            Self::Unknown | Self::Shared if asks.has_other => Owner::Worker,
            Self::Unknown => {
                *self = Self::Trial(asks.worker);
                Owner::App
            }
            // What is opened later, one after the other, cannot be meant for all.
            Self::Shared => Owner::Worker,
        }
    }

    /// Another listener is opened. True when that ends a trial: what was opened on port 0 is private.
    pub fn other_opens(&mut self) -> bool {
        let is_trial = matches!(self, Self::Trial(_));
        if is_trial {
            *self = Self::Unknown;
        }
        is_trial
    }

    /// The worker has opened nothing else for a while. True when that ends its trial.
    pub fn stays_quiet(&mut self, worker: WorkerId) -> bool {
        let is_its_trial = *self == Self::Trial(worker);
        if is_its_trial {
            *self = Self::Shared;
        }
        is_its_trial
    }

    /// The worker is gone. True when that ends its trial.
    pub fn gone(&mut self, worker: WorkerId) -> bool {
        let is_its_trial = *self == Self::Trial(worker);
        if is_its_trial {
            *self = Self::Unknown;
        }
        is_its_trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WorkerId = WorkerId(1);
    const TWO: WorkerId = WorkerId(2);

    fn asks(worker: WorkerId) -> Asks {
        Asks {
            worker,
            is_named: false,
            is_known: false,
            has_other: false,
        }
    }

    #[test]
    fn a_helper_beside_another_listener_is_private() {
        let mut state = AnyPort::default();
        let beside = Asks {
            has_other: true,
            ..asks(ONE)
        };
        assert_eq!(state.decide(beside), Owner::Worker);
        assert_eq!(state, AnyPort::Unknown);
        let named = Asks {
            is_named: true,
            ..beside
        };
        assert_eq!(state.decide(named), Owner::App);
    }

    #[test]
    fn a_helper_that_comes_before_the_other_listener_is_private_too() {
        let mut state = AnyPort::default();
        assert_eq!(state.decide(asks(ONE)), Owner::App);
        assert_eq!(state.decide(asks(TWO)), Owner::Undecided);
        assert!(state.other_opens());
        assert!(!state.other_opens());
        let later = Asks {
            has_other: true,
            ..asks(TWO)
        };
        assert_eq!(state.decide(later), Owner::Worker);
    }

    #[test]
    fn the_only_listeners_are_shared_and_what_comes_later_is_not() {
        let mut state = AnyPort::default();
        assert_eq!(state.decide(asks(ONE)), Owner::App);
        assert_eq!(state.decide(asks(ONE)), Owner::App, "a second one");
        assert!(!state.stays_quiet(TWO));
        assert!(state.stays_quiet(ONE));
        let known = Asks {
            is_known: true,
            ..asks(TWO)
        };
        assert_eq!(state.decide(known), Owner::App);
        assert_eq!(state.decide(asks(TWO)), Owner::Worker);
        assert!(!state.other_opens());
    }

    #[test]
    fn a_worker_that_dies_on_trial_leaves_it_to_the_next() {
        let mut state = AnyPort::default();
        assert_eq!(state.decide(asks(ONE)), Owner::App);
        assert!(!state.gone(TWO));
        assert!(state.gone(ONE));
        assert_eq!(state.decide(asks(TWO)), Owner::App);
        assert_eq!(state, AnyPort::Trial(TWO));
    }
}
