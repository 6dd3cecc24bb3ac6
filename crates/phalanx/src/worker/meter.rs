//! Times requests into the scoreboard, by which the policy `fastest` compares workers, and counts them for
//! the watch over canaries.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use phalanx_core::wire::outgoing;

use super::channel::Inner;

/// Times the requests of this worker. Cheap to clone, works from any thread.
///
/// `axum` and `tower` users add it as a layer (features `axum` and `tower`); others call
/// [`Meter::begin`] for each request.
#[derive(Clone)]
pub struct Meter {
    inner: Arc<Inner>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl Meter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// A request has begun. Without a scoreboard (no listener yet, or a primary that has none) it does nothing.
    pub fn begin(&self) -> Timed {
        let seat = self.inner.seat();
        if let Some(seat) = seat {
            seat.began();
        }
        let counts = seat.is_some() || self.inner.health.is_watched();
        Timed {
            began: counts.then(|| (Arc::clone(&self.inner), phalanx_sys::clock::now())),
        }
    }
}

/// A request under way. Dropped, it counts as cut short, and says nothing of this worker's speed.
#[must_use = "a request that is dropped at once is not timed"]
pub struct Timed {
    began: Option<(Arc<Inner>, Instant)>,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").finish_non_exhaustive()
    }
}

impl Timed {
    /// The request has been answered.
    pub fn end(self) {
        self.finish(false);
    }

    /// The request has been answered by a server error (a status of 500 or more). It counts as a
    /// request like any other for the policies; the watch over a canary judges by it.
    pub fn end_with_error(self) {
        self.finish(true);
    }

    fn finish(mut self, is_server_error: bool) {
        let Some((inner, began)) = self.began.take() else {
            return;
        };
        let time = phalanx_sys::clock::now() - began;
        inner.health.record(is_server_error, time);
        if inner.leaving.has_begun() && inner.health.is_watched() {
            // There may be no other moment to tell.
            inner.tell_health();
        }
        if let Some(seat) = inner.seat() {
            seat.ended(time);
        }
    }
}

impl Inner {
    pub(super) fn tell_health(&self) {
        let Some(health) = self.health.to_tell() else {
            return;
        };
        let told = self.send_line(|seq| outgoing::worker::health(&health, seq));
        if let Err(error) = told {
            tracing::debug!(%error, "the primary is gone");
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if let Some((inner, _)) = self.began.take()
            && let Some(seat) = inner.seat()
        {
            seat.ended_untimed();
        }
    }
}
