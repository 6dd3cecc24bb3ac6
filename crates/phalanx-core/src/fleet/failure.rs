//! Where and why a worker failed.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::dispatch::readiness::Lack;
use crate::health::Finding;
use crate::ids::{ExitStatus, Position, WorkerId};

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
        #[serde(rename = "soak_ms", serialize_with = "super::as_millis")]
        soak: Duration,
    },
    /// It was not ready in time.
    #[error("was not ready within {limit:?}{}", because(.lack.as_ref()))]
    NotReadyInTime {
        /// The ready timeout.
        #[serde(rename = "limit_ms", serialize_with = "super::as_millis")]
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
        #[serde(rename = "waited_ms", serialize_with = "super::as_millis")]
        waited: Duration,
    },
}

fn because(lack: Option<&Lack>) -> String {
    lack.map(|lack| format!(": {lack}")).unwrap_or_default()
}
