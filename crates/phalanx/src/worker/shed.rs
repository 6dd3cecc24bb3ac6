//! Connections that a worker is to end politely although it stays, so that their clients come to others.
//!
//! The primary says how many, again and again, those included that are ending already: so what counts is how many end at a time.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Shed {
    wanted: AtomicU32,
    /// Those that were told to end, and are there still.
    #[cfg(feature = "serve")]
    ending: AtomicU32,
    /// Rings when more are to end.
    bell: Notify,
}

impl Shed {
    /// So many are to end.
    pub(super) fn want(&self, count: u32) {
        self.wanted.store(count, Ordering::Release);
        if count > 0 {
            self.bell.notify_waiters();
        }
    }
}

#[cfg(feature = "serve")]
impl Shed {
    /// Whether one more connection is to end. It counts until [`Shed::ended`].
    pub(super) fn take(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Acquire);
        let one_more = |ending: u32| (ending < wanted).then(|| ending + 1);
        self.ending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
    }

    /// One that was to end has ended.
    pub(super) fn ended(&self) {
        self.ending.fetch_sub(1, Ordering::AcqRel);
        // What was wanted included it.
        let one_fewer = |wanted: u32| wanted.checked_sub(1);
        // Where nothing is wanted any more, nothing is taken off.
        let _unchanged = self
            .wanted
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_fewer);
    }

    /// Waits until one more connection is to end, and takes that on.
    pub(super) async fn turn(&self) {
        loop {
            let mut bell = std::pin::pin!(self.bell.notified());
            bell.as_mut().enable();
            if self.take() {
                return;
            }
            bell.await;
        }
    }
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use super::*;

    #[test]
    fn as_many_end_as_are_wanted_however_often_it_is_said() {
        let shed = Shed::default();
        assert!(!shed.take());
        shed.want(2);
        assert!(shed.take() && shed.take() && !shed.take());
        shed.want(2);
        assert!(!shed.take(), "both are ending");
        shed.ended();
        assert!(!shed.take(), "it was one of the two");
        shed.want(1);
        assert!(!shed.take());
        shed.ended();
        shed.want(1);
        assert!(shed.take());
    }
}
