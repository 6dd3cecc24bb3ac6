//! Standard output and standard error of a primary: what workers print passes through here, line by
//! line, and the log too.
//!
//! Each stream has a queue and a thread that writes. INVARIANT: nobody who hands in a line ever waits. A
//! reader that is too slow, or a disk that is full, makes a queue overflow; then lines are dropped and counted,
//! and the count is told as soon as something can be written again. Lines come out whole, one after the other.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{dup2_stderr, dup2_stdout};

use phalanx_control::show;

/// What may wait for the reader of one stream: half of it in the queue, half of it being written.
const QUEUE_BYTES: usize = 8 << 20;
/// Room that a queue keeps when it is empty.
const KEPT_BYTES: usize = 64 << 10;

/// A write that failed is tried again after so long.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What could not be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Lines.
    pub(crate) lines: u64,
    /// Why writing failed; nothing where the reader is too slow.
    pub(crate) because: Option<String>,
}

/// Told what was dropped.
type OnDropped = Box<dyn Fn(Dropped) + Send>;

/// One stream: lines go in, a thread writes them.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    is_terminal: bool,
    /// Where the stream leads, if that is a file.
    path: Option<PathBuf>,
    is_stdout: bool,
    /// Standard output leads to the same file: one thread writes both, so that no line breaks another.
    takes_stdout: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Lines have arrived, the queue was closed, or the thread has ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped_lines: u64,
    /// Takes the place of the stream.
    replacement: Option<File>,
    /// No more lines will come.
    closed: bool,
    /// The thread has written everything, or cannot write any more.
    ended: bool,
}

impl Writer {
    /// Standard output.
    ///
    /// # Errors
    /// When the stream is closed, or no thread can be started.
    pub(crate) fn stdout(on_dropped: impl Fn(Dropped) + Send + 'static) -> io::Result<Self> {
        let stdout = io::stdout();
        let mut writer = Self::start(stdout.as_fd(), stdout.is_terminal(), Box::new(on_dropped))?;
        writer.path = path_of(1);
        writer.is_stdout = true;
        Ok(writer)
    }

    /// Standard error. What it drops it tells by itself, in the words of `told`.
    ///
    /// # Errors
    /// When the stream is closed, or no thread can be started.
    pub(crate) fn stderr(told: impl Fn(Dropped) -> String + Send + 'static) -> io::Result<Self> {
        let stderr = io::stderr();
        let shared = Arc::new(Shared::default());
        let itself = Arc::clone(&shared);
        let on_dropped = Box::new(move |dropped| {
            itself.push(told(dropped).as_bytes());
        });
        let mut writer =
            Self::start_with(shared, stderr.as_fd(), stderr.is_terminal(), on_dropped)?;
        writer.path = path_of(2);
        writer.takes_stdout = is_same_file(1, 2);
        Ok(writer)
    }

    /// Whether what is for standard output has to come here too.
    pub(crate) fn takes_stdout(&self) -> bool {
        self.takes_stdout
    }

    fn start(stream: BorrowedFd<'_>, is_terminal: bool, on_dropped: OnDropped) -> io::Result<Self> {
        Self::start_with(Arc::new(Shared::default()), stream, is_terminal, on_dropped)
    }

    fn start_with(
        shared: Arc<Shared>,
        stream: BorrowedFd<'_>,
        is_terminal: bool,
        on_dropped: OnDropped,
    ) -> io::Result<Self> {
        // A duplicate, so that the lock of the standard library's own handle is never held while writing.
        let stream = File::from(stream.try_clone_to_owned()?);
        let writer = Self {
            shared: Arc::clone(&shared),
            is_terminal,
            path: None,
            is_stdout: false,
            takes_stdout: false,
        };
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                write_until_closed(&shared, stream, &on_dropped);
                shared.lock().ended = true;
                shared.changed.notify_all();
            })?;
        Ok(writer)
    }

    /// Hands in a line (or a part of an overlong one). Never waits.
    pub(crate) fn push(&self, line: &[u8]) {
        self.shared.push(line);
    }

    /// Hands in a line of a worker; one that was cut ends here. On a terminal it is marked with the worker's
    /// position, and what would steer the terminal is shown instead, colours apart.
    pub(crate) fn push_worker_line(&self, position: impl fmt::Display, line: &[u8]) {
        if !self.is_terminal {
            if line.ends_with(b"\n") {
                return self.push(line);
            }
            return self.push(&[line, b"\n"].concat());
        }
        let text = String::from_utf8_lossy(line);
        let text = show::with_colours(text.trim_end_matches(['\n', '\r']));
        self.push(format!("[{position}] {text}\n").as_bytes());
    }

    /// Where the stream is a file, opens that path anew for what comes from now on: somebody has moved the file away.
    ///
    /// # Errors
    /// When the path cannot be opened; then the old file is written on.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(0o640);
        let file = open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)?;
        if self.is_stdout || self.takes_stdout {
            dup2_stdout(&file)?;
        }
        if !self.is_stdout {
            dup2_stderr(&file)?;
        }
        self.shared.lock().replacement = Some(File::from(file));
        Ok(())
    }

    /// Lets the thread write what waits, but no longer than `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.changed.notify_all();
        // Whatever the result, nothing is left to be done: the limit is one of patience.
        drop(
            self.shared
                .changed
                .wait_timeout_while(state, limit, |state| !state.ended),
        );
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting_bytes = self.shared.lock().waiting.len();
        f.debug_struct("Writer")
            .field("waiting_bytes", &waiting_bytes)
            .finish_non_exhaustive()
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can leave a queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        if state.waiting.len() + line.len() > QUEUE_BYTES / 2 {
            state.dropped_lines += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for lines, and takes them together with the count of those that were dropped. `None` once
    /// the queue is closed and empty.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let nothing_to_do = |state: &mut State| {
            state.waiting.is_empty() && state.dropped_lines == 0 && !state.closed
        };
        let state = self.lock();
        let waited = self.changed.wait_while(state, nothing_to_do);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() && state.dropped_lines == 0 {
            return None;
        }
        mem::swap(&mut state.waiting, batch);
        Some(mem::take(&mut state.dropped_lines))
    }
}

