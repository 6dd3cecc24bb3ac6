//! What a reader of the event stream goes by. The engine writes more (docs/events.md): what is not named here is passed by.

use phalanx_core::level::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::words::WorkerState;

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// When, in milliseconds since the Unix epoch.
    pub time: u64,
    /// How much it matters.
    #[cfg_attr(test, schemars(with = "String"))]
    pub level: Level,
    /// The same in words.
    pub text: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    /// Reads a line of the stream. What lacks the fields that every event has is none.
    #[must_use]
    pub fn read(line: &Value) -> Option<Self> {
        Self::deserialize(line).ok()
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// The supervisor decided something.
    Fleet(Report),
    /// Something else.
    #[serde(other)]
    Other,
}

/// What the supervisor decided.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "report", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Report {
    /// A worker passed from one state to another.
    Changed {
        /// Its position.
        position: u32,
        /// The state that it entered.
        to: WorkerState,
    },
    /// A reload or a rollback begins.
    RolloutStarted {
        /// Positions to replace.
        workers: u64,
    },
    /// One more position is replaced.
    RolloutProgress {
        /// Positions done.
        done: u64,
        /// Positions in all.
        workers: u64,
    },
    /// How the canaries do.
    CanaryProgress {},
    /// The canaries did no worse than the others.
    CanaryPassed {},
    /// The number of workers changes.
    ScaleStarted {
        /// Until now.
        from: u64,
        /// From now on.
        to: u64,
    },
    /// One more position is ready, or empty.
    ScaleProgress {
        /// Positions done.
        done: u64,
        /// Positions to add or to empty.
        of: u64,
    },
    /// The app stops.
    StopStarted {
        /// Workers that live.
        workers: u64,
    },
    /// Something else.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(fields: &Value) -> Option<What> {
        let mut line = json!({"time": 1, "level": "info", "text": "so"});
        for (name, value) in fields.as_object().unwrap() {
            line[name] = value.clone();
        }
        Event::read(&line).map(|event| event.what)
    }

    #[test]
    fn a_reader_passes_by_what_it_does_not_know() {
        let changed = json!({"event": "fleet", "report": "changed", "position": 3, "to": "ready", "reason": {"why": "serves"}});
        assert_eq!(
            event(&changed),
            Some(What::Fleet(Report::Changed {
                position: 3,
                to: WorkerState::Ready
            }))
        );
        let progress = json!({"event": "fleet", "report": "canary_progress", "canary": {}});
        assert_eq!(
            event(&progress),
            Some(What::Fleet(Report::CanaryProgress {}))
        );
        let later = json!({"event": "fleet", "report": "of_a_later_version", "x": 1});
        assert_eq!(event(&later), Some(What::Fleet(Report::Other)));
        assert_eq!(
            event(&json!({"event": "fork", "worker": 1})),
            Some(What::Other)
        );
        assert_eq!(Event::read(&json!({"event": "fork"})), None);
    }
}
