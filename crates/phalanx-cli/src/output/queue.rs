//! The queue of one place to write to: bounded in bytes, and nobody who hands in a line ever waits.

use std::fs::File;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phalanx_control::logs::Chunk;

use super::Dropped;

/// A write that failed is tried again after so long.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(250);
/// What became of some entries.
pub(super) enum Written {
    All,
    /// There was no room: the lines that were left are dropped, with all that waited.
    Part(String),
    /// There is no use in writing more: the reader is gone, which is no reason for the app to stop serving, or
    /// nobody waits for it any more.
    Gone(String),
}

/// What may wait for the reader of one stream: half of it in the queue, half of it being written.
pub(super) const QUEUE_BYTES: usize = 8 << 20;
/// Room that a queue keeps when it is empty, in entries.
const KEPT_ENTRIES: usize = 1 << 10;

/// What waits to be written.
#[derive(Debug)]
pub(super) enum Entry {
    /// Lines as they are.
    Text(Box<[u8]>),
    /// Lines of a worker, yet to be formed.
    Lines(Arc<Chunk>),
}

impl Entry {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len() + mem::size_of::<Self>(),
            Self::Lines(chunk) => chunk.size(),
        }
    }

    /// How many lines these are.
    pub(super) fn lines(&self) -> u64 {
        match self {
            Self::Text(text) => lines_in(text),
            Self::Lines(chunk) => chunk.count(),
        }
    }
}

/// How many lines end in these bytes.
pub(super) fn lines_in(bytes: &[u8]) -> u64 {
    let lines = bytes.iter().map(|&byte| usize::from(byte == b'\n'));
    u64::try_from(lines.sum::<usize>()).unwrap_or(u64::MAX)
}

/// What the thread that writes has to change.
pub(super) enum Change {
    /// It writes to this file from now on.
    To(File),
    /// It opens its own file anew.
    Reopen,
}

#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Lines have arrived, there is a change, the queue was closed, or the thread has ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Entry>,
    waiting_bytes: usize,
    /// Lines that were dropped, and that nobody was told of.
    untold: Dropped,
    dropped_in_all: u64,
    /// Why the last ones were.
    because: Option<String>,
    change: Option<Change>,
    /// No more lines will come.
    closed: bool,
    /// The thread has written everything, or cannot write any more.
    ended: bool,
}

impl State {
    fn drop_lines(&mut self, lines: u64, because: Option<&str>) {
        if lines == 0 {
            return;
        }
        self.untold.lines += lines;
        self.dropped_in_all += lines;
        if let Some(because) = because {
            self.untold.because = Some(because.to_owned());
        }
        // What the queue has no room for while writing fails is lost for that reason.
        self.because.clone_from(&self.untold.because);
    }

    fn drop_waiting(&mut self, because: &str) {
        let lines = self.waiting.iter().map(Entry::lines).sum();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.drop_lines(lines, Some(because));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can leave a queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push_text(&self, text: &[u8]) {
        self.push(Entry::Text(text.into()));
    }

    pub(super) fn push(&self, entry: Entry) {
        let mut state = self.lock();
        let size = entry.size();
        if state.ended || state.waiting_bytes + size > QUEUE_BYTES / 2 {
            // What cannot be written at all is told already.
            let because = state.because.clone().filter(|_| state.ended);
            return state.drop_lines(entry.lines(), because.as_deref());
        }
        state.waiting_bytes += size;
        state.waiting.push(entry);
        let was_empty = state.waiting.len() == 1;
        drop(state);
        // The thread waits for the first only.
        if was_empty {
            self.changed.notify_all();
        }
    }

    pub(super) fn change(&self, change: Change) {
        self.lock().change = Some(change);
        self.changed.notify_all();
    }

    pub(super) fn take_change(&self) -> Option<Change> {
        self.lock().change.take()
    }

    /// Waits for lines, for a loss to be told, or for a change, and takes the lines. False once the queue is closed and empty.
    pub(super) fn take(&self, entries: &mut Vec<Entry>) -> bool {
        let is_to_tell = |state: &State| state.untold.lines > 0 && state.untold.because.is_none();
        let nothing_to_do = |state: &mut State| {
            state.waiting.is_empty()
                && !is_to_tell(state)
                && state.change.is_none()
                && !state.closed
        };
        let waited = self.changed.wait_while(self.lock(), nothing_to_do);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        entries.clear();
        entries.shrink_to(KEPT_ENTRIES);
        mem::swap(&mut state.waiting, entries);
        state.waiting_bytes = 0;
        !entries.is_empty() || is_to_tell(&state) || state.change.is_some()
    }

    /// Lines that could not be written.
    pub(super) fn drop_lines(&self, lines: u64, because: &str) {
        self.lock().drop_lines(lines, Some(because));
    }

    /// Drops what waits. True if no more will come.
    pub(super) fn drop_waiting(&self, because: &str) -> bool {
        let mut state = self.lock();
        state.drop_waiting(because);
        state.closed
    }

    /// Waits so long, but no longer than until a change or the end.
    pub(super) fn pause(&self, limit: Duration) {
        let is_open = |state: &mut State| !state.closed && state.change.is_none();
        // Whatever ended the wait, it is tried again.
        drop(self.changed.wait_timeout_while(self.lock(), limit, is_open));
    }

    /// What is to be told of lines that were dropped, once something can be written again.
    pub(super) fn untold(&self, something_was: bool) -> Option<Dropped> {
        let mut state = self.lock();
        let may_tell = state.untold.because.is_none() || something_was;
        let untold = (may_tell && state.untold.lines > 0).then(|| mem::take(&mut state.untold));
        drop(state);
        untold
    }

    /// The thread writes no more; what waits, and what comes, is dropped. Tells how much was so far.
    pub(super) fn end(&self, because: Option<&str>) -> Option<Dropped> {
        let mut state = self.lock();
        if let Some(because) = because {
            state.drop_waiting(because);
            state.because = Some(because.to_owned());
        }
        state.ended = true;
        let mut untold = mem::take(&mut state.untold);
        untold.for_good = true;
        drop(state);
        self.changed.notify_all();
        because.map(|_| untold)
    }

    /// How many lines were dropped since the start, and why the last ones were.
    pub(super) fn dropped_in_all(&self) -> (u64, Option<String>) {
        let state = self.lock();
        (state.dropped_in_all, state.because.clone())
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.lock().waiting_bytes
    }

    /// Closes the queue, and waits until the thread has ended, but no longer than `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        // Whatever the result, nothing is left to be done: the limit is one of patience.
        drop(
            self.changed
                .wait_timeout_while(state, limit, |state| !state.ended),
        );
    }

    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }
}
