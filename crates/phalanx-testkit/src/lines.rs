//! Captured output: a growing list of lines that can be waited for.
//!
//! One reader thread a stream appends to a list; waiting is a condition variable, never a poll. A
//! wait that can no longer succeed, because every stream has ended, fails at once.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use crate::wait::Deadline;

/// How many lines a failure message shows.
const SHOWN_LINES: usize = 60;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One captured line, without its newline, and without the time that a log of phalanx begins its lines with. Bytes that
/// are no UTF-8 are replaced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Line {
    /// Its stream.
    pub stream: Stream,
    /// Its text.
    pub text: String,
}

/// The lines that a process has printed so far, on both streams, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    open_streams: usize,
}

/// The address in the first `http://ADDRESS/` of a line. Panics where there is none.
#[must_use]
#[track_caller]
pub fn address_in(line: &str) -> SocketAddr {
    let rest = line.split_once("http://").map_or("", |(_, rest)| rest);
    let address = rest.split('/').next().unwrap_or_default().trim();
    let address = address.parse();
    address.unwrap_or_else(|error| panic!("no address in {line:?}: {error}"))
}

/// The words that stand behind the time.
const LOG: &str = "phalanx: ";
/// The form of the time; digits for zeros.
const TIME: &str = "0000-00-00T00:00:00.000Z ";

/// A line as it would be with `--log-time never`: another's name may stand before the time (`api | …`).
fn without_time(line: &str) -> String {
    let is_like = |(byte, form): (u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == form,
    };
    let is_time =
        |text: &str| text.len() == TIME.len() && text.bytes().zip(TIME.bytes()).all(is_like);
    let found = line.find(LOG).and_then(|end| {
        let start = end.checked_sub(TIME.len())?;
        let time = line.get(start..end)?;
        is_time(time).then(|| format!("{}{}", &line[..start], &line[end..]))
    });
    found.unwrap_or_else(|| line.to_owned())
}

impl Lines {
    /// Starts a thread that reads `source` to its end.
    pub(crate) fn capture(&self, stream: Stream, source: impl Read + Send + 'static) {
        self.lock().open_streams += 1;
        let lines = self.clone();
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut raw = Vec::new();
            while matches!(source.read_until(b'\n', &mut raw), Ok(1..)) {
                let text = String::from_utf8_lossy(&raw);
                let text = without_time(text.trim_end_matches(['\n', '\r']));
                lines.lock().lines.push(Line { stream, text });
                lines.shared.grown.notify_all();
                raw.clear();
            }
            lines.lock().open_streams -= 1;
            lines.shared.grown.notify_all();
        });
    }

    /// The number of lines so far: a mark for [`Lines::wait_after`].
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().lines.len()
    }

    /// A copy of all lines so far.
    #[must_use]
    pub fn all(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    /// What one stream has printed so far, each line ended by a newline.
    #[must_use]
    pub fn text(&self, stream: Stream) -> String {
        let state = self.lock();
        let of_stream = state.lines.iter().filter(|line| line.stream == stream);
        of_stream.fold(String::new(), |all, line| all + &line.text + "\n")
    }

    /// Waits for a line that contains `part`, among those already there or yet to come.
    #[track_caller]
    pub fn wait_for(&self, part: &str, deadline: impl Into<Deadline>) -> String {
        self.wait_after(0, deadline, &format!("a line with {part:?}"), |line| {
            line.contains(part)
        })
    }

    /// Waits for a line, at index `mark` or later, of which `wanted` is true. Panics with `what`
    /// and the output so far when the deadline passes or the output ends without it.
    #[track_caller]
    pub fn wait_after(
        &self,
        mark: usize,
        deadline: impl Into<Deadline>,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = deadline.into();
        let mut next = mark;
        let mut state = self.lock();
        loop {
            if let Some(line) = state
                .lines
                .iter()
                .skip(next)
                .find(|line| wanted(&line.text))
            {
                return line.text.clone();
            }
            next = next.max(state.lines.len());
            let reason = if state.open_streams == 0 {
                "the output ended"
            } else if deadline.has_passed() {
                "the deadline passed"
            } else {
                let woken = self.shared.grown.wait_timeout(state, deadline.remaining());
                state = woken.expect("no reader panics while it holds the lock").0;
                continue;
            };
            let shown = render(&state.lines);
            drop(state);
            panic!("{reason} before {what}; output:\n{shown}");
        }
    }

    /// Waits until every stream has ended; `false` at the deadline (a descendant may hold one).
    pub fn wait_end(&self, deadline: impl Into<Deadline>) -> bool {
        let deadline = deadline.into();
        let waited = self
            .shared
            .grown
            .wait_timeout_while(self.lock(), deadline.remaining(), |state| {
                state.open_streams > 0
            })
            .expect("no reader panics while it holds the lock");
        !waited.1.timed_out()
    }

    /// The last lines, for a failure message.
    #[must_use]
    pub fn shown(&self) -> String {
        render(&self.lock().lines)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .expect("no reader panics while it holds the lock")
    }
}

fn render(lines: &[Line]) -> String {
    let hidden = lines.len().saturating_sub(SHOWN_LINES);
    let mut shown = String::new();
    if hidden > 0 {
        writeln!(shown, "  ({hidden} lines before)").expect("a String takes every write");
    }
    for Line { stream, text } in lines.iter().skip(hidden) {
        let mark = if *stream == Stream::Stderr { '!' } else { '|' };
        writeln!(shown, "  {mark} {text}").expect("a String takes every write");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::LIMIT;

    #[test]
    fn the_time_of_a_log_is_no_part_of_its_lines() {
        let time = "2026-11-29T14:20:05.123Z";
        let of = |line: &str| without_time(line);
        assert_eq!(of(&format!("{time} phalanx: ready")), "phalanx: ready");
        assert_eq!(
            of(&format!("api | {time} phalanx: ready")),
            "api | phalanx: ready"
        );
        for other in [
            "phalanx: ready",
            "x phalanx: y",
            "ü phalanx: y",
            &format!("{time} ready"),
        ] {
            assert_eq!(of(other), other);
        }
    }

    #[test]
    fn lines_of_both_streams_are_kept_apart_and_found() {
        let lines = Lines::default();
        lines.capture(Stream::Stdout, &b"one\ntwo\r\nlast"[..]);
        lines.capture(Stream::Stderr, &b"bad\n"[..]);
        assert_eq!(lines.wait_for("tw", LIMIT), "two");
        assert!(lines.wait_end(LIMIT));
        assert_eq!(lines.text(Stream::Stdout), "one\ntwo\nlast\n");
        assert_eq!(lines.text(Stream::Stderr), "bad\n");
    }

    #[test]
    #[should_panic(expected = "the output ended before a line with \"absent\"")]
    fn a_line_that_can_no_longer_come_fails_at_once() {
        let lines = Lines::default();
        lines.capture(Stream::Stdout, &b"present\n"[..]);
        lines.wait_for("absent", LIMIT);
    }

    #[test]
    fn a_mark_skips_what_was_there_before() {
        let lines = Lines::default();
        lines.capture(Stream::Stdout, &b"same 1\nsame 2\n"[..]);
        assert!(lines.wait_end(LIMIT));
        let found = lines.wait_after(1, LIMIT, "the second", |line| line.starts_with("same"));
        assert_eq!(found, "same 2");
    }
}
