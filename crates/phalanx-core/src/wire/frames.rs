//! Cuts the byte stream of a channel into lines, with a bound on what one line may hold.

mod values;

use super::json::JsonCheck;
use super::splice::Serialization;

/// The longest message that a primary takes from a worker, in bytes, its newline included: 12 MiB. Node.js
/// itself has no limit; a worker that sends more than this is told in the log and loses that message alone.
pub const MAX_MESSAGE_BYTES: usize = 12 << 20;

/// The longest message that a worker takes from its primary, which it trusts: 64 MiB.
pub const MAX_MESSAGE_TO_WORKER_BYTES: usize = 64 << 20;

/// The room for one read, at least a quarter of it and at most all of it. What a turn of reading costs is bounded by it.
const READ_BYTES: usize = 16 << 10;

/// Longer lines are checked while they arrive, each byte once.
const LONG_BYTES: usize = 64 << 10;

/// One cut of the stream.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a reader must handle each, and there is no other"
)]
pub enum Frame<'a> {
    /// A whole line without its newline.
    Line(&'a [u8]),
    /// The same, of more than 64 KiB, which was found to be JSON (but perhaps not UTF-8) while it arrived.
    Long(&'a [u8]),
    /// A line of more than 64 KiB has ended that is no JSON; its bytes were dropped.
    Senseless,
    /// A whole message in the other serialization, without its length.
    Value(&'a [u8]),
    /// A message longer than the limit has ended; its bytes were dropped.
    Oversized,
}

/// What becomes of the line under way.
#[derive(Debug, Default)]
enum Line {
    /// It is short so far.
    #[default]
    Short,
    /// It is checked as it comes.
    Long(JsonCheck),
    /// It is no JSON: its bytes are dropped.
    Senseless,
    /// It is too long: its bytes are dropped.
    Oversized,
}

/// The bytes received and not yet read. Memory grows with the longest line and shrinks after it.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    filled: usize,
    line: Line,
    limit: usize,
    serialization: Serialization,
    /// So many bytes of a value that is too long are still to be dropped.
    dropping: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self::with_limit(MAX_MESSAGE_BYTES)
    }
}

impl Frames {
    /// A cutter that drops lines of more than `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            filled: 0,
            line: Line::Short,
            limit,
            serialization: Serialization::Json,
            dropping: 0,
        }
    }

    /// A cutter of what a worker writes in this serialization.
    #[must_use]
    pub fn of(serialization: Serialization) -> Self {
        Self {
            serialization,
            ..Self::default()
        }
    }

    /// Lends a buffer to read into. Most of the time nothing is left of one read when the next
    /// comes, so one buffer serves many channels; where something is left, the buffer stays.
    pub fn lend(&mut self, buffer: &mut Vec<u8>) {
        if self.start == self.filled && self.buffer.capacity() == 0 {
            std::mem::swap(&mut self.buffer, buffer);
            (self.start, self.scanned, self.filled) = (0, 0, 0);
        }
    }

    /// Takes the buffer back, if all of it was read.
    pub fn reclaim(&mut self, buffer: &mut Vec<u8>) {
        if self.start == self.filled
            && buffer.capacity() == 0
            && self.buffer.len() <= 4 * READ_BYTES
        {
            std::mem::swap(&mut self.buffer, buffer);
            (self.start, self.scanned, self.filled) = (0, 0, 0);
        }
    }

    /// Room to read into, never empty, and never more than one turn's work. Say how much was read with
    /// [`Frames::fill`].
    pub fn room(&mut self) -> &mut [u8] {
        self.compact();
        if self.buffer.len() - self.filled < READ_BYTES / 4 {
            // INVARIANT: what is kept of a line is shorter than the limit, so there is always room for a read.
            let most = self.limit.saturating_add(READ_BYTES);
            let grown = (self.buffer.len() * 2).clamp(READ_BYTES, most);
            self.buffer.resize(grown, 0);
        }
        let end = self.buffer.len().min(self.filled + READ_BYTES);
        &mut self.buffer[self.filled..end]
    }

    /// Marks `count` bytes of [`Frames::room`] as read.
    pub fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// The next message, if a whole one is there.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        match self.serialization {
            Serialization::Json => self.next_line(),
            Serialization::Advanced => self.next_value(),
        }
    }

    fn next_line(&mut self) -> Option<Frame<'_>> {
        let newline = self.buffer[self.scanned..self.filled]
            .iter()
            .position(|&byte| byte == b'\n');
        let end = newline.map_or(self.filled, |offset| self.scanned + offset);
        self.check(end);
        if newline.is_none() {
            self.scanned = self.filled;
            if matches!(self.line, Line::Senseless | Line::Oversized) {
                self.start = self.filled;
            }
            return None;
        }
        let line = self.start..end;
        self.start = end + 1;
        self.scanned = self.start;
        Some(match std::mem::take(&mut self.line) {
            Line::Short => Frame::Line(&self.buffer[line]),
            Line::Long(check) if check.is_whole() => Frame::Long(&self.buffer[line]),
            Line::Long(_) | Line::Senseless => Frame::Senseless,
            Line::Oversized => Frame::Oversized,
        })
    }

    /// Whether bytes wait that were not cut yet: a turn may end before its lines do.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.scanned < self.filled
    }

    /// What the buffer takes, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Looks at what came of the line under way, up to `end`.
    fn check(&mut self, end: usize) {
        let length = end - self.start;
        if matches!(self.line, Line::Oversized) {
            return;
        }
        if length >= self.limit {
            self.line = Line::Oversized;
            return;
        }
        let fresh = match &mut self.line {
            Line::Short if length > LONG_BYTES => {
                self.line = Line::Long(JsonCheck::default());
                self.start
            }
            Line::Long(_) => self.scanned,
            Line::Short | Line::Senseless | Line::Oversized => return,
        };
        if let Line::Long(check) = &mut self.line
            && !check.take(&self.buffer[fresh..end])
        {
            self.line = Line::Senseless;
        }
    }

    /// Moves what is unread to the front, and lets a buffer go that one long line had grown.
    fn compact(&mut self) {
        if self.start == self.filled {
            self.start = 0;
            self.scanned = 0;
            self.filled = 0;
            if self.buffer.len() > 4 * READ_BYTES {
                self.buffer = Vec::new();
            }
        } else if self.start > 0 && self.buffer.len() - self.filled < READ_BYTES / 4 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.scanned -= self.start;
            self.start = 0;
        }
    }
}
