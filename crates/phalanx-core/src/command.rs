//! How a command for an app ended when it was not done.

use serde::Serialize;

/// A command that was not done.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct CommandError {
    /// What kind of failure.
    pub kind: CommandErrorKind,
    /// What, where and why, in one line.
    pub reason: String,
    /// The last lines that the failed worker wrote, where they were read.
    pub last_lines: Vec<String>,
}

impl CommandError {
    /// A failure with the last lines of whoever failed.
    #[must_use]
    pub fn new(kind: CommandErrorKind, reason: String, last_lines: Vec<String>) -> Self {
        Self {
            kind,
            reason,
            last_lines,
        }
    }
}

/// Why a command was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CommandErrorKind {
    /// The new release failed; the old one serves.
    RolloutFailed,
    /// The added workers did not start.
    ScaleFailed,
    /// The successor of a worker did not start; that worker serves on.
    RecycleFailed,
    /// There is no release before the present one.
    NoEarlierRelease,
    /// A newer command took its place.
    Superseded,
    /// The description of the app is wrong; nothing was changed.
    DescriptionWrong,
    /// The app is being stopped.
    Stopping,
    /// It makes no sense as it was asked.
    Invalid,
    /// The app has ended.
    Ended,
}

impl CommandErrorKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::RolloutFailed,
        Self::ScaleFailed,
        Self::RecycleFailed,
        Self::NoEarlierRelease,
        Self::Superseded,
        Self::DescriptionWrong,
        Self::Stopping,
        Self::Invalid,
        Self::Ended,
    ];

    /// The kind in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RolloutFailed => "rollout_failed",
            Self::ScaleFailed => "scale_failed",
            Self::RecycleFailed => "recycle_failed",
            Self::NoEarlierRelease => "no_earlier_release",
            Self::Superseded => "superseded",
            Self::DescriptionWrong => "description_wrong",
            Self::Stopping => "stopping",
            Self::Invalid => "invalid",
            Self::Ended => "ended",
        }
    }
}