fn write_until_closed(shared: &Shared, mut stream: File, on_dropped: &OnDropped) {
    let mut batch = Vec::new();
    let mut untold = Dropped::default();
    while let Some(lines) = shared.take(&mut batch) {
        untold.lines += lines;
        let written = write_batch(shared, &mut stream, &batch, &mut untold);
        let may_tell = untold.because.is_none() || !batch.is_empty();
        batch.clear();
        batch.shrink_to(KEPT_BYTES);
        match written {
            Written::All if may_tell && untold != Dropped::default() => {
                on_dropped(mem::take(&mut untold));
            }
            Written::All | Written::Part => {}
            Written::Gone => return,
        }
    }
}

/// What became of a batch.
enum Written {
    All,
    /// There was no room: the lines that were left are dropped, with all that waited.
    Part,
    /// There is no use in writing more: the reader is gone, which is no reason for the app to stop serving, or
    /// nobody waits for it any more.
    Gone,
}

/// Writes a batch. Where that fails, what waits is dropped, so that what comes when there is room again is new;
/// a line that was begun is finished first.
fn write_batch(shared: &Shared, stream: &mut File, batch: &[u8], untold: &mut Dropped) -> Written {
    let mut batch = batch;
    let mut rest = batch;
    loop {
        if let Some(replacement) = shared.lock().replacement.take() {
            *stream = replacement;
        }
        let error = match write_all(stream, &mut rest) {
            Ok(()) => return Written::All,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Written::Gone,
            Err(error) => error,
        };
        untold.because = Some(error.to_string());
        let begun = unfinished(batch, rest.len());
        untold.lines += lines_in(&rest[begun..]);
        batch = &batch[..batch.len() - (rest.len() - begun)];
        rest = &rest[..begun];
        let mut state = shared.lock();
        untold.lines += lines_in(&state.waiting) + mem::take(&mut state.dropped_lines);
        state.waiting.clear();
        if state.closed {
            return Written::Gone;
        }
        let is_open = |state: &mut State| !state.closed && state.replacement.is_none();
        // Whatever ended the wait, it is tried again.
        drop(
            shared
                .changed
                .wait_timeout_while(state, RETRY_AFTER, is_open),
        );
        if rest.is_empty() {
            return Written::Part;
        }
    }
}

/// How much of the last `left` bytes belongs to a line of which a part is written already.
fn unfinished(batch: &[u8], left: usize) -> usize {
    let (written, rest) = batch.split_at(batch.len() - left);
    if written.last().is_none_or(|&byte| byte == b'\n') {
        return 0;
    }
    let newline = rest.iter().position(|&byte| byte == b'\n');
    newline.map_or(rest.len(), |newline| newline + 1)
}

fn lines_in(bytes: &[u8]) -> u64 {
    let lines = bytes.split(|&byte| byte == b'\n').count().saturating_sub(1);
    u64::try_from(lines).unwrap_or(u64::MAX)
}

fn is_same_file(one: u8, other: u8) -> bool {
    let identity = |descriptor| {
        let opened = fs::metadata(format!("/proc/self/fd/{descriptor}")).ok()?;
        Some((opened.dev(), opened.ino()))
    };
    let one = identity(one);
    one.is_some() && one == identity(other)
}

/// The path of an open file that has one; nothing of a pipe, a terminal or a removed file.
fn path_of(descriptor: u8) -> Option<PathBuf> {
    let link = format!("/proc/self/fd/{descriptor}");
    let opened = fs::metadata(&link).ok().filter(Metadata::is_file)?;
    let path = fs::read_link(&link).ok()?;
    let there = fs::symlink_metadata(&path).ok()?;
    ((opened.dev(), opened.ino()) == (there.dev(), there.ino())).then_some(path)
}

