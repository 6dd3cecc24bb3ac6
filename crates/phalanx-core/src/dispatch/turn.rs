//! How much of what another process sends is taken in one turn of the event loop. Then the others have
//! theirs: who sends without end slows down itself.

use std::time::Duration;

/// Bytes that one turn of reading takes from one sender, about.
pub const TURN_BYTES: usize = 64 << 10;
/// Lines (or datagrams, or calls) that one turn takes from one sender.
pub const TURN_LINES: usize = 64;
/// A turn that has taken so long takes nothing more.
pub const TURN_TIME: Duration = Duration::from_millis(2);

/// What is left of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    bytes: usize,
    lines: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            bytes: TURN_BYTES,
            lines: TURN_LINES,
        }
    }
}

impl Turn {
    /// Bytes were read.
    pub fn read(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A line was carried out.
    pub fn line(&mut self) {
        self.lines = self.lines.saturating_sub(1);
    }

    /// Is it over? `elapsed` is what the turn has taken so far.
    #[must_use]
    pub fn is_over(&self, elapsed: Duration) -> bool {
        self.bytes == 0 || self.lines == 0 || elapsed >= TURN_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_by_bytes_by_lines_or_by_time() {
        let mut turn = Turn::default();
        assert!(!turn.is_over(Duration::ZERO));
        assert!(turn.is_over(TURN_TIME));
        for _ in 1..TURN_LINES {
            turn.line();
        }
        assert!(!turn.is_over(Duration::ZERO));
        turn.line();
        assert!(turn.is_over(Duration::ZERO));
        let mut turn = Turn::default();
        turn.read(TURN_BYTES - 1);
        assert!(!turn.is_over(Duration::ZERO));
        turn.read(5);
        assert!(turn.is_over(Duration::ZERO));
    }
}
