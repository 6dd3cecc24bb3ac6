//! What a worker is not ready for, and the words for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ListenerName;

/// What a worker is not ready for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lacks", content = "listeners", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words")]
pub enum Lack {
    /// It listens nowhere.
    AnyListener,
    /// It listens, but not on these listeners, which its predecessor held.
    Listeners(Vec<ListenerName>),
    /// It listens nowhere; its predecessor held these listeners.
    EveryListener(Vec<ListenerName>),
    /// It listens on these, but is not seen to accept connections there, as its predecessor was.
    Accepting(Vec<ListenerName>),
    /// It has not said that it is ready.
    Word,
    /// It has not answered well.
    Answer,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyListener => f.write_str(
                "it listens nowhere; a program that accepts no connections takes --adopt none",
            ),
            Self::Listeners(names) => write!(
                f,
                "it does not listen on {}, as its predecessor does; a release that gives it up takes \
                 --allow-fewer-listeners",
                joined(names)
            ),
            Self::EveryListener(names) => {
                write!(
                    f,
                    "it does not listen on {}, as its predecessor does",
                    joined(names)
                )
            }
            Self::Accepting(names) => write!(
                f,
                "it listens on {}, but is not seen to accept connections there, as its predecessor does",
                joined(names)
            ),
            Self::Word => f.write_str("it has not said that it is ready"),
            Self::Answer => f.write_str("it does not answer well"),
        }
    }
}

/// So many names are told at most.
const TOLD: usize = 8;

fn joined(names: &[ListenerName]) -> String {
    let told: Vec<_> = names.iter().take(TOLD).map(ToString::to_string).collect();
    let told = told.join(" and ");
    match names.len().checked_sub(TOLD) {
        None | Some(0) => told,
        Some(more) => format!("{told} and {more} more"),
    }
}
