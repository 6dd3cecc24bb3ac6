//! Reads the kept lines from a place on, and puts them into the form that clients get.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::{Generation, Position, WorkerId};
use phalanx_core::level::now_millis;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Chunk, Kept, Logs, Query};

/// What is taken out of the ring at once, in bytes, about.
const PIECE_BYTES: usize = 64 << 10;
/// How often a stream without lines says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How objects are set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One object a line.
    Lines,
    /// One event an object, as browsers read them (`text/event-stream`).
    Events,
}

/// A reader's place.
pub(crate) struct Reader {
    logs: Logs,
    query: Query,
    form: Form,
    /// The number of the next line.
    next: u64,
    news: Option<watch::Receiver<()>>,
    /// At this line it will have read what was kept when it came; nothing once that is told.
    caught_up_at: Option<u64>,
}

/// A line, as clients get it.
#[derive(Serialize)]
struct LineObject<'a> {
    time: u64,
    app: &'a str,
    position: Position,
    worker: WorkerId,
    generation: Generation,
    stream: &'a str,
    line: Cow<'a, str>,
}

/// Lines that were gone before they were read.
#[derive(Serialize)]
struct Gap<'a> {
    time: u64,
    app: &'a str,
    /// How many, of all workers.
    missed: u64,
}

/// All that was kept when the reader came has been sent.
#[derive(Serialize)]
struct Mark<'a> {
    time: u64,
    app: &'a str,
    caught_up: bool,
}

impl Logs {
    /// Reads what the query asks for.
    pub(crate) fn read(&self, query: Query) -> Reader {
        let news = self.news().as_ref().map(watch::Sender::subscribe);
        let next = self.beginning(&query);
        Reader {
            next,
            caught_up_at: query.follow.then(|| self.ring().next.max(next)),
            logs: self.clone(),
            query,
            form: if query.follow {
                Form::Events
            } else {
                Form::Lines
            },
            news: news.filter(|_| query.follow),
        }
    }

    /// The number of the first line to be read.
    fn beginning(&self, query: &Query) -> u64 {
        let ring = self.ring();
        let Some(mut left) = query.lines else {
            return ring.oldest();
        };
        let mut first = ring.next;
        for kept in ring.kept.iter().rev() {
            if left == 0 {
                break;
            }
            if query.wants(&kept.chunk) {
                first = kept.first + kept.count.saturating_sub(left);
                left = left.saturating_sub(kept.count);
            }
        }
        first
    }
}

impl Reader {
    /// The next piece of the answer; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(news) = &mut self.news {
                // What comes after this wakes.
                news.mark_unchanged();
            }
            if let Some(piece) = self.piece() {
                return Some(piece);
            }
            let news = self.news.as_mut()?;
            match timeout(KEEP_ALIVE, news.changed()).await {
                Ok(Ok(())) => {}
                // The last lines came before the end.
                Ok(Err(_)) => self.news = None,
                Err(_) => return Some(b": keep-alive\n\n".to_vec()),
            }
        }
    }

    /// What is there, if there is something.
    fn piece(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        while piece.is_empty() {
            let (taken, missed) = self.take();
            if missed > 0 {
                let (time, app) = (now_millis(), self.logs.shared.app.as_str());
                self.put(&mut piece, &Gap { time, app, missed });
            }
            let is_all = taken.is_empty();
            for (skip, chunk) in taken {
                if self.query.wants(&chunk) {
                    self.put_lines(&mut piece, &chunk, skip);
                }
            }
            if self.caught_up_at.is_some_and(|at| self.next >= at) {
                self.caught_up_at = None;
                let (time, app) = (now_millis(), self.logs.shared.app.as_str());
                let caught_up = true;
                self.put(
                    &mut piece,
                    &Mark {
                        time,
                        app,
                        caught_up,
                    },
                );
            }
            if is_all {
                break;
            }
        }
        Some(piece).filter(|piece| !piece.is_empty())
    }

    /// Takes some chunks, each with the number of lines in it that were read already, and the count of the lines that are gone.
    fn take(&mut self) -> (Vec<(u64, Arc<Chunk>)>, u64) {
        let ring = self.logs.ring();
        let missed = ring.oldest().saturating_sub(self.next);
        let mut next = self.next + missed;
        let from = ring
            .kept
            .partition_point(|kept| kept.first + kept.count <= next);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for Kept {
            first,
            count,
            chunk,
        } in ring.kept.range(from..)
        {
            if bytes >= PIECE_BYTES {
                break;
            }
            bytes += chunk.size();
            taken.push((next.saturating_sub(*first), Arc::clone(chunk)));
            next = first + count;
        }
        drop(ring);
        self.next = next;
        (taken, missed)
    }

    fn put_lines(&self, piece: &mut Vec<u8>, chunk: &Chunk, skip: u64) {
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        for line in chunk.lines().skip(skip) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = LineObject {
                time: chunk.at,
                app: &self.logs.shared.app,
                position: chunk.position,
                worker: chunk.worker,
                generation: chunk.generation,
                stream: chunk.stream,
                line: String::from_utf8_lossy(line),
            };
            self.put(piece, &line);
        }
    }

    fn put(&self, piece: &mut Vec<u8>, object: &impl Serialize) {
        let (before, after): (&[u8], &[u8]) = match self.form {
            Form::Lines => (b"", b"\n"),
            Form::Events => (b"data: ", b"\n\n"),
        };
        piece.extend_from_slice(before);
        // INVARIANT: numbers and texts always become JSON, and a vector takes everything.
        drop(serde_json::to_writer(&mut *piece, object));
        piece.extend_from_slice(after);
    }

    /// Whether it goes on with what comes.
    pub(crate) fn form(&self) -> Form {
        self.form
    }
}
