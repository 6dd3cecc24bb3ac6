//! Reads what workers print, line by line, and gives it to whoever wants it; never makes a worker wait.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::ids::{Position, WorkerId};
use tokio::net::unix::pipe::Receiver;

/// A line longer than this is passed on in pieces.
const LINE_LIMIT_BYTES: usize = 64 << 10;
/// How much is read at once.
const READ_BYTES: usize = 8 << 10;
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
    /// The bytes, with the newline; without one where a line was cut at 64 KiB or the stream ended.
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
        let mut buffer = Vec::new();
        while pipe.readable().await.is_ok() {
            // Workers are silent most of the time, and there may be many: room only when there is something.
            buffer.reserve(READ_BYTES);
            match pipe.try_read_buf(&mut buffer) {
                Ok(0) => break,
                Ok(_) => cut_lines(&mut buffer, stream, &outlet),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            if buffer.is_empty() {
                buffer = Vec::new();
            }
        }
        if !buffer.is_empty() {
            outlet.line(stream, &buffer);
        }
    }))
}

fn cut_lines(buffer: &mut Vec<u8>, stream: Stream, outlet: &Outlet) {
    let mut start = 0;
    while let Some(offset) = buffer[start..].iter().position(|&byte| byte == b'\n') {
        let end = start + offset + 1;
        outlet.line(stream, &buffer[start..end]);
        start = end;
    }
    if buffer.len() - start >= LINE_LIMIT_BYTES {
        outlet.line(stream, &buffer[start..]);
        start = buffer.len();
    }
    buffer.drain(..start);
}
