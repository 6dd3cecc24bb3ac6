//! What this worker answers, counted while the primary watches it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phalanx_core::health::Health;

/// How often the primary is told.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts of finished responses; none while nobody watches.
#[derive(Debug, Default)]
pub(super) struct Counts {
    is_watched: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    health: Health,
    told_at: Option<Instant>,
}

impl Counts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew, or ends.
    pub(super) fn watch(&self, wanted: bool) {
        *self.state() = State {
            health: Health::default(),
            told_at: Some(phalanx_sys::clock::now()),
        };
        self.is_watched.store(wanted, Ordering::Release);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Acquire)
    }

    /// Counts a finished response.
    pub(super) fn record(&self, is_server_error: bool, time: Duration) {
        if self.is_watched() {
            self.state().health.record(is_server_error, time);
        }
    }

    /// What the primary is told now; nothing while there is nothing to tell.
    pub(super) fn to_tell(&self) -> Option<Health> {
        let mut state = self.state();
        state.told_at = Some(phalanx_sys::clock::now());
        // Whoever has no meter would seem to answer nothing.
        (state.health.requests > 0).then(|| state.health.clone())
    }

    /// Waits until the primary is to be told.
    pub(super) async fn is_due(&self) {
        let told_at = self.state().told_at;
        if let Some(told_at) = told_at {
            tokio::time::sleep_until((told_at + INTERVAL).into()).await;
        }
    }
}
