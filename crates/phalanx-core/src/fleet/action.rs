//! What a fleet wants done, and what it answers.

use serde::Serialize;
use thiserror::Error;

use super::event::CommandId;
use super::failure::Failure;
use super::report::Report;
use crate::ids::{Generation, Position, WorkerId};

/// Something the runtime is to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the runtime must carry out every one of them"
)]
pub enum Action {
    /// A generation begins: keep a snapshot of the release (command, executable, environment) under
    /// its number. Comes before the first spawn of that generation.
    NewGeneration(Generation),
    /// No worker of this generation lives and none will be spawned again, not even for a revert.
    DropGeneration(Generation),
    /// Start this worker. Answer with [`Event::SpawnFailed`](super::Event::SpawnFailed), or with
    /// the events of its life.
    Spawn {
        /// The new worker. Its id was never used before.
        worker: WorkerId,
        /// The position that it holds, or the place of a spare ([`Position::is_spare`]).
        position: Position,
        /// The release to start.
        generation: Generation,
        /// It gets no connections before [`Action::Admit`] or [`Action::Promote`].
        held: bool,
    },
    /// Give this worker its share of the connections from now on.
    Admit {
        /// Which. It was spawned as `held`, and has become ready.
        worker: WorkerId,
    },
    /// This spare holds that position from now on: it was spawned as `held`, and gets the position's share of the
    /// connections.
    Promote {
        /// Which.
        worker: WorkerId,
        /// The position.
        position: Position,
    },
    /// Count this worker as ready with what it has, and let it serve that: it lacks listeners and is not
    /// waited for any longer.
    Accept {
        /// Which.
        worker: WorkerId,
    },
    /// Ask every ready worker, and those that become ready, for their figures
    /// ([`Event::Health`](super::Event::Health)) from now on, and find out whether they hang
    /// ([`Event::Hung`](super::Event::Hung)).
    BeginWatch,
    /// Leave that off.
    EndWatch,
    /// The app ends: newcomers are refused from now on, and what has arrived is still served. Comes before the
    /// drains.
    Refuse,
    /// Dispatch nothing more to this worker, then tell it to finish its work and to disconnect.
    /// Never sent twice to the same worker, and never to one that leaves by its own wish.
    Drain {
        /// Which.
        worker: WorkerId,
    },
    /// Send it its stop signal. Comes without a [`Action::Drain`] before it if there is nothing to drain.
    Stop {
        /// Which.
        worker: WorkerId,
    },
    /// Send it SIGKILL. Repeated until it is gone.
    Kill {
        /// Which.
        worker: WorkerId,
    },
    /// The one answer to a command.
    Reply {
        /// The command.
        command: CommandId,
        /// What became of it.
        result: Result<Done, Refusal>,
    },
    /// Something worth telling: to the log, the event stream and the metrics.
    Report(Report),
    /// Every position has one ready worker of this generation and nothing else lives: what no
    /// worker uses now, such as an orphaned listener, may go.
    Settled {
        /// The generation of all workers.
        generation: Generation,
        /// How many the app is to have.
        workers: u32,
    },
    /// Everything is gone. The last action of a fleet, but for the refusal of later commands.
    Finished(Outcome),
}

/// How a command succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "done", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "one for each command")]
pub enum Done {
    /// Every position is held by this generation, and nothing of an older one lives.
    Reloaded {
        /// The new generation.
        generation: Generation,
    },
    /// Every position is held by this generation again, and nothing of the one after it lives.
    RolledBack {
        /// The generation that was returned to.
        generation: Generation,
    },
    /// The fleet has this many workers: the new ones were ready, the surplus is gone.
    Scaled {
        /// The target.
        workers: u32,
    },
    /// These workers have been replaced, or have left meanwhile.
    Recycled {
        /// How many.
        workers: u32,
    },
    /// All workers are gone.
    Stopped,
}

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its exit status")]
pub enum Refusal {
    /// The new generation failed; the fleet is back on the one before, unless `rolled_back` is
    /// false.
    #[error("generation {generation} failed: {failure}{}", aftermath(*.rolled_back))]
    RolloutFailed {
        /// The generation that failed.
        generation: Generation,
        /// Where and why.
        failure: Failure,
        /// Whether every position that was already replaced is back on its former generation. If
        /// not, workers of the failed generation go on serving where the former one could not be
        /// started.
        rolled_back: bool,
    },
    /// A new position's worker failed to start. The target stays and the fleet keeps trying.
    #[error("scaling to {workers} worker{}: {failure}", if *.workers == 1 { "" } else { "s" })]
    ScaleFailed {
        /// The target.
        workers: u32,
        /// Where and why.
        failure: Failure,
    },
    /// The successor of a worker failed to start; that worker serves on.
    #[error("the worker serves on: its successor, {failure}")]
    RecycleFailed {
        /// Where and why.
        failure: Failure,
    },
    /// There is no generation before the present one: nothing was replaced yet, or it was rolled
    /// back already.
    #[error("there is no earlier release to go back to")]
    NoEarlierRelease,
    /// A newer command took its place.
    #[error("superseded by a newer command")]
    Superseded,
    /// The fleet stops, or has stopped.
    #[error("the app is stopping")]
    Stopping,
    /// It cannot be done.
    #[error("{reason}")]
    Invalid {
        /// Why, for people.
        reason: String,
    },
}

fn aftermath(rolled_back: bool) -> &'static str {
    if rolled_back {
        ""
    } else {
        "; rolling back failed too"
    }
}

/// How a fleet ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its exit status")]
pub enum Outcome {
    /// It was told to.
    Stopped,
    /// The first worker of every position failed, and [`BootPolicy::Exit`](super::BootPolicy::Exit)
    /// was chosen.
    BootFailed {
        /// The first failure.
        failure: Failure,
    },
    /// All workers are gone, and respawning is off.
    AllGone,
}
