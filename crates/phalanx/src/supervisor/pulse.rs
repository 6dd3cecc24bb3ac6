//! When something is looked at next: again and again, or never.

use std::time::Duration;

use phalanx_core::clock::Moment;

use crate::primary::clock;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    next: Option<Moment>,
}

impl Pulse {
    /// The first look is due after one interval; where it is not on, none ever is.
    pub(super) fn new(interval: Duration, is_on: bool) -> Self {
        let next = is_on.then(|| clock::now() + interval);
        Self { interval, next }
    }

    /// Waits for the next look.
    pub(super) async fn is_due(&self) {
        match self.next {
            Some(next) => clock::sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// A look begins: the next one is due an interval from now.
    pub(super) fn begin(&mut self) {
        self.next = self.next.map(|_| clock::now() + self.interval);
    }
}
