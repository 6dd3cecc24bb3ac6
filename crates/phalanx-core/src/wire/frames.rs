//! Cuts the byte stream of a channel into lines, with a bound on what one line may hold.

/// The longest message accepted, in bytes, its newline included: 64 MiB. Node.js itself has no limit;
/// a worker that sends more than this is told in the log and loses that message alone.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

const READ_BYTES: usize = 16 << 10;

/// One cut of the stream.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a reader must handle both, and there is no third"
)]
pub enum Frame<'a> {
    /// A whole line without its newline.
    Line(&'a [u8]),
    /// A line longer than the limit has ended; its bytes were dropped.
    Oversized,
}

/// The bytes received and not yet read. Memory grows with the longest line and shrinks after it.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    filled: usize,
    discarding: bool,
    limit: usize,
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
            discarding: false,
            limit,
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

    /// Room to read into, never empty. Say how much was read with [`Frames::fill`].
    pub fn room(&mut self) -> &mut [u8] {
        self.compact();
        if self.buffer.len() - self.filled < READ_BYTES / 4 {
            let grown = (self.buffer.len() * 2).max(READ_BYTES);
            self.buffer.resize(grown, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Marks `count` bytes of [`Frames::room`] as read.
    pub fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// The next line, if a whole one is there.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let newline = self.buffer[self.scanned..self.filled]
            .iter()
            .position(|&byte| byte == b'\n');
        let Some(offset) = newline else {
            self.scanned = self.filled;
            self.bound();
            return None;
        };
        let end = self.scanned + offset;
        let line = self.start..end;
        self.start = end + 1;
        self.scanned = self.start;
        if std::mem::take(&mut self.discarding) || line.len() >= self.limit {
            return Some(Frame::Oversized);
        }
        Some(Frame::Line(&self.buffer[line]))
    }

    /// Gives up the bytes of a line that is already too long.
    fn bound(&mut self) {
        if self.discarding || self.filled - self.start >= self.limit {
            self.discarding = true;
            self.start = self.filled;
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
