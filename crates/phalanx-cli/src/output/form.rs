//! The form in which lines of workers are written.

use std::borrow::Cow;

use clap::ValueEnum;
use phalanx_control::logs::Chunk;
use phalanx_control::show;
use phalanx_core::ids::{Generation, Position, WorkerId};
use phalanx_core::time::utc;
use serde::Serialize;

/// What stands in front of a worker's line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Prefix {
    /// Nothing
    #[default]
    None,
    /// The position: [0]
    Worker,
    /// Position, id, generation and stream: [0 id:12 gen:3 stderr]
    Full,
}

/// What was asked for; the rest depends on where it is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Forming {
    pub(crate) is_json: bool,
    /// Where nothing is said, the position on a terminal.
    pub(crate) prefix: Option<Prefix>,
    /// Where nothing is said, the time on a terminal.
    pub(crate) time: Option<bool>,
    /// A terminal is at the end, though behind a pipe.
    pub(crate) is_terminal: bool,
}

impl Forming {
    /// The form in one place.
    pub(super) fn on(self, is_terminal: bool) -> Form {
        let is_terminal = is_terminal || self.is_terminal;
        let on_terminal = if is_terminal {
            Prefix::Worker
        } else {
            Prefix::None
        };
        Form {
            is_json: self.is_json,
            prefix: self.prefix.unwrap_or(on_terminal),
            has_time: self.time.unwrap_or(is_terminal),
            is_terminal,
        }
    }
}

/// The form in one place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    is_json: bool,
    prefix: Prefix,
    has_time: bool,
    is_terminal: bool,
}

/// A line as an object of the log.
#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    generation: Generation,
    level: &'a str,
    position: Position,
    stream: &'a str,
    text: Cow<'a, str>,
    time: u64,
    worker: WorkerId,
}

impl Form {
    /// Adds the lines of a chunk; each ends with a newline.
    pub(super) fn put(self, chunk: &Chunk, text: &mut Vec<u8>) {
        if self.is_json {
            return put_json(chunk, text);
        }
        let prefix = self.prefix(chunk);
        if prefix.is_empty() && !self.is_terminal {
            text.extend_from_slice(&chunk.bytes);
            if !chunk.bytes.ends_with(b"\n") {
                text.push(b'\n');
            }
            return;
        }
        for line in chunk.lines() {
            text.extend_from_slice(prefix.as_bytes());
            if self.is_terminal {
                // What would steer the terminal is shown instead, colours apart.
                let line = String::from_utf8_lossy(line);
                let line = show::with_colours(line.trim_end_matches('\r'));
                text.extend_from_slice(line.as_bytes());
            } else {
                text.extend_from_slice(line);
            }
            text.push(b'\n');
        }
    }

    fn prefix(self, chunk: &Chunk) -> String {
        let Chunk {
            position,
            worker,
            generation,
            stream,
            ..
        } = chunk;
        let time = self.has_time.then(|| utc(chunk.at) + " ");
        let whose = match self.prefix {
            Prefix::None => String::new(),
            Prefix::Worker => format!("[{position}] "),
            Prefix::Full => format!("[{position} id:{worker} gen:{generation} {stream}] "),
        };
        time.unwrap_or_default() + &whose
    }
}

fn put_json(chunk: &Chunk, text: &mut Vec<u8>) {
    for line in chunk.lines() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = Line {
            event: "output",
            generation: chunk.generation,
            level: "info",
            position: chunk.position,
            stream: chunk.stream,
            text: String::from_utf8_lossy(line),
            time: chunk.at,
            worker: chunk.worker,
        };
        // INVARIANT: numbers and texts always become JSON, and a vector takes everything.
        drop(serde_json::to_writer(&mut *text, &line));
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &[u8]) -> Chunk {
        Chunk {
            at: 1_795_962_005_123,
            worker: WorkerId(12),
            position: Position(0),
            generation: Generation(3),
            stream: "stderr",
            bytes: bytes.into(),
        }
    }

    fn formed(forming: Forming, is_terminal: bool, bytes: &[u8]) -> String {
        let mut text = Vec::new();
        forming.on(is_terminal).put(&chunk(bytes), &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_are_as_they_were_unless_it_is_said_otherwise() {
        let forming = Forming::default();
        assert_eq!(formed(forming, false, b"a\r\n\x1bb"), "a\r\n\u{1b}b\n");
        let time = "2026-11-29T14:20:05.123Z ";
        assert_eq!(
            formed(forming, true, b"a\r\n\x1bb"),
            format!("{time}[0] a\n{time}[0] \\u{{1b}}b\n")
        );
        let behind = Forming {
            is_terminal: true,
            time: Some(false),
            ..forming
        };
        assert_eq!(formed(behind, false, b"\x1bb\n"), "[0] \\u{1b}b\n");
    }

    #[test]
    fn prefix_and_time_are_as_they_were_asked_for() {
        let forming = |prefix, time| Forming {
            prefix: Some(prefix),
            time: Some(time),
            ..Forming::default()
        };
        let text = b"a\nb\n";
        assert_eq!(formed(forming(Prefix::None, false), true, text), "a\nb\n");
        assert_eq!(
            formed(forming(Prefix::Worker, false), false, text),
            "[0] a\n[0] b\n"
        );
        assert_eq!(
            formed(forming(Prefix::Full, true), false, b"a"),
            "2026-11-29T14:20:05.123Z [0 id:12 gen:3 stderr] a\n"
        );
    }

    #[test]
    fn an_object_has_what_is_known_of_the_line() {
        let forming = Forming {
            is_json: true,
            ..Forming::default()
        };
        let text = formed(forming, true, b"a \"b\"\r\n\xff");
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        assert_eq!(lines[1]["text"], "\u{fffd}");
        let expected = serde_json::json!({
            "time": 1_795_962_005_123_u64, "level": "info", "event": "output", "text": "a \"b\"",
            "worker": 12, "position": 0, "generation": 3, "stream": "stderr",
        });
        assert_eq!(lines[0], expected);
    }
}
