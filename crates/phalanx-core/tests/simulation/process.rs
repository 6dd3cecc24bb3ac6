//! The processes of a simulated world: what each does by itself, and in answer to the fleet's
//! actions.

use std::time::Duration;

use phalanx_core::ids::{ExitStatus, Generation, WorkerId};

use crate::plan::{Drain, Fate, Life, Start};

/// One process.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub(crate) struct Process {
    pub(crate) fate: Fate,
    pub(crate) is_alive: bool,
    /// Its channel is open at its own end.
    pub(crate) is_connected: bool,
    /// It was sent SIGKILL.
    pub(crate) was_killed: bool,
    pub(crate) generation: Generation,
    /// It has become ready.
    pub(crate) serves: bool,
}

/// Something a process does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    FailsToSpawn,
    GoesOnline,
    GetsReady,
    /// It is seen to lack listeners.
    Lacks,
    /// Says that it leaves, and begins to finish its work.
    Leaves,
    Disconnects,
    Exits(ExitStatus),
}

/// A deed to come. Faults that are still to come when the world heals do not happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plot {
    pub(crate) worker: WorkerId,
    pub(crate) after: Duration,
    pub(crate) deed: Deed,
    pub(crate) is_fault: bool,
}

impl Process {
    pub(crate) fn new(fate: Fate, generation: Generation) -> Self {
        Self {
            fate,
            is_alive: true,
            is_connected: true,
            was_killed: false,
            generation,
            serves: false,
        }
    }

    /// What follows from being spawned.
    pub(crate) fn begins(&self, worker: WorkerId) -> Vec<Plot> {
        let plot = |after, deed, is_fault| Plot {
            worker,
            after,
            deed,
            is_fault,
        };
        match self.fate.start {
            Start::SpawnFails { after } => vec![plot(after, Deed::FailsToSpawn, false)],
            Start::Serves { online, ready } => vec![
                plot(online, Deed::GoesOnline, false),
                plot(ready, Deed::GetsReady, false),
            ],
            Start::Hangs { online, lacks } => {
                let mut plots = vec![plot(online, Deed::GoesOnline, false)];
                plots.extend(lacks.then(|| plot(online, Deed::Lacks, false)));
                plots
            }
            Start::Exits { after, status } => vec![
                plot(after / 2, Deed::GoesOnline, false),
                plot(after, Deed::Exits(status), false),
            ],
            Start::LosesChannel { after } => vec![
                plot(after / 2, Deed::GoesOnline, false),
                plot(after, Deed::Disconnects, false),
            ],
            Start::Leaves { after } => vec![
                plot(after / 2, Deed::GoesOnline, false),
                plot(after, Deed::Leaves, false),
            ],
        }
    }

    /// What follows from being ready.
    pub(crate) fn lives(&self, worker: WorkerId) -> Option<Plot> {
        let (after, deed) = match self.fate.life {
            Life::Serves => return None,
            Life::Crashes { after, status } => (after, Deed::Exits(status)),
            Life::LosesChannel { after } => (after, Deed::Disconnects),
            Life::Leaves { after } => (after, Deed::Leaves),
        };
        Some(Plot {
            worker,
            after,
            deed,
            is_fault: true,
        })
    }

    /// What follows from being asked to drain, or from the wish to leave.
    pub(crate) fn drains(&self, worker: WorkerId) -> Vec<Plot> {
        let plot = |after, deed| Plot {
            worker,
            after,
            deed,
            is_fault: false,
        };
        let exits = Deed::Exits(ExitStatus::Code(0));
        match self.fate.drain {
            Drain::Finishes { after } => vec![
                plot(after, Deed::Disconnects),
                plot(after + Duration::from_millis(10), exits),
            ],
            Drain::ExitsAtOnce { after } => vec![plot(after, exits)],
            Drain::DisconnectsOnly { after } => vec![plot(after, Deed::Disconnects)],
            Drain::Ignores => Vec::new(),
        }
    }

    /// What follows from SIGTERM.
    pub(crate) fn is_stopped(&self, worker: WorkerId) -> Option<Plot> {
        self.fate.term.map(|(after, status)| Plot {
            worker,
            after,
            deed: Deed::Exits(status),
            is_fault: false,
        })
    }

    /// What follows from SIGKILL. What could not be spawned cannot be killed.
    pub(crate) fn is_killed(&self, worker: WorkerId) -> Option<Plot> {
        match self.fate.start {
            Start::SpawnFails { .. } => None,
            Start::Serves { .. }
            | Start::Hangs { .. }
            | Start::Exits { .. }
            | Start::LosesChannel { .. }
            | Start::Leaves { .. } => Some(Plot {
                worker,
                after: self.fate.kill,
                deed: Deed::Exits(ExitStatus::Signal(9)),
                is_fault: false,
            }),
        }
    }
}
