//! Connections that were handed over and that the application has not taken yet.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A connection that arrived and waits for the application.
pub(super) struct Arrived {
    pub(super) connection: OwnedFd,
    pub(super) seq: Option<u64>,
}

/// The connections of one listener that the application has not taken yet. The primary's window bounds it.
#[derive(Default)]
pub(super) struct Queue {
    arrived: Mutex<VecDeque<Arrived>>,
    changed: Notify,
    closed: AtomicBool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next connection; nothing once the listener is closed.
    pub(super) async fn next(&self) -> Option<Arrived> {
        loop {
            let changed = self.changed.notified();
            if let Some(arrived) = self.lock().pop_front() {
                return Some(arrived);
            }
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            changed.await;
        }
    }

    pub(super) fn close(&self) -> VecDeque<Arrived> {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
        std::mem::take(&mut *self.lock())
    }

    /// False when it is closed already.
    pub(super) fn push(&self, arrived: Arrived) -> Option<Arrived> {
        let mut queue = self.lock();
        if self.closed.load(Ordering::Acquire) {
            return Some(arrived);
        }
        queue.push_back(arrived);
        drop(queue);
        self.changed.notify_one();
        None
    }
}
