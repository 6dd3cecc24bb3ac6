//! Looks after the primary itself: how late its event loop is, and how much memory it has. Both are
//! measured here, by the one they concern, so that `status` tells them and a breach of the bounds is in the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use phalanx_control::api::PrimaryStatus;
use phalanx_core::dispatch::vitals::{Breach, INTERVAL, Vitals};
use phalanx_sys::process::Pid;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::primary::{CgroupPlace, Cluster};

/// The memory is looked at every so many looks: once a second.
const MEMORY_EVERY: u32 = 10;

/// The measurements, shared with who shows them.
#[derive(Clone, Debug)]
pub(super) struct Measured(Arc<Mutex<Vitals>>);

impl Measured {
    /// Measures from now on, as long as somebody holds the result and the cluster.
    pub(super) fn start(cluster: &Cluster) -> Self {
        let vitals = Arc::new(Mutex::new(Vitals::default()));
        let cluster = Arc::downgrade(&cluster.shared);
        tokio::spawn(measure(Arc::downgrade(&vitals), cluster));
        Self(vitals)
    }

    fn vitals(&self) -> MutexGuard<'_, Vitals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All workers are up: this is what it takes.
    pub(super) fn settled(&self, workers: usize) {
        let mut vitals = self.vitals();
        if vitals.idle_bytes().is_none()
            && let Some(bytes) = memory_bytes()
        {
            vitals.settled(bytes, count(workers));
        }
    }

    pub(super) fn status(&self, cluster: &Cluster) -> PrimaryStatus {
        let CgroupPlace {
            path,
            absent_because,
        } = cluster.shared.trees.cgroup_place();
        let vitals = self.vitals();
        let lag = vitals.lag();
        PrimaryStatus {
            loop_lag_p50_ms: millis(lag.p50),
            loop_lag_p99_ms: millis(lag.p99),
            loop_lag_max_ms: millis(lag.max),
            memory_bytes: memory_bytes().unwrap_or_else(|| vitals.memory_bytes()),
            memory_idle_bytes: vitals.idle_bytes(),
            cgroup: path,
            no_cgroup: absent_because,
        }
    }
}

async fn measure(vitals: Weak<Mutex<Vitals>>, cluster: Weak<crate::primary::Shared>) {
    let begun = phalanx_sys::clock::now();
    let mut ticks = interval_at((begun + INTERVAL).into(), INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut busy_before = phalanx_sys::clock::busy();
    let mut looks = 0_u32;
    loop {
        let due = ticks.tick().await;
        let (now, busy) = (phalanx_sys::clock::now(), phalanx_sys::clock::busy());
        let (Some(vitals), Some(cluster)) = (vitals.upgrade(), cluster.upgrade()) else {
            return;
        };
        let measured = Measured(vitals);
        let late = now.saturating_duration_since(due.into_std());
        let ran = busy.saturating_sub(busy_before).min(late);
        busy_before = busy;
        looks = looks.wrapping_add(1);
        let workers = cluster.hub().worker_count();
        measured.look(
            late,
            ran,
            workers,
            now - begun,
            looks.is_multiple_of(MEMORY_EVERY),
        );
    }
}

impl Measured {
    fn look(&self, late: Duration, ran: Duration, workers: usize, now: Duration, all: bool) {
        let mut vitals = self.vitals();
        let lag = vitals.late(late, ran, now);
        let memory = all
            .then(memory_bytes)
            .flatten()
            .and_then(|bytes| vitals.memory(bytes, count(workers), now));
        drop(vitals);
        for breach in [lag, memory].into_iter().flatten() {
            tell(breach);
        }
    }
}

fn tell(breach: Breach) {
    match breach {
        Breach::Lag { by, busy } => tracing::warn!(
            "the primary was late by {by:.0?}, and on a processor for {busy:.0?} of it: {}",
            if busy * 2 > by {
                "it had too much to do at once"
            } else {
                "it was stopped, or the machine had no time for it"
            }
        ),
        Breach::Memory { bytes, idle_bytes } => tracing::warn!(
            "the primary takes {} MiB of memory, and {} MiB when it is idle",
            bytes >> 20,
            idle_bytes >> 20
        ),
        _ => {}
    }
}

fn memory_bytes() -> Option<u64> {
    phalanx_sys::limits::resident_bytes(Pid::current()).ok()
}

fn count(workers: usize) -> u64 {
    u64::try_from(workers).unwrap_or(u64::MAX)
}

/// In milliseconds, to a tenth.
fn millis(duration: Duration) -> f64 {
    let tenths = u32::try_from(duration.as_micros() / 100).unwrap_or(u32::MAX);
    f64::from(tenths) / 10.0
}
