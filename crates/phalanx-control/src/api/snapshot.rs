//! An app's figures at one moment, as `GET /v1/metrics.json` gives them. The schema is stable: fields are added, never changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::PrimaryStatus;

/// What `status`, the metrics and the live views show. Totals are sums over all workers that there ever were: they never fall.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are said one by one, as in the status"
)]
pub struct Snapshot {
    /// When it was taken, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The app's name.
    pub name: String,
    /// The version of phalanx.
    pub version: String,
    /// The primary's process id.
    pub pid: u32,
    /// How long the app has been running.
    pub up_seconds: f64,
    /// The policy's name.
    pub policy: String,
    /// `kernel`, `handoff`, `shared`, or `auto` while nothing listens.
    pub dispatch: String,
    /// `channel`, `activation`, `intercept` or `none`.
    pub adoption: String,
    /// How many workers are wanted.
    pub target: u32,
    /// The generation that new workers get.
    pub generation: u32,
    /// A rolling restart is going on.
    pub reloading: bool,
    /// The reload watches its canaries.
    pub watching: bool,
    /// The app is being stopped.
    pub stopping: bool,
    /// A worker serves, and the app is not about to stop.
    pub ready: bool,
    /// How many workers are in each state; all states are there.
    pub workers: BTreeMap<String, u32>,
    /// Every position that there ever was, in order.
    pub positions: Vec<PositionFigures>,
    /// Every listener that there ever was.
    pub listeners: Vec<ListenerSnapshot>,
    /// Workers that were replaced, by reason.
    pub restarts: BTreeMap<String, u64>,
    /// Reloads.
    pub reloads: ReloadFigures,
    /// The primary itself.
    pub primary: PrimaryFigures,
    /// The application's own metrics; nothing before somebody has read them.
    pub app_metrics: Option<AppMetricsFigures>,
    /// Lines of output that found no room, because their reader was too slow.
    pub lines_dropped: u64,
}

/// How many workers the application's own metrics are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AppMetricsFigures {
    /// Workers whose metrics are merged.
    pub workers: u32,
    /// Workers that did not answer in time.
    pub late: u32,
}

/// A position.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PositionFigures {
    /// Its number.
    pub position: u32,
    /// The newest worker that lives here; nothing when there is none, and so are the fields about it.
    pub worker: Option<u32>,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its generation.
    pub generation: Option<u32>,
    /// Its state.
    pub state: Option<String>,
    /// How many workers live here: two while one takes over from another.
    pub workers: u32,
    /// Connections that were given to the position; nothing where nobody counts them.
    pub connections_total: Option<u64>,
    /// The same in a second, lately.
    pub connections_per_second: Option<f64>,
    /// Connections that are open; nothing where nobody tells.
    pub connections_active: Option<u32>,
    /// Connections that wait in its slots; nothing where it has none.
    pub queue: Option<u32>,
    /// Requests that were answered; nothing where nobody tells.
    pub requests_total: Option<u64>,
    /// Those of them with a status of 500 or more.
    pub server_errors_total: Option<u64>,
    /// Requests in a second, lately.
    pub requests_per_second: Option<f64>,
    /// Half of the requests of the last ten seconds took no longer, in µs.
    pub p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
    /// How many of all requests took at most so many seconds, for each of these limits; empty where nobody tells.
    pub seconds_buckets: Vec<(f64, u64)>,
    /// How long all requests took.
    pub seconds_sum: f64,
    /// The processor time of its workers' processes.
    pub cpu_seconds_total: Option<f64>,
    /// How many processors they use, lately.
    pub cpu: Option<f64>,
    /// The memory that they occupy (resident set size).
    pub memory_bytes: Option<u64>,
    /// The descriptors that they have open.
    pub open_files: Option<u64>,
    /// How late the event loop of the newest worker answered when it was asked last.
    pub loop_lag_us: Option<u64>,
    /// Workers that were replaced here, by reason.
    pub restarts: BTreeMap<String, u64>,
}

/// A listener; of one that is closed the sums are left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ListenerSnapshot {
    /// The address as text.
    pub address: String,
    /// `kernel`, `handoff` or `shared`; nothing when it is closed.
    pub dispatch: Option<String>,
    /// What its connections are distributed by.
    pub policy: Option<String>,
    /// Connections that wait in the socket that all share; nothing where each position has its own.
    pub queue: Option<u32>,
    /// What each position has of it.
    pub positions: Vec<ListenerPosition>,
}

/// What a position has of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListenerPosition {
    /// The position.
    pub position: u32,
    /// Connections that were given to it; nothing where nobody counts.
    pub connections_total: Option<u64>,
    /// Connections that wait in its slot.
    pub queue: Option<u32>,
}

/// Reloads and rollbacks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ReloadFigures {
    /// How many ended how.
    pub outcomes: BTreeMap<String, u64>,
    /// How many took at most so many seconds, for each of these limits.
    pub seconds_buckets: Vec<(f64, u64)>,
    /// How long all of them took.
    pub seconds_sum: f64,
    /// How many have ended.
    pub count: u64,
    /// How long the last one took.
    pub last_seconds: Option<f64>,
}

/// The primary's own process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PrimaryFigures {
    /// Its processor time.
    pub cpu_seconds_total: Option<f64>,
    /// How many processors it uses, lately.
    pub cpu: Option<f64>,
    /// The descriptors that it has open.
    pub open_files: Option<u64>,
    /// How late its event loop is, and its memory.
    #[serde(flatten)]
    pub vitals: PrimaryStatus,
}
