//! What a reader of the logs asks for.

use phalanx_core::ids::{Position, WorkerId};
use serde::Deserialize;

use super::Chunk;

/// The query of `GET /v1/logs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Query {
    /// Go on with what comes, until the app ends.
    pub follow: bool,
    /// Begin with so many of the last lines; with all that are kept where nothing is said.
    pub lines: Option<u64>,
    /// Only lines that were read from then on, in milliseconds since the Unix epoch.
    pub since: Option<u64>,
    /// Only lines of the workers at this position.
    pub position: Option<u32>,
    /// Only lines of the worker with this id.
    pub worker: Option<u32>,
}

impl Query {
    /// Whether lines of this chunk are asked for.
    pub(super) fn wants(&self, chunk: &Chunk) -> bool {
        self.since.is_none_or(|since| chunk.at >= since)
            && self
                .position
                .is_none_or(|one| chunk.position == Position(one))
            && self.worker.is_none_or(|one| chunk.worker == WorkerId(one))
    }

    /// As the end of a path: `?follow=true&lines=10`.
    #[must_use]
    pub fn text(&self) -> String {
        let follow = self.follow.then(|| "follow=true".to_owned());
        let number = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
        let parts = [
            follow,
            number("lines", self.lines),
            number("since", self.since),
            number("position", self.position.map(u64::from)),
            number("worker", self.worker.map(u64::from)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            return String::new();
        }
        format!("?{}", parts.join("&"))
    }
}
