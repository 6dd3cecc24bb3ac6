//! What a fleet wants done, and what it answers.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use super::event::CommandId;
use super::report::{Report, as_millis};
use crate::dispatch::readiness::Lack;
use crate::health::Finding;
use crate::ids::{ExitStatus, Generation, Position, WorkerId};

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
    #[error("the fleet is stopping")]
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

fn because(lack: Option<&Lack>) -> String {
    lack.map(|lack| format!(": {lack}")).unwrap_or_default()
}

/// Where and why a worker failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The worker, whose last log lines tell more; none if the position had none.
    pub worker: Option<WorkerId>,
    /// Its position.
    pub position: Position,
    /// Why it counts as failed.
    pub reason: FailureReason,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker {
            Some(worker) => write!(
                f,
                "worker {worker} at position {} {}",
                self.position, self.reason
            ),
            None => write!(f, "position {} {}", self.position, self.reason),
        }
    }
}

/// Why a worker counts as failed. Displays as what follows "worker 3 at position 1".
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "metrics count each")]
pub enum FailureReason {
    /// It could not be spawned.
    #[error("could not be spawned: {message}")]
    SpawnFailed {
        /// What the system said.
        message: String,
    },
    /// It ended before it was ready.
    #[error("ended before it was ready ({status})")]
    ExitedBeforeReady {
        /// How.
        status: ExitStatus,
    },
    /// It served, and ended before it had served long enough to be given connections.
    #[error("ended within its soak time of {soak:?} ({status})")]
    EndedInSoak {
        /// How.
        status: ExitStatus,
        /// How long it should have lived.
        #[serde(rename = "soak_ms", serialize_with = "as_millis")]
        soak: Duration,
    },
    /// It was not ready in time.
    #[error("was not ready within {limit:?}{}", because(.lack.as_ref()))]
    NotReadyInTime {
        /// The ready timeout.
        #[serde(rename = "limit_ms", serialize_with = "as_millis")]
        limit: Duration,
        /// What it was not ready for, where that is known.
        lack: Option<Lack>,
    },
    /// It wished to leave before it was ready.
    #[error("left by its own wish before it was ready")]
    LeftBeforeReady,
    /// It lost its channel and did not exit.
    #[error("lost its channel and did not exit")]
    ChannelLost,
    /// It was ready and crashed: the second of its generation at its position, or the first of a
    /// canary, or the first where respawning is off.
    #[error("crashed ({status})")]
    Crashed {
        /// How.
        status: ExitStatus,
    },
    /// Its position was killed from outside, by SIGKILL, more often than the rollout puts up with.
    #[error("was killed from outside, and that {times} times at its position")]
    KilledTooOften {
        /// How often.
        times: u32,
    },
    /// A canary does not answer its channel.
    #[error("hangs: it does not answer its channel")]
    Hung,
    /// A canary answers worse than the others.
    #[error("{finding}")]
    Unhealthy {
        /// What is wrong.
        finding: Finding,
    },
    /// The limits on extra and missing workers left no room to replace it.
    #[error("could not be replaced: the rollout did not move for {waited:?}")]
    Stalled {
        /// How long nothing moved.
        #[serde(rename = "waited_ms", serialize_with = "as_millis")]
        waited: Duration,
    },
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
