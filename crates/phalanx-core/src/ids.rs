//! The names of things: newtypes for what would otherwise be a bare number.
//!
//! INVARIANT: a [`WorkerId`] is unique for the primary's life and never reused. A process id is no
//! identity (the kernel reuses it), so none appears here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One supervised process. Counts from 1, as `cluster.worker.id` of Node.js does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub u32);

/// A stable index `0..N`. A worker holds a position; its successor inherits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u32);

/// Counts releases from 1: each reload starts a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Position {
    /// The least number above those of all positions. The numbers from here on are the places of spares, which serve
    /// nothing until they move to a position.
    pub const SPARES: u32 = 4096;

    /// Whether it is the place of a spare, and so no position of the app's.
    #[must_use]
    pub fn is_spare(self) -> bool {
        self.0 >= Self::SPARES
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.checked_sub(Self::SPARES) {
            None => self.0.fmt(f),
            Some(index) => write!(f, "spare-{index}"),
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a worker's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "wait(2) knows two, and whoever does not wait knows neither"
)]
pub enum ExitStatus {
    /// It called `exit`, or returned from `main`, with this code (0 to 255).
    Code(u8),
    /// It was ended by the signal of this number.
    Signal(u8),
    /// Nobody has told: another process has reaped it.
    Unknown,
}

impl ExitStatus {
    /// True for exit code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
