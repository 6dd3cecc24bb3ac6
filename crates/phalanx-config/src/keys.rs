//! The keys of an app: what they are called, and what may stand there.

use crate::near;

/// What may stand at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the forms that a flag can have")]
pub enum Kind {
    /// `true` or `false`: a flag without a value.
    Switch,
    /// A text.
    Text,
    /// A number, or a text that may be more than that: `4`, `"auto"`, `"25%"`.
    NumberOrText,
}

/// A key of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// The name: that of a long flag, without its hyphens in front.
    pub name: String,
    /// What may stand there.
    pub kind: Kind,
    /// Several may stand there, as a list.
    pub is_list: bool,
    /// All that may stand there; empty: whatever the kind allows.
    pub choices: Vec<String>,
    /// What it means, in a sentence.
    pub help: String,
    /// What holds without it, if that can be said in a word.
    pub default: Option<String>,
}

impl Key {
    /// A key for one value.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Kind, help: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind,
            is_list: false,
            choices: Vec::new(),
            help: help.into(),
            default: None,
        }
    }

    /// The same key, for several values.
    #[must_use]
    pub fn list(self, is_list: bool) -> Self {
        Self { is_list, ..self }
    }

    /// The same key, for these values only.
    #[must_use]
    pub fn choices(self, choices: Vec<String>) -> Self {
        Self { choices, ..self }
    }

    /// The same key, with what holds without it.
    #[must_use]
    pub fn default(self, default: Option<String>) -> Self {
        Self { default, ..self }
    }
}

/// Keys of an app that no flag stands for, each with its meaning.
pub const OWN: [(&str, &str); 5] = [
    (
        "script",
        "The script that Node runs, or the program; its arguments go into args",
    ),
    ("command", "The program and its arguments, as a list"),
    ("args", "Arguments of the script"),
    ("env", "Environment variables of the workers: a table"),
    (
        "env_file",
        "Files with environment variables, one KEY=VALUE a line; what env says comes before them",
    ),
];

/// All keys of an app that flags stand for.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

impl Keys {
    /// These keys.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self { keys }
    }

    /// In the order of the flags.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The key of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// What may have been meant by a name that is no key.
    #[must_use]
    pub fn meant(&self, name: &str) -> Option<&str> {
        let own = OWN.iter().map(|(name, _)| *name);
        near::nearest(
            name,
            self.keys.iter().map(|key| key.name.as_str()).chain(own),
        )
    }
}
