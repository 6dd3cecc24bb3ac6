//! Connections that a worker is to end politely although it stays, so that their clients come to others.
//!
//! The primary says how many to keep, again and again, and is told each time what is held. Only connections that HTTP is spoken on can
//! be ended politely; the others (upgraded ones, those with server-sent events, those that are not served by [`serve`](crate::serve)) are fixed, unless
//! the primary wants streams ended and the program has said that it ends this one when it is told ([`OpenStream`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use phalanx_core::wire::{HoldReport, Shed as Wanted};
use tokio::sync::Notify;

use super::ThisWorker;

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
    /// Streams are to end, too.
    wants_streams: bool,
    /// Streams that the program ends when it is told.
    streams: u32,
    /// Those of them that were told, and are there still.
    ending_streams: u32,
}

impl State {
    /// What is held now, where the scoreboard counts so many.
    fn report(&self, held: u32) -> HoldReport {
        let open = held.max(self.spoken.saturating_add(self.streams));
        let movable = if self.wants_streams { self.streams } else { 0 };
        let fixed = open - self.spoken + self.events.min(self.spoken);
        HoldReport {
            open,
            ending: self.ending + self.ending_streams,
            fixed: fixed.saturating_sub(movable),
        }
    }

    /// How many connections are to end that have not been told, where the scoreboard counts so many.
    fn excess(&self, held: u32) -> u32 {
        let HoldReport { open, ending, .. } = self.report(held);
        let keep = self.keep.unwrap_or(u32::MAX);
        open.saturating_sub(ending).saturating_sub(keep)
    }
}

impl Shed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many are to be kept.
    pub(super) fn keep(&self, wanted: Wanted) {
        let mut state = self.state();
        (state.keep, state.wants_streams) = (wanted.keep, wanted.streams);
        drop(state);
        self.is_wanted
            .store(wanted.keep.is_some(), Ordering::Release);
        if wanted.keep.is_some() {
            self.bell.notify_waiters();
        }
    }

    /// What is held now, where the scoreboard counts so many.
    pub(super) fn report(&self, held: u32) -> HoldReport {
        self.state().report(held)
    }

    /// Whether one more stream is to end, where the scoreboard counts so many: what HTTP is spoken on goes first.
    fn take_stream(&self, held: impl FnOnce() -> u32) -> bool {
        if !self.is_wanted.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state();
        let others = state.spoken.saturating_sub(state.events + state.ending);
        let is_one_more = state.wants_streams && state.excess(held()) > others;
        if is_one_more {
            state.ending_streams += 1;
        }
        is_one_more
    }

    /// Waits until one more stream is to end, and takes that on.
    async fn stream_turn(&self, held: impl Fn() -> u32) {
        loop {
            let mut bell = std::pin::pin!(self.bell.notified());
            bell.as_mut().enable();
            if self.take_stream(&held) {
                return;
            }
            bell.await;
        }
    }
}

/// Why a stream is to end ([`OpenStream::dismissed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dismissal {
    /// This worker is to leave ([`ThisWorker::draining`]).
    Leaving,
    /// This worker stays, and has more than its share: `phalanx rebalance --streams`.
    Rebalance,
}

/// A connection on which the program no longer speaks HTTP, a `WebSocket` above all, and which it ends when it is told. From
/// [`ThisWorker::stream`]. Hold it for as long as the connection is open.
#[derive(Debug)]
pub struct OpenStream {
    worker: ThisWorker,
    was_told: AtomicBool,
}

impl OpenStream {
    pub(super) fn new(worker: ThisWorker) -> Self {
        worker.inner.shed.state().streams += 1;
        Self {
            worker,
            was_told: AtomicBool::new(false),
        }
    }

    /// Waits until this stream is to end. End it as its protocol has it: a `WebSocket` with code 1001 ("going away"). The client connects
    /// again, and lands on another worker. Whoever has been told once is told at once again.
    pub async fn dismissed(&self) -> Dismissal {
        let inner = &self.worker.inner;
        if !self.was_told.load(Ordering::Acquire) {
            tokio::select! {
                biased;
                () = inner.leaving.wait() => return Dismissal::Leaving,
                () = inner.shed.stream_turn(|| inner.held()) => {}
            }
            self.was_told.store(true, Ordering::Release);
        }
        Dismissal::Rebalance
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut state = self.worker.inner.shed.state();
        state.streams = state.streams.saturating_sub(1);
        if *self.was_told.get_mut() {
            state.ending_streams = state.ending_streams.saturating_sub(1);
        }
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
        let is_one_more = state.excess(held()) > 0;
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

    fn kept(keep: impl Into<Option<u32>>) -> Wanted {
        Wanted {
            keep: keep.into(),
            streams: false,
        }
    }

    #[test]
    fn as_many_are_kept_as_is_wanted_however_often_it_is_said() {
        let shed = Shed::default();
        (0..4).for_each(|_| shed.begun());
        assert!(!shed.take(|| 4));
        shed.keep(kept(2));
        assert!(shed.take(|| 4) && shed.take(|| 4) && !shed.take(|| 4));
        shed.keep(kept(2));
        assert!(!shed.take(|| 4), "two are ending");
        shed.ended(true);
        assert!(!shed.take(|| 3), "one of the two has ended");
        shed.keep(kept(1));
        assert!(shed.take(|| 3));
        shed.keep(kept(None));
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

    #[test]
    fn streams_end_where_that_is_wanted_and_after_everything_else() {
        let shed = Shed::default();
        (0..2).for_each(|_| shed.begun());
        shed.state().streams = 3;
        assert_eq!(shed.report(5).fixed, 3);
        shed.keep(kept(1));
        assert!(!shed.take_stream(|| 5), "they stay unless it is wanted");
        let wanted = |keep| Wanted {
            keep: Some(keep),
            streams: true,
        };
        shed.keep(wanted(3));
        assert_eq!(shed.report(5).fixed, 0);
        assert!(!shed.take_stream(|| 5), "two others can end");
        assert!(shed.take(|| 5) && shed.take(|| 5) && !shed.take(|| 5));
        shed.keep(wanted(2));
        assert!(shed.take_stream(|| 5) && !shed.take_stream(|| 5));
        assert_eq!(shed.report(5).ending, 3);
    }
}
