//! What a fleet tells about itself: every transition, with its reason.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::amount::Amount;
use super::elastic::ResizeReason;
use super::failure::{Failure, FailureReason};
use super::wear::Wear;
use crate::dispatch::readiness::ListenerName;
use crate::health::HealthSummary;
use crate::ids::{ExitStatus, Generation, Position, WorkerId};

/// Something worth telling: to the log, the event stream and the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "report", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum Report {
    /// A worker passed from one state to another.
    Changed {
        /// The worker.
        worker: WorkerId,
        /// Its position.
        position: Position,
        /// Its generation.
        generation: Generation,
        /// The state it left; none if it was just spawned. Equal to `to` when a stopping worker
        /// gets killed.
        from: Option<WorkerState>,
        /// The state it entered.
        to: WorkerState,
        /// Why.
        reason: Reason,
    },
    /// A position's next try waits this long.
    RespawnScheduled {
        /// The position.
        position: Position,
        /// How long, from now.
        #[serde(rename = "delay_ms", serialize_with = "super::as_millis")]
        delay: Duration,
        /// Failures in a row.
        failures: u32,
    },
    /// The waiting at this position has reached its cap. Told once, until it ends.
    CrashLoopEntered {
        /// The position.
        position: Position,
        /// Failures in a row.
        failures: u32,
    },
    /// A worker at this position had a stable run again.
    CrashLoopLeft {
        /// The position.
        position: Position,
    },
    /// The first worker is ready, or, with [`BootPolicy::Retry`](super::BootPolicy::Retry), all
    /// first attempts failed.
    BootOver,
    /// A rolling restart began, or began anew with a newer generation.
    RolloutStarted {
        /// The new generation.
        generation: Generation,
        /// The generation to go back to.
        base: Generation,
        /// Positions to replace.
        workers: u32,
        /// How many of them go first and are watched; none if none is.
        canaries: Option<u32>,
        /// The limit on extra workers that it keeps.
        max_surge: Amount,
        /// The limit on missing workers that it keeps.
        max_unavailable: Amount,
    },
    /// The canaries are ready, and are watched from now on.
    CanaryStarted {
        /// The new generation.
        generation: Generation,
        /// How many there are.
        canaries: u32,
        /// How long, from now.
        #[serde(rename = "watch_ms", serialize_with = "super::as_millis")]
        watch: Duration,
    },
    /// How the canaries do, from time to time.
    CanaryProgress {
        /// The new generation.
        generation: Generation,
        /// Since when they are watched.
        #[serde(rename = "elapsed_ms", serialize_with = "super::as_millis")]
        elapsed: Duration,
        /// How long they are.
        #[serde(rename = "watch_ms", serialize_with = "super::as_millis")]
        watch: Duration,
        /// Their figures.
        canary: HealthSummary,
        /// Those of the others.
        others: HealthSummary,
    },
    /// The canaries did no worse than the others: the rollout goes on.
    CanaryPassed {
        /// The new generation.
        generation: Generation,
        /// Their figures.
        canary: HealthSummary,
        /// Those of the others.
        others: HealthSummary,
    },
    /// A rollout is to be undone on request; the way back begins.
    RolloutCancelled {
        /// The generation that was on its way.
        generation: Generation,
        /// The generation to go back to.
        base: Generation,
    },
    /// One more position has had a ready worker of the rollout's generation.
    RolloutProgress {
        /// The new generation, or the base when rolling back.
        generation: Generation,
        /// Positions done.
        done: u32,
        /// Positions in all.
        workers: u32,
    },
    /// Every position is replaced and the old workers are gone.
    RolloutFinished {
        /// The generation that is now the fleet's.
        generation: Generation,
    },
    /// The new generation failed; the revert begins.
    RolloutFailed {
        /// The generation that failed.
        generation: Generation,
        /// The generation to go back to.
        base: Generation,
        /// Where and why.
        failure: Failure,
    },
    /// The revert ended, with every position on its base again.
    RolledBack {
        /// The base.
        generation: Generation,
        /// The generation that had failed.
        failed: Generation,
    },
    /// The revert ended early: the base did not start either, so what is ready stays.
    RollbackAbandoned {
        /// The base.
        generation: Generation,
        /// Positions that keep a worker of another generation.
        kept: Vec<Position>,
        /// Where and why the base failed.
        failure: Failure,
    },
    /// A worker is accepted although it lacks listeners.
    FewerListeners {
        /// Which.
        worker: WorkerId,
        /// Those that its predecessor held and it does not.
        missing: Vec<ListenerName>,
    },
    /// The target changes by the load or the number of processors, or should and may not (`from` and `to` are the same then).
    Resizes {
        /// The target until now.
        from: u32,
        /// The target from now on.
        to: u32,
        /// Why.
        #[serde(flatten)]
        why: ResizeReason,
    },
    /// The target changed.
    ScaleStarted {
        /// The target until now.
        from: u32,
        /// The target from now on.
        to: u32,
    },
    /// One more new position was ready, or one more surplus position is empty.
    ScaleProgress {
        /// Positions done.
        done: u32,
        /// Positions to add or to empty.
        of: u32,
    },
    /// The fleet stops.
    StopStarted {
        /// Whether workers get no time to finish their work.
        fast: bool,
        /// Workers that live.
        workers: u32,
    },
    /// One more worker is gone.
    StopProgress {
        /// Workers that still live.
        remaining: u32,
    },
}