/// Writes everything, also to a stream that somebody has made non-blocking: the flag belongs to the
/// open file, which we share with whoever started us. What is left after a failure stays in `bytes`.
fn write_all(stream: &mut File, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(stream, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn pipe_writer(is_terminal: bool) -> (Writer, io::PipeReader, mpsc::Receiver<Dropped>) {
        let (reader, pipe) = io::pipe().unwrap();
        let (sender, dropped) = mpsc::channel();
        let on_dropped = Box::new(move |dropped| sender.send(dropped).unwrap());
        let writer = Writer::start(pipe.as_fd(), is_terminal, on_dropped).unwrap();
        (writer, reader, dropped)
    }

    #[test]
    fn lines_pass_through_in_order_and_are_marked_on_a_terminal() {
        for (is_terminal, expected) in [(false, "one\ntwo\n"), (true, "[3] one\n[3] two\n")] {
            let (writer, mut reader, _dropped) = pipe_writer(is_terminal);
            writer.push_worker_line(3, b"one\n");
            writer.push_worker_line(3, b"two");
            writer.finish(LIMIT);
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_slow_reader_blocks_nobody_and_learns_how_much_it_missed() {
        let (writer, reader, dropped) = pipe_writer(false);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let pushed = 5 * QUEUE_BYTES / line.len();
        for _ in 0..pushed {
            writer.push(&line);
        }
        // Reads to the end, which comes when the thread has written what waits and is gone.
        let reading = thread::spawn(move || BufReader::new(reader).lines().count());
        writer.finish(LIMIT);
        let passed = reading.join().unwrap();
        // Told once or several times, depending on when the thread had room.
        let missing: u64 = dropped.iter().map(|dropped| dropped.lines).sum();
        assert_eq!(passed + usize::try_from(missing).unwrap(), pushed);
        assert!(passed * line.len() <= QUEUE_BYTES + (64 << 10), "{passed}");
    }

    #[test]
    fn a_disk_that_is_full_for_a_while_loses_only_what_the_queue_cannot_hold() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (sender, dropped) = mpsc::channel();
        let on_dropped = Box::new(move |dropped| sender.send(dropped).unwrap());
        let writer = Writer::start(full.as_fd(), false, on_dropped).unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        // When the second line is gone, the first one could not be written.
        for _ in 0..2 {
            writer.push(&line);
            let is_taken = || writer.shared.lock().waiting.is_empty().then_some(());
            phalanx_testkit::wait::eventually(LIMIT, "the line is taken", is_taken);
        }
        let mut pushed = 2 + 2 * QUEUE_BYTES / line.len();
        for _ in 2..pushed {
            writer.push(&line);
        }
        // There is room again, which a replacement stands for here.
        let (reader, pipe) = io::pipe().unwrap();
        let reading = thread::spawn(move || BufReader::new(reader).lines().count());
        writer.shared.lock().replacement = Some(File::from(std::os::fd::OwnedFd::from(pipe)));
        writer.shared.changed.notify_all();
        // What was lost is told with the next line that is written; one that comes too early is lost itself.
        let told = phalanx_testkit::wait::eventually(LIMIT, "the loss is told", || {
            writer.push(b"afterwards\n");
            pushed += 1;
            dropped.recv_timeout(Duration::from_millis(20)).ok()
        });
        assert!(told.because.unwrap().contains("No space left"));
        writer.finish(LIMIT);
        drop(writer);
        let missing = told.lines + dropped.iter().map(|dropped| dropped.lines).sum::<u64>();
        let passed = u64::try_from(reading.join().unwrap()).unwrap();
        assert!(missing > 0);
        assert_eq!(passed + missing, u64::try_from(pushed).unwrap());
    }

    #[test]
    fn a_line_that_was_begun_is_finished_and_the_others_are_counted() {
        let batch = b"one\ntwo\nthree\n";
        let left = |written: usize| unfinished(batch, batch.len() - written);
        assert_eq!([left(0), left(2), left(4), left(13)], [0, 2, 0, 1]);
        assert_eq!(lines_in(&batch[4..]), 2);
        assert_eq!(lines_in(b""), 0);
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_thread_and_nothing_else() {
        let (writer, reader, _dropped) = pipe_writer(false);
        drop(reader);
        writer.push(b"unheard\n");
        writer.finish(LIMIT);
        assert!(writer.shared.lock().ended);
        writer.push(b"unheard too\n");
        assert_eq!(writer.shared.lock().waiting.len(), 0);
    }

    #[test]
    fn the_end_is_not_held_up_by_a_reader_that_does_not_read() {
        let (writer, _reader, _dropped) = pipe_writer(false);
        writer.push(&vec![b'x'; QUEUE_BYTES / 2]);
        writer.finish(Duration::from_millis(50));
        assert!(!writer.shared.lock().ended);
    }
}
