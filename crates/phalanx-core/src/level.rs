//! How much something matters, when it happened, and counts in words.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How much a line matters, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "there are no levels between these")]
pub enum Level {
    /// Something was not done.
    Error,
    /// Something went wrong and is being dealt with.
    Warn,
    /// What an operator wants to know; told by default.
    Info,
    /// Each step.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The level in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_millis() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// So many workers, in words.
#[must_use]
pub fn counted(workers: impl Into<u64>) -> String {
    let workers = workers.into();
    let plural = if workers == 1 { "" } else { "s" };
    format!("{workers} worker{plural}")
}
