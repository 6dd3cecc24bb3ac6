//! What the tables of the file say, and what they say together under a profile.

use std::collections::BTreeMap;

use super::Span;
use crate::problem::Notes;

/// A text, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) span: Span,
}

impl Text {
    pub(super) fn has_variables(&self) -> bool {
        self.text.contains("${")
    }
}

#[derive(Clone, Debug)]
pub(super) struct Words {
    pub(super) words: Vec<Text>,
    pub(super) span: Span,
}

#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) values: Vec<Text>,
    pub(super) is_on: bool,
    pub(super) span: Span,
}

/// What one table says of an app, or several, one over the other.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) span: Span,
    pub(super) program: Option<Words>,
    pub(super) args: Vec<Text>,
    pub(super) settings: BTreeMap<String, Value>,
    pub(super) env: BTreeMap<String, Text>,
    pub(super) env_files: Vec<Text>,
}

impl Draft {
    pub(super) fn new(name: &str, span: Span) -> Self {
        Self {
            name: name.to_owned(),
            span,
            program: None,
            args: Vec::new(),
            settings: BTreeMap::new(),
            env: BTreeMap::new(),
            env_files: Vec::new(),
        }
    }

    /// This, with what the other one says over it.
    fn under(mut self, other: Self) -> Self {
        if other.program.is_some() {
            self.program = other.program;
            // Arguments belong to the program that they were written for.
            self.args = other.args;
        } else if !other.args.is_empty() {
            self.args = other.args;
        }
        self.settings.extend(other.settings);
        self.env.extend(other.env);
        self.env_files.extend(other.env_files);
        self
    }
}

/// All tables of a file.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) apps: BTreeMap<String, Draft>,
    pub(super) profiles: BTreeMap<String, BTreeMap<String, Draft>>,
}

impl Tables {
    /// The apps under this profile.
    pub(super) fn under(self, profile: Option<&str>, notes: &mut Notes<'_>) -> Vec<Draft> {
        let mut apps = self.apps;
        let Some(wanted) = profile else {
            return apps.into_values().collect();
        };
        let known: Vec<_> = self.profiles.keys().cloned().collect();
        let Some(profile) = self.profiles.into_iter().find(|(name, _)| name == wanted) else {
            let there = if known.is_empty() {
                "the file has none".to_owned()
            } else {
                format!("the file has {}", known.join(", "))
            };
            notes.add(&(0..0), format!("there is no profile {wanted:?}: {there}"));
            return apps.into_values().collect();
        };
        for (name, over) in profile.1 {
            let app = match apps.remove(&name) {
                Some(app) => app.under(over),
                None => over,
            };
            apps.insert(name, app);
        }
        apps.into_values().collect()
    }
}
