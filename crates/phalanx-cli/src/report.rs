//! What the user sees of failures and of answers.
//!
//! The only module that writes to the standard streams directly. A reader of standard output that has
//! gone away ends the command quietly, as it ends other tools in a pipeline.

use std::io::{self, Write};

pub(crate) use phalanx_control::failure::{Failure, Outcome, with_causes};

use phalanx_control::exit::Exit;
use phalanx_control::show;

/// Shows a failure on standard error.
pub(crate) fn show_failure(failure: &Failure) {
    if !failure.reason.is_empty() {
        // When standard error is closed there is nobody left to tell.
        drop(writeln!(io::stderr(), "{failure}"));
    }
}

/// Shows a line of a log, which ends with a newline, on standard error.
pub(crate) fn show_log_line(line: &str) {
    drop(io::stderr().write_all(line.as_bytes()));
}

/// Shows a usage error, a help text or the version, as clap words and colours it.
pub(crate) fn show_clap(error: &clap::Error) {
    drop(error.print());
}

/// Shows a line of progress on standard error.
pub(crate) fn show_progress(line: &str) {
    drop(writeln!(io::stderr(), "phalanx: {}", show::plain(line)));
}

/// Prints an answer, which ends with a newline, on standard output.
pub(crate) fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // The end of a command whose reader has gone away: nothing more to say.
            Failure::new(Exit::Done, "")
        } else {
            Failure::caused(Exit::Failed, "cannot write to standard output", &error)
        }
    })
}
