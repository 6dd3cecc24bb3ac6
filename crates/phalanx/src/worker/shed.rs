//! Connections that a worker is to end politely although it stays, so that their clients come to others.
//!
//! The primary says how many to keep, again and again, and is told each time what is held. Only connections that HTTP is spoken on can
//! be ended politely; the others (upgraded ones, those with server-sent events, those that are not served by [`serve`](crate::serve)) are fixed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use phalanx_core::wire::HoldReport;
use tokio::sync::Notify;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Shed {
    /// Whether `keep` says something: answers look at this alone while nothing is rebalanced.
    is_wanted: AtomicBool,
    state: Mutex<State>,
    /// Rings when more may have to end.
    bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many connections to keep.
    keep: Option<u32>,
    /// Those that HTTP is spoken on.
    spoken: u32,
    /// Those of them on which server-sent events are under way.
    events: u32,
    /// Those that were told to end, and are there still.
    ending: u32,
}

impl State {
    /// What is held now, where the scoreboard counts so many.
    fn report(&self, held: u32) -> HoldReport {
        let open = held.max(self.spoken);
        HoldReport {
            open,
            ending: self.ending,
            fixed: open - self.spoken + self.events.min(self.spoken),
        }
    }
}

impl Shed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many are to be kept.
    pub(super) fn keep(&self, keep: Option<u32>) {
        self.state().keep = keep;
        self.is_wanted.store(keep.is_some(), Ordering::Release);
        if keep.is_some() {
            self.bell.notify_waiters();
        }
    }

    /// What is held now, where the scoreboard counts so many.
    pub(super) fn report(&self, held: u32) -> HoldReport {
        self.state().report(held)
    }
}

#[cfg(feature = "serve")]
impl Shed {
    /// HTTP is spoken on one more. It counts until [`Shed::ended`].
    pub(super) fn begun(&self) {
        self.state().spoken += 1;
    }

    /// HTTP is spoken on one no more: it ended, or was upgraded.
    pub(super) fn ended(&self, was_told: bool) {
        let mut state = self.state();
        state.spoken = state.spoken.saturating_sub(1);
        if was_told {
            state.ending = state.ending.saturating_sub(1);
        }
    }

    /// Server-sent events have begun on one, or have ended.
    pub(super) fn streams(&self, begun: bool) {
        let mut state = self.state();
        state.events = if begun {
            state.events + 1
        } else {
            state.events.saturating_sub(1)
        };
    }

    /// Whether one more connection is to end, where the scoreboard counts so many. It counts as ending until [`Shed::ended`].
    pub(super) fn take(&self, held: impl FnOnce() -> u32) -> bool {
        if !self.is_wanted.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state();
        let Some(keep) = state.keep else {
            return false;
        };
        let HoldReport { open, ending, .. } = state.report(held());
        let is_one_more = open.saturating_sub(ending) > keep;
        if is_one_more {
            state.ending += 1;
        }
        is_one_more
    }

    /// Waits until one more connection is to end, and takes that on.
    pub(super) async fn turn(&self, held: impl Fn() -> u32) {
        loop {
            let mut bell = std::pin::pin!(self.bell.notified());
            bell.as_mut().enable();
            if self.take(&held) {
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
    fn as_many_are_kept_as_is_wanted_however_often_it_is_said() {
        let shed = Shed::default();
        (0..4).for_each(|_| shed.begun());
        assert!(!shed.take(|| 4));
        shed.keep(Some(2));
        assert!(shed.take(|| 4) && shed.take(|| 4) && !shed.take(|| 4));
        shed.keep(Some(2));
        assert!(!shed.take(|| 4), "two are ending");
        shed.ended(true);
        assert!(!shed.take(|| 3), "one of the two has ended");
        shed.keep(Some(1));
        assert!(shed.take(|| 3));
        shed.keep(None);
        assert!(!shed.take(|| 3));
    }

    #[test]
    fn what_nobody_speaks_http_on_is_fixed() {
        let shed = Shed::default();
        (0..4).for_each(|_| shed.begun());
        shed.streams(true);
        let report = shed.report(6);
        assert_eq!((report.open, report.ending, report.fixed), (6, 0, 3));
        // Where there is no scoreboard.
        assert_eq!(shed.report(0).open, 4);
    }
}
