//! What is done about workers that hang, as the user wants it.

use std::time::Duration;

use phalanx_sys::signal::Signal;

/// What is done about workers that hang: that do not answer although something waits for them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hang {
    /// A worker that has been silent for so long, and could have answered, is replaced and then killed. None: never. Default 30 s.
    pub timeout: Option<Duration>,
    /// Each worker is asked for this path again and again, by a connection that reaches it alone; any answer will do. For programs that
    /// give no other sign of life. Default: they are not asked.
    pub probe: Option<String>,
    /// A signal at which the program prints what it is doing, sent before it is killed: QUIT for Go and Java. Default: none.
    pub signal: Option<Signal>,
}

impl Default for Hang {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(30)),
            probe: None,
            signal: None,
        }
    }
}
