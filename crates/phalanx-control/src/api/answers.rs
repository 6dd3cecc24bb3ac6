//! What answers a request that succeeded, other than the status.

use phalanx_core::fleet;
use serde::{Deserialize, Serialize};

use super::words::{AppliedBy, Policy};

/// A command was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "done", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "one for each command")]
pub enum Done {
    /// Every worker is of this generation.
    Reloaded {
        /// The new generation.
        generation: u32,
    },
    /// Every worker is of this generation again.
    RolledBack {
        /// The generation that was returned to.
        generation: u32,
    },
    /// The app has this many workers.
    Scaled {
        /// How many.
        workers: u32,
    },
    /// Workers were replaced.
    Recycled {
        /// How many.
        workers: u32,
    },
    /// All workers are gone.
    Stopped,
}

impl Done {
    /// The generation that serves, where that is what was asked for.
    #[must_use]
    pub fn generation(self) -> u32 {
        match self {
            Self::Reloaded { generation } | Self::RolledBack { generation } => generation,
            Self::Scaled { .. } | Self::Recycled { .. } | Self::Stopped => 0,
        }
    }

    /// How many workers it concerns, where it concerns a number.
    #[must_use]
    pub fn workers(self) -> u32 {
        match self {
            Self::Scaled { workers } | Self::Recycled { workers } => workers,
            Self::Reloaded { .. } | Self::RolledBack { .. } | Self::Stopped => 0,
        }
    }
}

impl From<fleet::Done> for Done {
    fn from(done: fleet::Done) -> Self {
        match done {
            fleet::Done::Reloaded { generation } => Self::Reloaded {
                generation: generation.0,
            },
            fleet::Done::RolledBack { generation } => Self::RolledBack {
                generation: generation.0,
            },
            fleet::Done::Scaled { workers } => Self::Scaled { workers },
            fleet::Done::Recycled { workers } => Self::Recycled { workers },
            fleet::Done::Stopped => Self::Stopped,
        }
    }
}

/// Connections were rebalanced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rebalanced {
    /// Connections that workers held above their shares when it began.
    pub above_before: u32,
    /// The same when it ended.
    pub above_after: u32,
    /// Open connections of all workers that serve.
    pub open: u32,
}

/// The policy was changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PolicyChanged {
    /// The policy in force.
    pub policy: Policy,
}

/// A message was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sent {
    /// To how many workers.
    pub workers: usize,
}

/// How the file that describes an app differs from what runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Differences {
    /// The file.
    pub file: String,
    /// The profile of it that the app was started with.
    pub profile: Option<String>,
    /// What differs.
    pub changes: Vec<Difference>,
}

/// A key whose value differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// The key.
    pub key: String,
    /// What runs; nothing where the key was not there.
    pub from: Option<String>,
    /// What the file says; nothing where the key is not there.
    pub to: Option<String>,
    /// What applies it.
    pub by: AppliedBy,
}
