//! Whether this worker is to leave, and when it last took a connection.
//!
//! Both are asked and told once a connection, so neither takes a lock: a flag, and a clock that is read
//! without looking at the processor's counter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How long after its last connection this worker begins to finish: HTTP servers (hyper, and axum with
/// it) close a connection of which they have read nothing when they are told to finish.
const SETTLE: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    begun: AtomicBool,
    /// Rings when this worker is to leave.
    bell: Notify,
    /// In ms of [`phalanx_sys::clock::coarse`], and at least 1; 0 while there was none.
    last_accepted_ms: AtomicU64,
}

impl Leaving {
    /// From now on it is to leave. The caller rings when all that follows from it is done.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Tells those who wait for it.
    pub(super) fn ring(&self) {
        self.bell.notify_waiters();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until it is to leave.
    pub(super) async fn wait(&self) {
        loop {
            let bell = self.bell.notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            if self.has_begun() {
                return;
            }
            bell.await;
        }
    }

    /// The application took a connection.
    pub(super) fn note_accepted(&self) {
        let now = phalanx_sys::clock::coarse();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_accepted_ms.store(now.max(1), Ordering::Release);
    }

    /// Waits until the last connection has had a moment to be read.
    pub(super) async fn settled(&self) {
        let last = self.last_accepted_ms.load(Ordering::Acquire);
        if last == 0 {
            return;
        }
        let since = phalanx_sys::clock::coarse().saturating_sub(Duration::from_millis(last));
        let left = (SETTLE + phalanx_sys::clock::COARSENESS).saturating_sub(since);
        tokio::time::sleep_until((phalanx_sys::clock::now() + left).into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_took_no_connection_has_nothing_to_wait_for() {
        let leaving = Leaving::default();
        leaving.begin();
        leaving.ring();
        let before = phalanx_sys::clock::now();
        leaving.wait().await;
        leaving.settled().await;
        assert!(before.elapsed() < SETTLE);
    }

    #[tokio::test]
    async fn the_last_connection_has_a_moment_to_be_read() {
        let leaving = Leaving::default();
        let before = phalanx_sys::clock::now();
        leaving.note_accepted();
        leaving.settled().await;
        assert!(before.elapsed() >= SETTLE);
    }
}
