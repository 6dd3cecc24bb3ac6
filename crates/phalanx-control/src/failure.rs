//! Failures: what the user is told, and the exit status that it means.

use std::error::Error;
use std::fmt;

use crate::exit::Exit;
use crate::show;

/// Why the command does not end with [`Exit::Done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// One sentence: what, where, why. Empty when everything has been said already.
    pub reason: String,
    /// What the worker in question printed last.
    pub last_lines: Vec<String>,
}

/// The result of everything that a user asked for.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure that is told in one sentence.
    #[must_use]
    pub fn new(exit: Exit, reason: impl Into<String>) -> Self {
        Self {
            exit,
            reason: reason.into(),
            last_lines: Vec::new(),
        }
    }

    /// A failure with its causes, told in one line.
    #[must_use]
    pub fn caused(exit: Exit, what: &str, cause: &dyn Error) -> Self {
        Self::new(exit, format!("{what}: {}", with_causes(cause)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phalanx: {}", show::lines(&self.reason))?;
        if !self.last_lines.is_empty() {
            f.write_str("\nphalanx: the worker's last output:")?;
        }
        for line in &self.last_lines {
            write!(f, "\n    {}", show::plain(line))?;
        }
        Ok(())
    }
}

/// An error and its sources, separated by colons. A source that its error already quotes is not repeated.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
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

#[cfg(test)]
mod tests {
    use std::io;

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
