//! Failures, and what the user sees of them and of answers.
//!
//! The only module that writes to the standard streams directly. A reader of standard output that has
//! gone away ends the command quietly, as it ends other tools in a pipeline.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use crate::exit_code::Exit;

/// Why the command does not end with [`Exit::Done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One sentence: what, where, why. Empty when everything has been said already.
    pub(crate) reason: String,
    /// What the worker in question printed last.
    pub(crate) last_lines: Vec<String>,
}

/// The result of everything that a user asked for.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, reason: impl Into<String>) -> Self {
        Self {
            exit,
            reason: reason.into(),
            last_lines: Vec::new(),
        }
    }

    /// A failure with its causes, told in one line.
    pub(crate) fn caused(exit: Exit, what: &str, cause: &dyn Error) -> Self {
        Self::new(exit, format!("{what}: {}", with_causes(cause)))
    }

    /// The end of a command whose reader has gone away: nothing more to say.
    fn silent() -> Self {
        Self::new(Exit::Done, "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phalanx: {}", self.reason)?;
        if !self.last_lines.is_empty() {
            f.write_str("\nphalanx: the worker's last output:")?;
        }
        for line in &self.last_lines {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// An error and its sources, separated by colons. A source that its error already quotes is not repeated.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

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
    drop(writeln!(io::stderr(), "phalanx: {line}"));
}

/// Prints an answer, which ends with a newline, on standard output.
pub(crate) fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::silent()
        } else {
            Failure::caused(Exit::Failed, "cannot write to standard output", &error)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_the_last_lines_of_the_worker() {
        let mut failure = Failure::new(Exit::Failed, "not reloaded: worker 3 crashed");
        assert_eq!(
            failure.to_string(),
            "phalanx: not reloaded: worker 3 crashed"
        );
        failure.last_lines = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(
            failure.to_string(),
            "phalanx: not reloaded: worker 3 crashed\nphalanx: the worker's last output:\n    one\n    two"
        );
    }

    #[derive(Debug)]
    struct Outer(io::Error, bool);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")?;
            if self.1 {
                write!(f, ": {}", self.0)
            } else {
                Ok(())
            }
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn causes_are_told_once() {
        for quotes in [false, true] {
            let error = Outer(io::Error::other("inner"), quotes);
            assert_eq!(with_causes(&error), "outer: inner");
        }
    }
}
