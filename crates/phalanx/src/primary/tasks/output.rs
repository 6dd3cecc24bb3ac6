//! Reads what workers print, whole lines at a time, and gives it to whoever wants it; never makes a worker wait.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::{Generation, Position, WorkerId};
use tokio::net::unix::pipe::Receiver;

use crate::primary::tasks::last_lines::LastLines;

/// A line longer than this is passed on in pieces, each a line of its own.
const LINE_LIMIT_BYTES: usize = 1 << 20;
/// How much is read at once, at most.
const READ_BYTES: usize = 32 << 10;
/// How often busy pipes are read.
const TICK: Duration = Duration::from_millis(4);
/// A pipe in which so much waited at a tick is one that may hold up its worker: half of what a pipe holds (pipe(7)).
const MUCH_BYTES: usize = 32 << 10;
/// What such a pipe holds afterwards. Others stay as they are: what a user's pipes may hold together is limited (pipe(7)).
const BUSY_PIPE_BYTES: usize = 256 << 10;

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

/// Lines that a worker wrote one after the other, and that were read together.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OutputLines<'a> {
    /// Who wrote them.
    pub worker: WorkerId,
    /// Its position.
    pub position: Position,
    /// Its generation; always 1 in the low-level style.
    pub generation: Generation,
    /// Where to.
    pub stream: Stream,
    /// The bytes: whole lines. The last one has no newline where it was cut at 1 MiB or the stream ended.
    pub bytes: &'a [u8],
}

impl<'a> OutputLines<'a> {
    /// The lines one by one, each with its newline.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.split_inclusive(|&byte| byte == b'\n')
    }
}

/// Takes the lines of all workers as they are read. Called on the event loop: it must not block.
pub type LinesSink = Arc<dyn Fn(OutputLines<'_>) + Send + Sync>;

/// Hands the lines on one by one.
pub(crate) fn line_by_line(sink: OutputSink) -> LinesSink {
    Arc::new(move |lines: OutputLines<'_>| {
        for line in lines.lines() {
            sink(OutputLine {
                worker: lines.worker,
                position: lines.position,
                stream: lines.stream,
                line,
            });
        }
    })
}

