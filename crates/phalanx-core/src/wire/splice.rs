//! The splice: a channel between Node's own primary and one of its workers, in the middle of which phalanx stands.
//!
//! What passes is looked at, not decoded: a message of the application is forwarded in whatever pieces it comes. Only
//! internal messages, which begin alike in both serializations, are kept until they are whole, and judged: connections
//! are phalanx's business, everything else is Node's.
//!
//! INVARIANT: what is forwarded is forwarded to the byte and in order. phalanx's own messages carry numbers from
//! [`FIRST_NUMBER`] and keys that begin with [`KEY_PREFIX`], which Node's never do.

mod judge;

use serde_json::Value;

use super::{WireError, advanced, parse_value};

pub use judge::{OfPrimary, OfWorker, judge_of_primary, judge_of_worker};

/// The first number of phalanx's own messages. Node counts from 0.
pub const FIRST_NUMBER: u64 = 1 << 40;
/// What the keys of phalanx's listeners begin with.
pub const KEY_PREFIX: &str = "phx:";

/// An internal message of more bytes is forwarded unseen. `send(message, handle)` makes one of the application's.
const INTERNAL_MAX: usize = 64 << 20;
/// The room for one read.
const READ_BYTES: usize = 16 << 10;

/// How messages are written (`child_process.fork`, `serialization`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "Node has these two")]
pub enum Serialization {
    /// One JSON text a line.
    #[default]
    Json,
    /// V8's own, with a length before it.
    Advanced,
}

impl Serialization {
    /// The one of this name; nothing when Node has none of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "json" => Some(Self::Json),
            "advanced" => Some(Self::Advanced),
            _ => None,
        }
    }

    /// Its name, as Node has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Advanced => "advanced",
        }
    }

    /// What internal messages begin with, as far as it is the same for all, and where that stands.
    fn looks_internal(self, frame: &[u8]) -> Look {
        match self {
            Self::Json => look(frame, br#"{"cmd":"NODE_"#),
            Self::Advanced => {
                let Some(body) = frame.get(advanced::LENGTH_BYTES..) else {
                    return Look::TooShort;
                };
                // The version of the format is V8's affair, and so is the length of the command.
                let before = look(body, b"\xff");
                let middle = body
                    .get(2..)
                    .map_or(Look::TooShort, |rest| look(rest, b"o\"\x03cmd\""));
                let command = body
                    .get(10..)
                    .map_or(Look::TooShort, |rest| look(rest, b"NODE_"));
                before.and(middle).and(command)
            }
        }
    }

    /// The command of an internal message. Only the beginning is looked at: what comes with a command may be of the
    /// application, and something that JSON cannot say.
    fn command(self, frame: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Json => {
                let rest = frame.strip_prefix(br#"{"cmd":""#)?;
                rest.split(|&byte| byte == b'"').next()
            }
            Self::Advanced => advanced::command(frame.get(advanced::LENGTH_BYTES..)?),
        }
    }

    /// A line of JSON, newline included, as this serialization has it.
    #[must_use]
    pub fn of_line(self, line: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Json => line,
            // INVARIANT: only what this crate has written comes here, and that is JSON.
            Self::Advanced => parse_value(&line).map_or(line, |value| advanced::write(&value)),
        }
    }

    /// A whole message, as JSON has it.
    fn value(self, frame: &[u8]) -> Result<Value, WireError> {
        match self {
            Self::Json => parse_value(frame),
            Self::Advanced => {
                advanced::read(frame.get(advanced::LENGTH_BYTES..).unwrap_or_default())
            }
        }
    }
}

/// Whether some bytes begin with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Yes,
    No,
    /// They do so far.
    TooShort,
}

impl Look {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::TooShort, _) | (_, Self::TooShort) => Self::TooShort,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

fn look(bytes: &[u8], wanted: &[u8]) -> Look {
    if bytes.starts_with(wanted) {
        Look::Yes
    } else if wanted.starts_with(bytes) {
        Look::TooShort
    } else {
        Look::No
    }
}

/// A piece of what comes from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever stands between must handle each"
)]
pub enum Piece<'a> {
    /// A whole internal message, with its length or newline.
    Internal(&'a [u8]),
    /// The next bytes of another message.
    Part {
        /// The bytes.
        bytes: &'a [u8],
        /// The message ends with them.
        ends: bool,
    },
}

/// Where the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a message.
    Start,
    /// In one that is kept until it is whole. So many of its bytes have been looked at.
    Internal { seen: usize },
    /// In one that is forwarded as it comes. So many bytes of it are to come, where that is known.
    Opaque { rest: Option<usize> },
}

