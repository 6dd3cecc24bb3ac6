//! What is wrong with a file, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A place in a text: line and column, in characters, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of a byte of a text.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// One thing that is wrong: `FILE:LINE:COLUMN: what, and what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// In which file.
    pub file: PathBuf,
    /// Where.
    pub place: Place,
    /// What, in a sentence.
    pub text: String,
}

impl Problem {
    /// Something that is wrong at this place.
    #[must_use]
    pub fn new(file: &Path, place: Place, text: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            place,
            text: text.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, place) = (self.file.display(), self.place);
        write!(f, "{file}:{}:{}: {}", place.line, place.column, self.text)
    }
}

/// All that is wrong; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
#[expect(clippy::exhaustive_structs, reason = "a list with an error's manners")]
pub struct Problems(pub Vec<Problem>);

/// Collects what is wrong with one text.
#[derive(Debug)]
pub(crate) struct Notes<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(file: &'a Path, text: &'a str) -> Self {
        Self {
            file,
            text,
            problems: Vec::new(),
        }
    }

    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        Place::of(self.text, span.start)
    }

    pub(crate) fn add(&mut self, span: &Range<usize>, text: impl Into<String>) {
        let problem = Problem::new(self.file, self.place(span), text);
        self.problems.push(problem);
    }

    pub(crate) fn take(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// In the order of the text.
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.place);
        self.problems
    }
}
