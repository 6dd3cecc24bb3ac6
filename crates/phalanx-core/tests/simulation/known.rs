//! What the judge knows of one worker, and of tries that failed.

use std::time::Duration;

use phalanx_core::ids::{ExitStatus, Generation, Position};

/// The death that says nothing about a program.
pub(crate) const SIGKILL: ExitStatus = ExitStatus::Signal(9);

/// One worker, as far as events and actions tell.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub(crate) struct Known {
    pub(crate) position: Position,
    pub(crate) generation: Generation,
    pub(crate) ready_at: Option<Duration>,
    /// It is on its way out: drained, stopped, without a channel, or by its own wish.
    pub(crate) is_leaving: bool,
    /// It lost its channel while it was ready: the limit on processes does not count it.
    pub(crate) is_lost: bool,
    pub(crate) stopped_at: Option<Duration>,
    /// Since when it could be spared: another one at its position is ready too, or the position is
    /// surplus.
    pub(crate) spare_since: Option<Duration>,
    /// It finishes its work, or was told to: not lost, not failed.
    pub(crate) is_retiring: bool,
    /// Spawned without connections.
    pub(crate) is_held: bool,
    /// It says that it serves.
    pub(crate) serves: bool,
    /// Server errors since the watch began, as last reported.
    pub(crate) errors: u64,
}

/// Tries of one generation at one position, none of which was ever ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streak {
    pub(crate) generation: Generation,
    pub(crate) failures: u32,
    pub(crate) failed_at: Duration,
}

impl Known {
    /// A worker that has just been started.
    pub(crate) fn spawned(position: Position, generation: Generation, is_held: bool) -> Self {
        Self {
            position,
            generation,
            ready_at: None,
            is_leaving: false,
            is_lost: false,
            stopped_at: None,
            spare_since: None,
            is_retiring: false,
            is_held,
            serves: false,
            errors: 0,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready_at.is_some() && !self.is_leaving
    }

    pub(crate) fn waits_as_spare(&self) -> bool {
        self.position.is_spare() && self.serves && !self.is_leaving
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.ready_at.is_none() && !self.is_leaving
    }
}