/// Where a worker's output goes.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub(crate) worker: WorkerId,
    pub(crate) position: Position,
    pub(crate) generation: Generation,
    pub(crate) sink: Option<LinesSink>,
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
    fn lines(&self, stream: Stream, bytes: &[u8]) {
        self.last.push(bytes);
        if let Some(sink) = &self.sink {
            sink(OutputLines {
                worker: self.worker,
                position: self.position,
                generation: self.generation,
                stream,
                bytes,
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
    let mut reading = Reading {
        cutter: Cutter::default(),
        stream,
        outlet,
    };
    Ok(tokio::spawn(async move {
        // A pipe that cannot be read has ended.
        drop(reading.read_to_end(pipe).await);
        reading.cutter.finish(stream, &reading.outlet);
    }))
}

/// A pipe that is being read.
///
/// While a worker says little, the event loop waits for its pipe. Each write to a pipe that somebody waits for wakes him,
/// though there is something in it already (`pipe_write` of Linux 5.5 and later): one who writes much would pay for that with every line. So while
/// lines come one after the other nobody waits for the pipe, and it is emptied at each tick.
struct Reading {
    cutter: Cutter,
    stream: Stream,
    outlet: Outlet,
}

/// What a turn of reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// The pipe is empty; so many bytes were in it.
    All(usize),
    /// The turn was over first.
    Part(usize),
    /// There is no writer any more.
    End,
}

impl Reading {
    async fn read_to_end(&mut self, mut pipe: Receiver) -> io::Result<()> {
        let mut heard_at = None;
        loop {
            pipe.readable().await?;
            let now = phalanx_sys::clock::now();
            let before = heard_at.replace(now);
            if self.turn(|room| pipe.try_read(room))? == Read::End {
                return Ok(());
            }
            self.cutter.rest();
            if before.is_none_or(|before| now - before >= TICK) {
                tokio::task::yield_now().await;
                continue;
            }
            let busy = File::from(pipe.into_nonblocking_fd()?);
            if self.by_ticks(&busy).await? == Read::End {
                return Ok(());
            }
            self.cutter.rest();
            pipe = Receiver::from_owned_fd(busy.into())?;
        }
    }

    /// Empties the pipe at each tick, until it was found empty.
    async fn by_ticks(&mut self, mut pipe: &File) -> io::Result<Read> {
        let mut is_small = true;
        loop {
            tokio::time::sleep_until(next_tick()).await;
            let mut bytes = 0;
            loop {
                match self.turn(|room| pipe.read(room))? {
                    Read::End => return Ok(Read::End),
                    Read::All(count) => {
                        bytes += count;
                        break;
                    }
                    Read::Part(count) => bytes += count,
                }
                tokio::task::yield_now().await;
            }
            if bytes == 0 {
                return Ok(Read::All(0));
            }
            if is_small && bytes >= MUCH_BYTES {
                is_small = false;
                // One who may not have more goes on with what he has.
                drop(phalanx_sys::pipe::enlarge(pipe, BUSY_PIPE_BYTES));
            }
        }
    }

    /// A worker that prints without end leaves the others their turns.
    fn turn(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Read> {
        let begun = phalanx_sys::clock::now();
        let mut turn = Turn::default();
        let mut bytes = 0;
        while !turn.is_over(begun.elapsed()) {
            match read(self.cutter.room()) {
                Ok(0) => return Ok(Read::End),
                Ok(count) => {
                    turn.read(count);
                    bytes += count;
                    self.cutter.cut(count, self.stream, &self.outlet);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Read::All(bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Read::Part(bytes))
    }
}

/// The next of the moments at which all busy pipes are read, so that one timer wakes for all.
fn next_tick() -> tokio::time::Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = phalanx_sys::clock::now();
    let first = *FIRST.get_or_init(|| now);
    let since = (now - first).as_millis() / TICK.as_millis() + 1;
    let ticks = u32::try_from(since).unwrap_or(u32::MAX);
    (first + TICK * ticks).into()
}

/// Cuts what was read after the last whole line; each byte is looked at once, and each read makes one call.
#[derive(Default)]
struct Cutter {
    buffer: Vec<u8>,
    /// So much of the buffer was read.
    filled: usize,
}

impl Cutter {
    /// Room to read into. Workers are silent most of the time, and there may be many: there is none meanwhile.
    fn room(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.filled < READ_BYTES / 2 {
            self.buffer.resize(self.filled + READ_BYTES, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Gives up the room when nothing waits.
    fn rest(&mut self) {
        self.buffer.truncate(self.filled);
        self.buffer.shrink_to_fit();
    }

    /// Passes on the lines that are whole, of which `count` bytes more were read.
    fn cut(&mut self, count: usize, stream: Stream, outlet: &Outlet) {
        let scanned = self.filled;
        self.filled += count;
        let news = &self.buffer[scanned..self.filled];
        let newline = news.iter().rposition(|&byte| byte == b'\n');
        let mut end = newline.map_or(0, |newline| scanned + newline + 1);
        if self.filled - end >= LINE_LIMIT_BYTES {
            end = self.filled;
        }
        if end > 0 {
            outlet.lines(stream, &self.buffer[..end]);
            self.buffer.copy_within(end..self.filled, 0);
            self.filled -= end;
        }
    }

    /// Passes on what is left at the end.
    fn finish(&self, stream: Stream, outlet: &Outlet) {
        if self.filled > 0 {
            outlet.lines(stream, &self.buffer[..self.filled]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_are_read() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&seen);
        let outlet = Outlet {
            worker: WorkerId(1),
            position: Position(0),
            generation: Generation(1),
            sink: Some(line_by_line(Arc::new(move |line: OutputLine<'_>| {
                taken.lock().unwrap().push(line.line.len());
            }))),
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
            cutter.room()[..part.len()].copy_from_slice(part);
            cutter.cut(part.len(), Stream::Stdout, &outlet);
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
