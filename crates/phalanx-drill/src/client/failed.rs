//! Why an attempt failed, in the words of the client; and where its connection came from.

use std::io;
use std::time::Duration;

use crate::cause::{self, Cause};

/// Where a connection comes from. This tells whose it was when a worker is killed, also of one that was reset before the client
/// knew that it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client's port.
    pub(super) port: u16,
    /// When it was asked for.
    pub(super) connected_at: Duration,
}

/// Why something failed, in the words of the client.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    pub(super) detail: String,
    /// Bytes of a response had come.
    pub(super) response_has_begun: bool,
    /// Where the connection came from, if it was not made.
    pub(super) origin: Option<Origin>,
}

impl Failed {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            response_has_begun: false,
            origin: None,
        }
    }

    pub(super) fn reading(error: Option<&io::Error>, response_has_begun: bool) -> Self {
        Self {
            cause: cause::of_reading(error, response_has_begun),
            detail: error.map(io::Error::to_string).unwrap_or_default(),
            response_has_begun,
            origin: None,
        }
    }
}
