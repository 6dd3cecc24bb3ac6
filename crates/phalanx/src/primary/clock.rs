//! The primary's run-time ([`phalanx_core::clock`]), and waiting by it.
//!
//! INVARIANT: whatever judges a worker by time takes the time from here, and waits here; a limit that
//! is reached while the primary is stopped is none. What only paces the primary's own work (a pause
//! between two looks) may wait in real time.
//!
//! It is one clock for the process, because the process is what is stopped. A cluster keeps it going.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use phalanx_core::clock::{Moment, RunClock, TICK};

use crate::primary::Cluster;
use crate::primary::Shared;

/// Gaps of this length are worth a line in the log.
const NOTABLE: Duration = Duration::from_secs(1);

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock {
    start: phalanx_sys::clock::now(),
    state: Mutex::new(RunClock::new(Duration::ZERO)),
});

struct Clock {
    start: Instant,
    state: Mutex<RunClock>,
}

impl Clock {
    fn read(&self) -> (MutexGuard<'_, RunClock>, Moment) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken under the lock, so that no reading is older than the one before.
        let reading = state.read(phalanx_sys::clock::now() - self.start);
        if let Some(gap) = reading.gap.filter(|&gap| gap >= NOTABLE) {
            tracing::warn!(
                "the primary did not run for {:.1} s: this time counts for no limit",
                gap.as_secs_f64()
            );
        }
        (state, reading.now)
    }
}

/// The present moment of the primary's run-time.
pub(crate) fn now() -> Moment {
    CLOCK.read().1
}

/// Waits until the primary has run until then.
pub(crate) async fn sleep_until(moment: Moment) {
    loop {
        let left = CLOCK.read().0.left(moment);
        if left.is_zero() {
            return;
        }
        let real = phalanx_sys::clock::now();
        match real.checked_add(left) {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for `future` until then. What has happened counts, however late it is looked at.
pub(crate) async fn timeout_at<F: Future>(moment: Moment, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep_until(moment) => None,
    }
}

impl Cluster {
    /// Has the clock kept going from now on. Needs a runtime around it.
    pub(crate) fn keep_time(&self) {
        if !self.shared.keeps_time.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep(Arc::downgrade(&self.shared)));
        }
    }
}

/// Keeps the clock going until the cluster is gone.
async fn keep(shared: Weak<Shared>) {
    now();
    while shared.strong_count() > 0 {
        let next = phalanx_sys::clock::now() + TICK;
        tokio::time::sleep_until(next.into()).await;
        now();
    }
}
