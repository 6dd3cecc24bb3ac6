//! Where the output of an app's workers and its log go: standard output and standard error, a log file, the journal, memory.

use std::sync::Arc;
use std::time::Duration;

use phalanx::supervisor::{LinesSink, OutputLines, OutputStates, OutputStatus, ReopenLog, Stream};
use phalanx_control::exit::Exit;
use phalanx_control::logs::{Chunk, Logs};
use phalanx_control::names::Name;
use serde_json::json;

use crate::args::{LogTime, OutputArgs};
use crate::log::{Level, Style, now_millis};
use crate::output::{Dropped, Forming, Journal, LogFile, Writer, journal_takes};
use crate::report::{Failure, Outcome};

/// How long the end waits for the reader of each.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// All places that are written to.
#[derive(Clone)]
pub(super) struct Outputs {
    /// Where lines of workers on each stream go.
    stdout: Writer,
    stderr: Writer,
    /// Where the log goes.
    pub(super) log: Writer,
    /// Every one, once.
    all: Vec<Writer>,
    /// The last output, if any of it is kept.
    pub(super) kept: Option<Logs>,
}

impl Outputs {
    /// Opens what was asked for.
    pub(super) fn open(
        args: &OutputArgs,
        time: LogTime,
        style: Style,
        app: &Name,
    ) -> Outcome<Self> {
        let forming = Forming {
            is_json: style.is_json(),
            ..args.forming(time)
        };
        let file = args.log_file.as_deref().map(|path| {
            LogFile::open(path, args.turning()).map_err(|error| {
                let what = format!("cannot write the log file {}", path.display());
                Failure::caused(Exit::CannotCreate, &what, &error)
            })
        });
        let file = file.transpose()?;
        let cannot =
            |error| Failure::caused(Exit::Failed, "cannot use the standard streams", &error);
        let (stdout, stderr) = streams(style, forming).map_err(cannot)?;
        let mut outputs = Self {
            all: vec![stderr.clone()],
            log: stderr.clone(),
            stdout,
            stderr,
            kept: Some(args.log_memory)
                .filter(|bytes| *bytes > 0)
                .map(|bytes| Logs::new(app.as_str(), bytes)),
        };
        if !outputs.stderr.takes_stdout() {
            outputs.all.push(outputs.stdout.clone());
        }
        if let Some(file) = file {
            outputs.take_file(file, style, forming).map_err(cannot)?;
        } else {
            let behind = args.log_journal;
            outputs.take_journal(app, style, behind).map_err(cannot)?;
        }
        Ok(outputs)
    }

    /// Workers' output and the log go to the file; the log to standard error too.
    fn take_file(&mut self, file: LogFile, style: Style, forming: Forming) -> std::io::Result<()> {
        let told = self.stderr.clone();
        let file = Writer::log_file(file, forming, move |dropped| {
            told.push(dropped_line(style, "the log file", &dropped).as_bytes());
        })?;
        self.log = self.stderr.clone().and_also(&file);
        (self.stdout, self.stderr) = (file.clone(), file.clone());
        self.all.push(file);
        Ok(())
    }

    /// Where a stream leads to the journal, lines of workers go there with fields. Behind a pipe that is told: standard error does, and
    /// standard output if it is true.
    fn take_journal(
        &mut self,
        app: &Name,
        style: Style,
        behind: Option<bool>,
    ) -> std::io::Result<()> {
        if style.is_json() || (behind.is_none() && !journal_takes(2)) {
            return Ok(());
        }
        let journal = match Journal::connect(app.as_str()) {
            Ok(journal) => journal,
            Err(error) => {
                // The stream leads there as well, without fields.
                let text = format!("the journal's socket cannot be used ({error})");
                let line = style.line(Level::Warn, "journal", &text, json!({}));
                self.log.push(line.as_bytes());
                return Ok(());
            }
        };
        let told = self.stderr.clone();
        let journal = Writer::journal(journal, move |dropped| {
            told.push(dropped_line(style, "the journal", &dropped).as_bytes());
        })?;
        if behind.unwrap_or_else(|| journal_takes(1)) {
            self.stdout = journal.clone();
        }
        self.stderr = journal.clone();
        self.all.push(journal);
        Ok(())
    }

    /// Takes the lines of workers.
    pub(super) fn sink(&self) -> LinesSink {
        let Self {
            stdout,
            stderr,
            kept,
            ..
        } = self.clone();
        Arc::new(move |lines: OutputLines<'_>| {
            let (writer, stream) = match lines.stream {
                Stream::Stdout => (&stdout, "stdout"),
                Stream::Stderr => (&stderr, "stderr"),
            };
            let chunk = Arc::new(Chunk {
                at: now_millis(),
                worker: lines.worker,
                position: lines.position,
                generation: lines.generation,
                stream,
                bytes: lines.bytes.into(),
            });
            writer.push_lines(&chunk);
            if let Some(kept) = &kept {
                kept.push(chunk);
            }
        })
    }

    /// Opens files anew.
    pub(super) fn reopen(&self) -> ReopenLog {
        let all = self.all.clone();
        Arc::new(move || {
            for output in &all {
                if let Err(error) = output.reopen() {
                    let (name, ..) = output.state();
                    tracing::error!(%error, "cannot open the file of {name} anew");
                }
            }
        })
    }

    /// Tells how each does.
    pub(super) fn states(&self) -> OutputStates {
        let all = self.all.clone();
        let state = |output: &Writer| {
            let (name, dropped_lines, because) = output.state();
            OutputStatus {
                name: name.to_owned(),
                dropped_lines,
                because,
            }
        };
        Arc::new(move || all.iter().map(state).collect())
    }

    /// Nothing more comes: what waits is written, as far as readers take it.
    pub(super) fn finish(&self) {
        // The first is standard error, which tells what the others dropped.
        for output in self.all.iter().rev() {
            output.finish(FLUSH_LIMIT);
        }
    }
}

/// Standard output and standard error.
pub(crate) fn streams(style: Style, forming: Forming) -> std::io::Result<(Writer, Writer)> {
    let stderr = Writer::stderr(forming, move |dropped| {
        dropped_line(style, "stderr", &dropped)
    })?;
    if stderr.takes_stdout() {
        return Ok((stderr.clone(), stderr));
    }
    let told = stderr.clone();
    let stdout = Writer::stdout(forming, move |dropped| {
        told.push(dropped_line(style, "stdout", &dropped).as_bytes());
    })?;
    Ok((stdout, stderr))
}

/// The line of the log about lines that were dropped.
fn dropped_line(style: Style, stream: &str, dropped: &Dropped) -> String {
    let lines = dropped.lines;
    let text = match &dropped.because {
        Some(because) if dropped.for_good => format!(
            "{stream} cannot be written to any more ({because}): dropped {lines} lines, and drops what comes"
        ),
        None => {
            format!("dropped {lines} lines of worker output: the reader of {stream} is too slow")
        }
        Some(because) => {
            format!("could not write to {stream} for a while ({because}): dropped {lines} lines")
        }
    };
    let fields = json!({"stream": stream, "lines": lines, "because": dropped.because});
    style.line(Level::Warn, "output_dropped", &text, fields)
}
