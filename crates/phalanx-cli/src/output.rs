//! Where a primary writes: standard output and standard error, a log file, the journal. What workers print passes through
//! here, whole lines at a time, and the log too.
//!
//! Each has a queue and a thread that writes. INVARIANT: nobody who hands in a line ever waits. A
//! reader that is too slow, or a disk that is full, makes a queue overflow; then lines are dropped and counted,
//! and the count is told as soon as something can be written again. Lines come out whole, one after the other.

mod drain;
mod file;
mod form;
mod journal;
mod queue;
mod stream;

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use phalanx_control::logs::Chunk;
use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{dup2_stderr, dup2_stdout};

pub(crate) use file::{LogFile, Turning};
pub(crate) use form::{Forming, Prefix};
pub(crate) use journal::{Journal, takes as journal_takes};

use drain::Sink;
use form::Form;
use queue::{Change, Entry, Shared};

/// What could not be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Lines.
    pub(crate) lines: u64,
    /// Why writing failed; nothing where the reader is too slow.
    pub(crate) because: Option<String>,
    /// Nothing will be written any more.
    pub(crate) for_good: bool,
}

/// Told what was dropped.
type OnDropped = Box<dyn Fn(Dropped) + Send>;

/// One place to write to: lines go in, a thread writes them.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// What it is, for people.
    name: Arc<str>,
    /// Where the stream leads, if that is a file.
    path: Option<PathBuf>,
    kind: Kind,
    /// Standard output leads to the same file: one thread writes both, so that no line breaks another.
    takes_stdout: bool,
    /// Gets the lines of the log too.
    also: Option<Box<Writer>>,
}

/// What kind of place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stdout,
    Stderr,
    /// One that is opened anew by its own thread.
    LogFile,
    Journal,
}

impl Writer {
    /// Standard output.
    ///
    /// # Errors
    /// When the stream is closed, or no thread can be started.
    pub(crate) fn stdout(
        forming: Forming,
        on_dropped: impl Fn(Dropped) + Send + 'static,
    ) -> io::Result<Self> {
        let stdout = io::stdout();
        let form = forming.on(stdout.is_terminal());
        let shared = Arc::new(Shared::default());
        let mut writer = Self::on(stdout.as_fd(), shared, form, Box::new(on_dropped))?;
        writer.path = stream::path_of(1);
        Ok(writer)
    }

    /// Standard error. What it drops it tells by itself, in the words of `told`.
    ///
    /// # Errors
    /// When the stream is closed, or no thread can be started.
    pub(crate) fn stderr(
        forming: Forming,
        told: impl Fn(Dropped) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let stderr = io::stderr();
        let form = forming.on(stderr.is_terminal());
        let shared = Arc::new(Shared::default());
        let itself = Arc::clone(&shared);
        let on_dropped = Box::new(move |dropped| itself.push_text(told(dropped).as_bytes()));
        let mut writer = Self::on(stderr.as_fd(), shared, form, on_dropped)?;
        writer.name = "stderr".into();
        writer.kind = Kind::Stderr;
        writer.path = stream::path_of(2);
        writer.takes_stdout = stream::is_same_file(1, 2);
        Ok(writer)
    }

    /// A log file.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn log_file(
        file: LogFile,
        forming: Forming,
        on_dropped: impl Fn(Dropped) + Send + 'static,
    ) -> io::Result<Self> {
        let name = format!("file:{}", file.path().display());
        let shared = Arc::new(Shared::default());
        // Whatever is behind the standard streams, it is no terminal.
        let is_terminal = false;
        let form = Forming {
            is_terminal,
            ..forming
        }
        .on(is_terminal);
        let sink = Sink::LogFile(file);
        Self::start(
            name,
            Kind::LogFile,
            shared,
            sink,
            form,
            Box::new(on_dropped),
        )
    }

    /// The journal.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn journal(
        journal: Journal,
        on_dropped: impl Fn(Dropped) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sink, form) = (Sink::Journal(journal), Form::default());
        let name = "journal".to_owned();
        Self::start(
            name,
            Kind::Journal,
            shared,
            sink,
            form,
            Box::new(on_dropped),
        )
    }

    /// Whether what is for standard output has to come here too.
    pub(crate) fn takes_stdout(&self) -> bool {
        self.takes_stdout
    }

    /// This one, whose lines of the log go there too.
    pub(crate) fn and_also(mut self, other: &Writer) -> Self {
        self.also = Some(Box::new(other.clone()));
        self
    }

    fn on(
        stream: BorrowedFd<'_>,
        shared: Arc<Shared>,
        form: Form,
        on_dropped: OnDropped,
    ) -> io::Result<Self> {
        // A duplicate, so that the lock of the standard library's own handle is never held while writing.
        let sink = Sink::Stream(File::from(stream.try_clone_to_owned()?));
        Self::start(
            "stdout".to_owned(),
            Kind::Stdout,
            shared,
            sink,
            form,
            on_dropped,
        )
    }

    fn start(
        name: String,
        kind: Kind,
        shared: Arc<Shared>,
        sink: Sink,
        form: Form,
        on_dropped: OnDropped,
    ) -> io::Result<Self> {
        let writer = Self {
            shared: Arc::clone(&shared),
            name: name.into(),
            path: None,
            kind,
            takes_stdout: false,
            also: None,
        };
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || drain::until_closed(&shared, sink, form, &on_dropped))?;
        Ok(writer)
    }

    /// Hands in a line (or a part of an overlong one), or several. Never waits.
    pub(crate) fn push(&self, line: &[u8]) {
        self.shared.push_text(line);
        if let Some(also) = &self.also {
            also.push(line);
        }
    }

    /// Hands in lines of a worker. Never waits.
    pub(crate) fn push_lines(&self, chunk: &Arc<Chunk>) {
        self.shared.push(Entry::Lines(Arc::clone(chunk)));
    }

    /// Where it is a file, opens that path anew for what comes from now on: somebody has moved the file away.
    ///
    /// # Errors
    /// When the path cannot be opened; then the old file is written on. A log file is opened by its own thread, which
    /// tells by itself.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        if self.kind == Kind::LogFile {
            self.shared.change(Change::Reopen);
        }
        let Some(path) = &self.path else {
            return Ok(());
        };
        let file = open_anew(path)?;
        if self.kind == Kind::Stdout || self.takes_stdout {
            dup2_stdout(&file)?;
        }
        if self.kind == Kind::Stderr {
            dup2_stderr(&file)?;
        }
        self.shared.change(Change::To(file));
        Ok(())
    }

    /// What it is, how many lines were dropped since the start, and why the last ones were.
    pub(crate) fn state(&self) -> (&str, u64, Option<String>) {
        let (dropped, because) = self.shared.dropped_in_all();
        (&self.name, dropped, because)
    }

    /// Lets the thread write what waits, but no longer than `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        self.shared.finish(limit);
    }
}

fn open_anew(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY;
    let mode = Mode::from_raw_mode(0o640);
    let file = open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)?;
    Ok(File::from(file))
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("name", &self.name)
            .field("waiting_bytes", &self.shared.waiting_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
