//! What answers a request that failed.

use phalanx_core::command::{CommandError, CommandErrorKind};
use serde::{Deserialize, Serialize};

use super::words::ErrorKind;

/// The answer to a request that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failed {
    /// What failed.
    pub error: Error,
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Error {
    /// What kind of failure; it decides the status code.
    pub kind: ErrorKind,
    /// What, where and why, in one line.
    #[serde(default = "no_reason")]
    pub reason: String,
    /// The last lines that the failed worker wrote, where they were read.
    #[serde(default)]
    pub last_lines: Vec<String>,
}

fn no_reason() -> String {
    "the primary gave no reason".to_owned()
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        Self {
            kind: error.kind.into(),
            reason: error.reason,
            last_lines: error.last_lines,
        }
    }
}

impl From<CommandErrorKind> for ErrorKind {
    fn from(kind: CommandErrorKind) -> Self {
        Self::from(kind.as_str())
    }
}

impl ErrorKind {
    /// The status code of an answer with such an error.
    #[must_use]
    pub fn status_code(&self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::TokenNeeded => 401,
            Self::OtherHost | Self::OtherOrigin | Self::OtherUser => 403,
            Self::NoSuchPath | Self::NoSuchWorker | Self::NoFile | Self::NoLogs => 404,
            Self::NoSuchMethod => 405,
            Self::TooSlow => 408,
            Self::TooLarge => 413,
            Self::Lost => 500,
            Self::Stopping | Self::Ended | Self::NotSent | Self::TooManyStreams => 503,
            Self::RolloutFailed
            | Self::ScaleFailed
            | Self::RecycleFailed
            | Self::NoEarlierRelease
            | Self::Superseded
            | Self::DescriptionWrong
            | Self::PolicyNotHere
            | Self::NotRebalanced
            | Self::Other(_) => 409,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_of_a_command_has_its_word() {
        for kind in CommandErrorKind::ALL {
            let word = ErrorKind::from(kind);
            assert!(!matches!(word, ErrorKind::Other(_)), "{word}");
        }
    }
}