/// The life cycle of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the life cycle is fixed")]
pub enum WorkerState {
    /// Its spawn was ordered.
    Starting,
    /// Its program runs.
    Online,
    /// It could serve, and waits for a position that needs it.
    Spare,
    /// It serves.
    Ready,
    /// It gets no new work and finishes what it has.
    Draining,
    /// It is, or will soon be, told to end.
    Stopping,
    /// Its process is gone.
    Gone,
}

impl WorkerState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Spare => "spare",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a worker passed from one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum Reason {
    /// Spawned: the position is new.
    NewPosition,
    /// Spawned: the position lost its worker.
    Respawn,
    /// Spawned: the successor in a rolling restart.
    Rollout,
    /// Spawned: the successor in a revert.
    Rollback,
    /// Spawned: the successor of a worker that is recycled.
    Recycle {
        /// Why that one is.
        #[serde(flatten)]
        wear: Wear,
    },
    /// Spawned: a spare.
    NewSpare,
    /// It could serve, and waits for a position that needs it.
    WaitsAsSpare,
    /// It was a spare, and takes a position that needs a worker.
    SpareTakesOver,
    /// Its program runs.
    Runs,
    /// It provably serves.
    Serves,
    /// It serves, and is given no connections until it has lived long enough.
    Soaks,
    /// Its successor is ready.
    SuccessorReady,
    /// Its successor is ready: it is recycled.
    Recycled {
        /// Why.
        #[serde(flatten)]
        wear: Wear,
    },
    /// It goes first, its successor follows: there is no surge for both.
    MakesRoom,
    /// Its position is surplus.
    ScaledDown,
    /// A newer release took the turn of its own.
    Superseded,
    /// Its release failed elsewhere.
    RolloutFailed,
    /// Its release is undone on request.
    RolledBack,
    /// Its release could not be rolled back to.
    RollbackAbandoned,
    /// The fleet stops.
    FleetStops,
    /// It leaves by its own wish.
    OwnWish,
    /// Its channel ended although nobody had asked it to leave.
    ChannelLost,
    /// Its channel ended as it should: its work is done and its exit is near.
    Disconnected,
    /// It did not finish its work in time.
    DrainTimedOut,
    /// It did not exit in time.
    ExitTimedOut,
    /// It was not ready in time.
    NotReadyInTime,
    /// It ended as it should.
    Exited {
        /// How.
        status: ExitStatus,
    },
    /// It ended although it should not have.
    Crashed {
        /// How.
        status: ExitStatus,
    },
    /// It never started.
    FailedToStart {
        /// Why.
        failure: FailureReason,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewPosition => f.write_str("new position"),
            Self::Respawn => f.write_str("respawn"),
            Self::Rollout => f.write_str("rollout"),
            Self::Rollback => f.write_str("roll-back"),
            Self::Recycle { wear } => write!(f, "takes over from a recycled worker ({wear})"),
            Self::NewSpare => f.write_str("a spare"),
            Self::WaitsAsSpare => f.write_str("it is ready, and waits as a spare"),
            Self::SpareTakesOver => f.write_str("a spare takes over"),
            Self::Runs => f.write_str("its program runs"),
            Self::Serves => f.write_str("it serves"),
            Self::Soaks => f.write_str("it serves, without connections yet"),
            Self::SuccessorReady => f.write_str("its successor is ready"),
            Self::Recycled { wear } => write!(f, "recycled ({wear})"),
            Self::MakesRoom => f.write_str("makes room for its successor"),
            Self::ScaledDown => f.write_str("scaled down"),
            Self::Superseded => f.write_str("superseded by a newer release"),
            Self::RolloutFailed => f.write_str("its release failed"),
            Self::RolledBack => f.write_str("its release is rolled back"),
            Self::RollbackAbandoned => f.write_str("rolling back failed"),
            Self::FleetStops => f.write_str("the fleet stops"),
            Self::OwnWish => f.write_str("by its own wish"),
            Self::ChannelLost => f.write_str("lost its channel"),
            Self::Disconnected => f.write_str("its work is done"),
            Self::DrainTimedOut => f.write_str("did not finish in time"),
            Self::ExitTimedOut => f.write_str("did not exit in time"),
            Self::NotReadyInTime => f.write_str("not ready in time"),
            Self::Exited { status } => status.fmt(f),
            Self::Crashed { status } => write!(f, "crashed: {status}"),
            Self::FailedToStart { failure } => failure.fmt(f),
        }
    }
}
