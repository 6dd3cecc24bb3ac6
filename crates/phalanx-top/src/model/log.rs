//! The last events, in words.

use std::collections::VecDeque;

use phalanx_control::show;
use serde_json::Value;

/// Lines that are kept.
const LINES: usize = 500;
/// What is kept of a line.
const LETTERS: usize = 400;

/// An event in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// In milliseconds since the Unix epoch.
    pub(crate) time: u64,
    /// From 0, `error`, to 4, `trace`.
    pub(crate) rank: usize,
    /// Fit to be shown.
    pub(crate) text: String,
}

/// The last events.
#[derive(Debug)]
pub(crate) struct Log {
    lines: VecDeque<Line>,
    /// What ranks behind this is not shown.
    pub(crate) depth: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            depth: INFO,
        }
    }
}

/// The levels, most important first.
pub(crate) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const INFO: usize = 2;
const DEBUG: usize = 3;

impl Log {
    pub(crate) fn push(&mut self, event: &Value) {
        let rank = LEVELS.iter().position(|level| event["level"] == *level);
        let text = event["text"].as_str().unwrap_or_default();
        let rank = rank.unwrap_or(INFO);
        if rank > DEBUG || text.is_empty() {
            return;
        }
        let text: String = text.chars().take(LETTERS).collect();
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(Line {
            time: event["time"].as_u64().unwrap_or_default(),
            rank,
            text: show::plain(&text).into_owned(),
        });
    }

    /// Shows each step too, or no longer.
    pub(crate) fn toggle(&mut self) {
        self.depth = if self.depth == INFO { DEBUG } else { INFO };
    }

    /// The lines that are shown, newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Line> {
        self.lines
            .iter()
            .rev()
            .filter(|line| line.rank <= self.depth)
    }
}
