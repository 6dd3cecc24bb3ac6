//! The state of an app, as `phalanx status --json` prints it. The schema is stable: fields are added, never changed.
//!
//! A field that later versions have added has a default, so that the status of an older primary can be read.

use phalanx_core::ids::{Generation, Position, WorkerId};
use serde::{Deserialize, Serialize};

use super::words::{Adoption, Dispatch, HealthState, Policy, WorkerState};

/// An app.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// The app's name.
    pub name: String,
    /// The primary's process id.
    pub pid: u32,
    /// The policy in force.
    pub policy: Policy,
    /// Weights by position, for the policy `weighted`; a position that is not listed weighs 1.
    #[serde(default)]
    pub weights: Option<String>,
    /// How the first listener's connections reach the workers.
    pub dispatch: Dispatch,
    /// How the program becomes a worker; nothing of a primary that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
    /// How many workers are wanted.
    pub target: u32,
    /// How many spares are wanted besides: workers that are ready and get no connections until a position needs them.
    #[serde(default)]
    pub spares: u32,
    /// The generation that new workers get.
    #[cfg_attr(test, schemars(with = "u32"))]
    pub generation: Generation,
    /// The generation that a rollback would return to.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<u32>"))]
    pub previous: Option<Generation>,
    /// A rolling restart is going on.
    pub reloading: bool,
    /// The reload watches its canaries before it goes on.
    #[serde(default)]
    pub watching: bool,
    /// The app is being stopped.
    pub stopping: bool,
    /// Where it listens, in the order of opening.
    pub listeners: Vec<ListenerStatus>,
    /// How many live workers listen only where the primary has no part in it: their connections are not dispatched.
    #[serde(default)]
    pub unseen: usize,
    /// The live workers by position, then by age.
    pub workers: Vec<WorkerStatus>,
    /// What all workers that there ever were have counted.
    #[serde(default)]
    pub totals: Totals,
    /// The same by position.
    #[serde(default)]
    pub positions: Vec<PositionTotals>,
    /// The primary itself.
    #[serde(default)]
    pub primary: PrimaryStatus,
    /// Positions without a worker that serves or starts.
    #[serde(default)]
    pub vacancies: Vec<VacancyStatus>,
    /// Where the workers' output goes, as far as it passes through the primary.
    #[serde(default)]
    pub outputs: Vec<OutputStatus>,
}

/// What has been counted since the app's start, by all workers that there ever were. It never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Totals {
    /// Connections that were given to workers; nothing where nobody counts them (`shared`).
    pub connections: Option<u64>,
    /// Requests that were answered; nothing where nobody tells, or nobody has asked yet.
    pub requests: Option<u64>,
}

/// What has been counted at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PositionTotals {
    /// The position.
    #[cfg_attr(test, schemars(with = "u32"))]
    pub position: Position,
    /// The sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// A place that the workers' output goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutputStatus {
    /// `stdout`, `stderr`, `file:PATH` or `journal`.
    pub name: String,
    /// Lines that could not be written since the start.
    pub dropped_lines: u64,
    /// Why the last ones could not; nothing where the reader was too slow, or none was dropped.
    pub because: Option<String>,
}

/// An app whose primary does not answer, as `phalanx list --json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NotAnswering {
    /// The app's name.
    pub name: String,
    /// The primary's process id, where it is known.
    pub pid: Option<i32>,
    /// True.
    pub not_answering: bool,
}

/// How the primary itself does, by its own measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PrimaryStatus {
    /// How late its event loop was in the last minute, in milliseconds: half of the looks found it no later.
    pub loop_lag_p50_ms: f64,
    /// 99 of 100 looks found it no later.
    pub loop_lag_p99_ms: f64,
    /// The worst look of the last minute.
    pub loop_lag_max_ms: f64,
    /// The memory it occupies, in bytes (resident set size).
    pub memory_bytes: u64,
    /// The same when all its workers had come up for the first time.
    pub memory_idle_bytes: Option<u64>,
    /// The control group in which each worker has one of its own; nothing where there is none.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Why there is none.
    #[serde(default)]
    pub no_cgroup: Option<String>,
}

/// A position without a worker that serves or starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VacancyStatus {
    /// The position.
    #[cfg_attr(test, schemars(with = "u32"))]
    pub position: Position,
    /// How many times a worker at this position was replaced after a crash.
    pub restarts: u32,
    /// In how many milliseconds the next try is due; nothing when it waits for something else, or stays empty.
    pub retry_in_ms: Option<u64>,
    /// Whether the waiting has reached its cap.
    pub crash_loop: bool,
}

/// A worker that was recycled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecycledStatus {
    /// How many milliseconds ago it was asked to leave.
    pub ago_ms: u64,
    /// Why: `memory: 210 of 200 MiB`, `age: 3600 s`, `requests: 10000`, `as asked`.
    pub why: String,
}

/// A listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListenerStatus {
    /// The address as text: `127.0.0.1:3000`, `unix:/path`, `udp:127.0.0.1:53`.
    pub address: String,
    /// How its connections reach the workers.
    pub dispatch: Dispatch,
    /// Why that, and what would be needed for more.
    #[serde(default)]
    pub because: String,
    /// What its connections are distributed by, where that is not the app's policy: `random` where a classic BPF
    /// program draws instead of taking turns or comparing loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How many live workers serve it.
    pub workers: u32,
}

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WorkerStatus {
    /// Its id.
    #[cfg_attr(test, schemars(with = "u32"))]
    pub id: WorkerId,
    /// Its position.
    #[cfg_attr(test, schemars(with = "u32"))]
    pub position: Position,
    /// Its generation.
    #[cfg_attr(test, schemars(with = "u32"))]
    pub generation: Generation,
    /// Its process id; nothing when it could not be started.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// The memory that it occupies, in bytes (resident set size).
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// When the worker before it at this position was recycled, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycled: Option<RecycledStatus>,
    /// What it says it is doing (`STATUS=`, `sd_notify(3)`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// How long it has been stuck, in milliseconds: nothing is taken of what waits for it. Nothing while it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck_ms: Option<u64>,
    /// What is wrong with it; nothing while it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_why: Option<String>,
    /// How long it has been so, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_ms: Option<u64>,
    /// How late its event loop answered when it was asked last, in µs; nothing where it cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loop_lag_us: Option<u64>,
    /// When it became ready, in milliseconds since the Unix epoch.
    pub ready_at: Option<u64>,
    /// How many times a worker at this position was replaced after a crash.
    pub restarts: u32,
    /// Connections that it was given in its life; nothing where nobody counts them (`shared`).
    pub connections: Option<u64>,
    /// Requests that it has answered in its life; nothing where it does not tell, or nobody has asked yet.
    #[serde(default)]
    pub requests: Option<u64>,
    /// Its part of all connections that the live workers were given, from 0 to 1.
    #[serde(default)]
    pub share: Option<f64>,
    /// Connections open at its position; nothing where it does not tell its load.
    #[serde(default)]
    pub open: Option<u32>,
    /// Its response time in µs, as a peak-sensitive average; nothing while unknown.
    #[serde(default)]
    pub response_us: Option<u32>,
}
