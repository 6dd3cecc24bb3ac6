//! Reads what workers print, line by line, and gives it to whoever wants it; never makes a worker wait.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::{Position, WorkerId};
use tokio::net::unix::pipe::Receiver;

/// A line longer than this is passed on in pieces, each a line of its own.
const LINE_LIMIT_BYTES: usize = 1 << 20;
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;
/// How many of a worker's last lines are kept for error reports.
const KEPT_LINES: usize = 20;
/// How much of each kept line, in bytes.
const KEPT_LINE_BYTES: usize = 1024;

/// One of a worker's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a worker wrote.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OutputLine<'a> {
    /// Who wrote it.
    pub worker: WorkerId,
    /// Its position.
    pub position: Position,
    /// Where to.
    pub stream: Stream,
    /// The bytes, with the newline; without one where a line was cut at 1 MiB or the stream ended.
    pub line: &'a [u8],
}

/// Takes the lines of all workers. Called on the event loop: it must not block.
pub type OutputSink = Arc<dyn Fn(OutputLine<'_>) + Send + Sync>;

/// The last lines that a worker wrote, both streams together.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &[u8]) {
        let end = line.len().min(KEPT_LINE_BYTES);
        let text = String::from_utf8_lossy(&line[..end]).trim_end().to_owned();
        if text.is_empty() {
            return;
        }
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }

    pub(crate) fn to_vec(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// Where a worker's output goes.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub(crate) worker: WorkerId,
    pub(crate) position: Position,
    pub(crate) sink: Option<OutputSink>,
    pub(crate) last: LastLines,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Outlet {
    fn line(&self, stream: Stream, line: &[u8]) {
        self.last.push(line);
        if let Some(sink) = &self.sink {
            sink(OutputLine {
                worker: self.worker,
                position: self.position,
                stream,
                line,
            });
        }
    }
}

/// Reads a worker's pipe to its end, in the background.
pub(crate) fn follow(
    pipe: OwnedFd,
    stream: Stream,
    outlet: Outlet,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let pipe = Receiver::from_owned_fd(pipe)?;
    Ok(tokio::spawn(async move {
        let mut cutter = Cutter::default();
        while pipe.readable().await.is_ok() {
            let begun = phalanx_sys::clock::now();
            let mut turn = Turn::default();
            // A worker that prints without end leaves the others their turns.
            while !turn.is_over(begun.elapsed()) {
                match pipe.try_read_buf(cutter.room()) {
                    Ok(0) => return cutter.finish(stream, &outlet),
                    Ok(count) => {
                        turn.read(count);
                        cutter.cut(stream, &outlet);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return cutter.finish(stream, &outlet),
                }
            }
            cutter.rest();
            tokio::task::yield_now().await;
        }
        cutter.finish(stream, &outlet);
    }))
}

/// Cuts what was read into lines; each byte is looked at once.
#[derive(Default)]
struct Cutter {
    buffer: Vec<u8>,
    /// So much of the buffer has no newline.
    scanned: usize,
}

impl Cutter {
    /// Room to read into. Workers are silent most of the time, and there may be many: there is none meanwhile.
    fn room(&mut self) -> &mut Vec<u8> {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// Gives up the room when nothing waits.
    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Passes on the lines that are whole.
    fn cut(&mut self, stream: Stream, outlet: &Outlet) {
        let mut start = 0;
        while let Some(offset) = self.buffer[self.scanned..]
            .iter()
            .position(|&byte| byte == b'\n')
        {
            let end = self.scanned + offset + 1;
            outlet.line(stream, &self.buffer[start..end]);
            start = end;
            self.scanned = end;
        }
        if self.buffer.len() - start >= LINE_LIMIT_BYTES {
            outlet.line(stream, &self.buffer[start..]);
            start = self.buffer.len();
        }
        self.buffer.drain(..start);
        self.scanned = self.buffer.len();
    }

    /// Passes on what is left at the end.
    fn finish(self, stream: Stream, outlet: &Outlet) {
        if !self.buffer.is_empty() {
            outlet.line(stream, &self.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_are_read() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&seen);
        let outlet = Outlet {
            worker: WorkerId(1),
            position: Position(0),
            sink: Some(Arc::new(move |line: OutputLine<'_>| {
                taken.lock().unwrap().push(line.line.len());
            })),
            last: LastLines::default(),
        };
        let text = [
            vec![b'a'; 200_000],
            b"\n\nshort\n".to_vec(),
            vec![b'b'; LINE_LIMIT_BYTES + 100_000],
            b"\nend".to_vec(),
        ]
        .concat();
        let mut cutter = Cutter::default();
        for part in text.chunks(10_000) {
            cutter.room().extend_from_slice(part);
            cutter.cut(Stream::Stdout, &outlet);
        }
        cutter.finish(Stream::Stdout, &outlet);
        let lengths = seen.lock().unwrap().clone();
        assert_eq!(lengths[..3], [200_001, 1, 6]);
        assert_eq!(lengths.iter().sum::<usize>(), text.len());
        assert!(
            lengths[3] >= LINE_LIMIT_BYTES && lengths[5..] == [3],
            "{lengths:?}"
        );
    }
}
