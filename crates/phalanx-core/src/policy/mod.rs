//! Chooses the position for a connection. One policy a file, one trait, no clock and no I/O.

mod round_robin;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use round_robin::RoundRobin;

use crate::ids::Position;

/// Chooses where a connection goes.
///
/// Policies are deterministic: the same calls in the same order give the same answers.
pub trait Policy: fmt::Debug + Send {
    /// Picks one of `eligible`, the positions that may have a connection now: ready, not draining,
    /// with room in flight. Nothing only when it is empty.
    fn choose(&mut self, eligible: &BTreeSet<Position>) -> Option<Position>;
}

/// The policies by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PolicyName {
    /// The next position in turn (alias `rr`; Node.js's `SCHED_RR`).
    #[default]
    RoundRobin,
    /// Leaves it to the operating system (alias `os`; Node.js's `SCHED_NONE`).
    None,
}

impl PolicyName {
    /// Every policy, in the order in which help lists them.
    pub const ALL: [Self; 2] = [Self::RoundRobin, Self::None];

    /// The name as flags and status write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::None => "none",
        }
    }

    /// The short name, accepted wherever the name is.
    #[must_use]
    pub fn alias(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::None => "os",
        }
    }

    /// A fresh policy of this name. `None` is carried out by the operating system; where the primary
    /// has to choose all the same (it owns the accepting socket), it falls back to taking turns.
    #[must_use]
    pub fn create(self) -> Box<dyn Policy> {
        match self {
            Self::RoundRobin | Self::None => Box::new(RoundRobin::default()),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy {0:?}: use one of round-robin (rr), none (os)")]
pub struct UnknownPolicy(String);

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.as_str() == text || policy.alias() == text)
            .ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}
