//! What clients and director share while a drill runs: the account, its clock, and the word to stop.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phalanx_sys::clock;
use tokio::sync::watch;

use super::account::Account;

/// The account of a drill that runs.
#[derive(Debug)]
pub(super) struct Session {
    account: Mutex<Account>,
    started_at: Instant,
    stop: watch::Sender<bool>,
}

impl Session {
    /// Opens the session; the drill starts now.
    pub(super) fn open() -> Self {
        Self {
            account: Mutex::new(Account::default()),
            started_at: clock::now(),
            stop: watch::Sender::new(false),
        }
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.started_at)
    }

    /// A time since the start, as a moment.
    pub(super) fn moment(&self, since_start: Duration) -> Instant {
        self.started_at + since_start
    }

    /// The account, locked. Never held across an await.
    pub(super) fn account(&self) -> MutexGuard<'_, Account> {
        // Entries are sums; none can be half made.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients finish the request at hand and stop.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the clients are to stop.
    pub(super) async fn stopping(&self) {
        // The sender is here, so it cannot be gone.
        drop(self.stop.subscribe().wait_for(|stop| *stop).await);
    }
}