/// Cuts what one side writes into pieces.
#[derive(Debug)]
pub struct Cutter {
    serialization: Serialization,
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    at: At,
}

impl Cutter {
    /// One that has read nothing.
    #[must_use]
    pub fn new(serialization: Serialization) -> Self {
        Self {
            serialization,
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            at: At::Start,
        }
    }

    /// Where the next bytes go; [`Self::fill`] tells how many came.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.filled + READ_BYTES {
            let doubled = (self.buffer.len() * 2).min(INTERNAL_MAX + 2 * READ_BYTES);
            self.buffer.resize(doubled.max(self.filled + READ_BYTES), 0);
        }
        let end = self.filled + READ_BYTES;
        &mut self.buffer[self.filled..end]
    }

    /// So many bytes were written into the room.
    pub fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// Gives the memory back while nothing waits in it.
    pub fn rest(&mut self) {
        if self.start == self.filled {
            self.buffer = Vec::new();
            (self.start, self.filled) = (0, 0);
        }
    }

    /// The next piece; nothing before more bytes have come.
    pub fn next_piece(&mut self) -> Option<Piece<'_>> {
        if self.at == At::Start {
            self.at = self.begin()?;
        }
        match self.at {
            At::Start => None,
            At::Internal { seen } => {
                let available = self.filled - self.start;
                let Some(length) = self.length(seen) else {
                    self.at = if available < INTERNAL_MAX {
                        At::Internal { seen: available }
                    } else {
                        self.opaque()
                    };
                    return if available < INTERNAL_MAX {
                        None
                    } else {
                        self.next_piece()
                    };
                };
                let frame = self.start..self.start + length;
                self.start = frame.end;
                self.at = At::Start;
                Some(Piece::Internal(&self.buffer[frame]))
            }
            At::Opaque { rest } => self.part(rest),
        }
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.filled]
    }

    /// What the next message is, as soon as that can be told.
    fn begin(&self) -> Option<At> {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return None;
        }
        let first = match self.serialization {
            Serialization::Json => waiting.split_inclusive(|&byte| byte == b'\n').next()?,
            Serialization::Advanced => {
                let length = self.announced()?;
                &waiting[..waiting.len().min(length)]
            }
        };
        let is_whole = match self.serialization {
            Serialization::Json => first.ends_with(b"\n"),
            Serialization::Advanced => Some(first.len()) == self.announced(),
        };
        match self.serialization.looks_internal(first) {
            Look::Yes => Some(At::Internal { seen: 0 }),
            Look::No => Some(self.opaque()),
            Look::TooShort if is_whole => Some(self.opaque()),
            Look::TooShort => None,
        }
    }

    fn opaque(&self) -> At {
        At::Opaque {
            rest: self.announced(),
        }
    }

    /// How long the message is that begins here, length and all, where it says so.
    fn announced(&self) -> Option<usize> {
        if self.serialization == Serialization::Json {
            return None;
        }
        let length = self.waiting().first_chunk::<{ advanced::LENGTH_BYTES }>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        Some(length.saturating_add(advanced::LENGTH_BYTES))
    }

    /// The length of the message that begins here, if it is whole.
    fn length(&self, seen: usize) -> Option<usize> {
        let waiting = self.waiting();
        match self.serialization {
            Serialization::Json => {
                let newline = waiting[seen..].iter().position(|&byte| byte == b'\n')?;
                Some(seen + newline + 1)
            }
            Serialization::Advanced => self.announced().filter(|&length| length <= waiting.len()),
        }
    }

    fn part(&mut self, rest: Option<usize>) -> Option<Piece<'_>> {
        let waiting = &self.buffer[self.start..self.filled];
        if waiting.is_empty() && rest != Some(0) {
            return None;
        }
        let (count, ends) = match rest {
            Some(rest) => (rest.min(waiting.len()), rest <= waiting.len()),
            None => match waiting.iter().position(|&byte| byte == b'\n') {
                Some(newline) => (newline + 1, true),
                None => (waiting.len(), false),
            },
        };
        self.at = if ends {
            At::Start
        } else {
            At::Opaque {
                rest: rest.map(|rest| rest - count),
            }
        };
        let bytes = self.start..self.start + count;
        self.start = bytes.end;
        Some(Piece::Part {
            bytes: &self.buffer[bytes],
            ends,
        })
    }
}

#[cfg(test)]
mod tests;
