//! The last lines that a worker wrote, both streams together; and, while somebody listens, all that it writes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many of a worker's last lines are kept for error reports.
const KEPT_LINES: usize = 20;
/// How much of each kept line, in bytes.
const KEPT_LINE_BYTES: usize = 1024;
/// How much is kept while somebody listens.
const RECORDED_BYTES: usize = 128 << 10;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastLines(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Vec<u8>>,
    /// Whatever was written since somebody began to listen, up to [`RECORDED_BYTES`].
    recorded: Option<Vec<u8>>,
}

impl LastLines {
    /// Keeps the last of these lines; the others are not even looked at.
    pub(super) fn push(&self, bytes: &[u8]) {
        let is_newline = |&byte: &u8| byte == b'\n';
        let mut newest = [&[][..]; KEPT_LINES];
        let mut count = 0;
        let all = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for line in all.rsplit(is_newline) {
            let line = &line[..line.len().min(KEPT_LINE_BYTES)];
            if !line.trim_ascii_end().is_empty() {
                newest[count] = line.trim_ascii_end();
                count += 1;
            }
            if count == KEPT_LINES {
                break;
            }
        }
        let mut kept = self.kept();
        if let Some(recorded) = &mut kept.recorded {
            let room = RECORDED_BYTES.saturating_sub(recorded.len());
            recorded.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let lines = &mut kept.lines;
        for line in newest[..count].iter().rev() {
            let mut kept = match lines.len() {
                KEPT_LINES => lines.pop_front().unwrap_or_default(),
                _ => Vec::new(),
            };
            kept.clear();
            kept.extend_from_slice(line);
            lines.push_back(kept);
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<String> {
        let text = |line: &Vec<u8>| String::from_utf8_lossy(line).into_owned();
        self.kept().lines.iter().map(text).collect()
    }

    /// Keeps everything from now on, until [`LastLines::recorded`].
    pub(super) fn record(&self) {
        self.kept().recorded = Some(Vec::new());
    }

    /// How many bytes were written since [`LastLines::record`], as far as they are kept.
    pub(super) fn recorded_bytes(&self) -> usize {
        self.kept().recorded.as_ref().map_or(0, Vec::len)
    }

    /// What was written since [`LastLines::record`].
    pub(super) fn recorded(&self) -> String {
        let recorded = self.kept().recorded.take().unwrap_or_default();
        String::from_utf8_lossy(&recorded).into_owned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_in_order_and_empty_ones_are_not() {
        let last = LastLines::default();
        let lines: Vec<String> = (0..30).map(|line| format!("line {line}\n\n")).collect();
        last.push(lines.concat().as_bytes());
        last.push(b"after\r\nend");
        let kept = last.to_vec();
        assert_eq!(kept.len(), KEPT_LINES);
        assert_eq!(kept[0], "line 12");
        assert_eq!(kept[17..], ["line 29", "after", "end"]);
    }

    #[test]
    fn everything_is_kept_while_somebody_listens_up_to_a_bound() {
        let last = LastLines::default();
        last.push(b"before\n");
        last.record();
        (0..40).for_each(|_| last.push(b"one\n\ttwo\n"));
        assert_eq!(last.recorded_bytes(), 40 * 9);
        assert!(last.recorded().starts_with("one\n\ttwo\none"));
        last.record();
        last.push(&vec![b'a'; 2 * RECORDED_BYTES]);
        assert_eq!(last.recorded_bytes(), RECORDED_BYTES);
    }
}
