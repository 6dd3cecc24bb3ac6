//! An app as a file describes it, with everything replaced and put together.

use std::collections::BTreeMap;
use std::fmt;

use crate::problem::Place;

/// What the workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// The script or program, and its arguments; at least one word.
    pub words: Vec<String>,
    /// Where the file says so.
    pub place: Place,
}

/// A key, and what the file says there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The values: none of a switch, one, or several of a list.
    pub values: Vec<String>,
    /// Of a switch: whether it is on. Of everything else: true.
    pub is_on: bool,
    /// Where the file says so.
    pub place: Place,
}

impl Setting {
    /// The setting in words, as `diff` shows it.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.values[..] {
            [] => self.is_on.to_string(),
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        }
    }
}

/// An app. Its variables' values are never shown.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct App {
    /// Its name.
    pub name: String,
    /// Where the file begins to speak of it.
    pub place: Place,
    /// What its workers run.
    pub program: Program,
    /// What the keys say.
    pub settings: BTreeMap<String, Setting>,
    /// The variables of its workers.
    pub env: BTreeMap<String, String>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("settings", &self.settings)
            .field("env", &self.env.keys())
            .finish_non_exhaustive()
    }
}

impl App {
    /// The app as words of a command line: each setting as `--KEY=VALUE` or `--KEY`, but for these keys; no variables, and
    /// not the program.
    #[must_use]
    pub fn flags(&self, without: &dyn Fn(&str) -> bool) -> Vec<String> {
        let mut words = Vec::new();
        for (key, setting) in self.settings.iter().filter(|(key, _)| !without(key)) {
            if setting.values.is_empty() && setting.is_on {
                words.push(format!("--{key}"));
            }
            for value in &setting.values {
                words.push(format!("--{key}={value}"));
            }
        }
        words
    }
}
