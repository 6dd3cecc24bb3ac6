//! The last output of an app's workers, kept in memory for who asks: `GET /v1/logs`.
//!
//! INVARIANT: nobody who hands in lines ever waits for a reader. What is kept is bounded in bytes and in lines; the oldest go first.
//! A reader has a place in it and nothing else: one who is too slow finds that what he would have read next is gone, and is told
//! how many lines that were. Lines are kept as they were read, many at a time, and cut when somebody reads them.

mod query;
mod reader;

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::ids::{Generation, Position, WorkerId};
use tokio::sync::watch;

pub use query::Query;
pub(crate) use reader::Form;

/// What is kept of an app's output unless it is said otherwise, in bytes.
pub const KEPT_BYTES: usize = 1 << 20;
/// Lines that are kept at most, however short they are.
pub const KEPT_LINES: u64 = 65_536;

/// Lines of one worker that were read together.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "whoever hands in lines makes these"
)]
pub struct Chunk {
    /// When they were read, in milliseconds since the Unix epoch.
    pub at: u64,
    /// Who wrote them.
    pub worker: WorkerId,
    /// Its position.
    pub position: Position,
    /// Its generation.
    pub generation: Generation,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The lines with their newlines; the last one may have none.
    pub bytes: Box<[u8]>,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("worker", &self.worker)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Chunk {
    /// The lines one by one, without their newlines.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.bytes.split_inclusive(|&byte| byte == b'\n');
        lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line))
    }

    /// How many lines these are.
    #[must_use]
    pub fn count(&self) -> u64 {
        let newlines = self.bytes.iter().map(|&byte| usize::from(byte == b'\n'));
        let is_cut = self.bytes.last().is_some_and(|&byte| byte != b'\n');
        let count = newlines.sum::<usize>() + usize::from(is_cut);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// What it takes in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + mem::size_of::<Self>() + mem::size_of::<Kept>()
    }
}

/// The last output of an app's workers.
#[derive(Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

struct Shared {
    app: String,
    limit_bytes: usize,
    ring: Mutex<Ring>,
    /// Changes when there is something new; its receivers end with the app.
    news: Mutex<Option<watch::Sender<()>>>,
}

/// Lines that are kept, and the number of the first one, counted from the start of the app.
#[derive(Clone)]
struct Kept {
    first: u64,
    count: u64,
    chunk: Arc<Chunk>,
}

#[derive(Default)]
struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The number of the next line.
    next: u64,
}

impl Ring {
    /// The number of the oldest line.
    fn oldest(&self) -> u64 {
        self.kept.front().map_or(self.next, |kept| kept.first)
    }

    fn push(&mut self, chunk: Arc<Chunk>, limit_bytes: usize) {
        let (first, count) = (self.next, chunk.count());
        self.next += count;
        self.bytes += chunk.size();
        self.kept.push_back(Kept {
            first,
            count,
            chunk,
        });
        while self.bytes > limit_bytes || self.next - self.oldest() > KEPT_LINES {
            let Some(gone) = self.kept.pop_front() else {
                return;
            };
            self.bytes -= gone.chunk.size();
        }
    }
}

impl Logs {
    /// Keeps the output of this app, at most so many bytes of it.
    #[must_use]
    pub fn new(app: impl Into<String>, limit_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                app: app.into(),
                limit_bytes,
                ring: Mutex::default(),
                news: Mutex::new(Some(watch::Sender::new(()))),
            }),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // No panic can leave it half changed.
        self.shared
            .ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, Option<watch::Sender<()>>> {
        self.shared
            .news
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in lines. Never waits.
    pub fn push(&self, chunk: Arc<Chunk>) {
        self.ring().push(chunk, self.shared.limit_bytes);
        if let Some(news) = &*self.news() {
            news.send_replace(());
        }
    }

    /// No more lines will come: readers end when they have read what is kept.
    pub fn close(&self) {
        drop(self.news().take());
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs")
            .field("bytes", &self.ring().bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
