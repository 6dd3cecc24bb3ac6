//! Requests that change nothing.

use serde::{Deserialize, Serialize};

use super::answers::Differences;
use super::routes;
use super::snapshot::Snapshot;
use super::status::{Status, WorkerStatus};
use super::{Method, Request};

/// The app's state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct GetStatus {}

impl Request for GetStatus {
    type Answer = Status;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = routes::STATUS;
}

/// The app's workers alone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct GetWorkers {}

impl Request for GetWorkers {
    type Answer = Vec<WorkerStatus>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = routes::WORKERS;
}

/// The app's figures.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct GetSnapshot {}

impl Request for GetSnapshot {
    type Answer = Snapshot;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = routes::METRICS_JSON;
}

/// What a reload would change, of an app that a file describes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct GetDifferences {}

impl Request for GetDifferences {
    type Answer = Differences;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = routes::DIFF;
}

/// What an orchestrator asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "each has its path")]
pub enum Probe {
    /// Is the primary alive?
    Live,
    /// Does the app serve, and is it not about to stop?
    Ready,
    /// Has it served once?
    Started,
}
