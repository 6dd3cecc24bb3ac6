//! The figures of an app that go beyond its status: rates, percentiles, processor time.

use phalanx_control::api::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Asks for the metrics snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct GetFigures {}

impl Request for GetFigures {
    /// As it came: a primary may tell more than is used here, or in another form.
    type Answer = Value;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/metrics.json";
}

/// What is used of the metrics snapshot.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    pub(crate) up_seconds: Option<f64>,
    pub(crate) positions: Vec<PositionFigures>,
}

/// A position's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PositionFigures {
    pub(crate) position: u32,
    pub(crate) worker: Option<u32>,
    pub(crate) connections_per_second: Option<f64>,
    pub(crate) requests_per_second: Option<f64>,
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
    /// In processors.
    pub(crate) cpu: Option<f64>,
    pub(crate) loop_lag_us: Option<u64>,
}

impl Figures {
    /// Reads an answer.
    pub(crate) fn read(answer: Value) -> Option<Self> {
        serde_json::from_value(answer).ok()
    }
}

impl PositionFigures {
    /// Requests a second where they are known, else connections.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.requests_per_second.or(self.connections_per_second)
    }
}
