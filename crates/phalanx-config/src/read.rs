//! From text to apps: the tables of the file, then the profile over them, then variables.

mod reader;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::app::{App, Program, Setting};
use crate::dotenv;
use crate::expand::expand;
use crate::keys::{Key, Keys};
use crate::problem::{Notes, Problems};
use reader::Reader;
use tables::{Draft, Text};

/// What a file is read by.
#[expect(
    clippy::exhaustive_structs,
    reason = "whoever reads a file has to say all of it"
)]
pub struct Context<'a> {
    /// The keys that an app may have.
    pub keys: &'a Keys,
    /// The profile, whose keys come before those of the apps.
    pub profile: Option<&'a str>,
    /// The variables of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file with variables.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Whether a value may stand at a key; if not, why.
    pub accepts: &'a dyn Fn(&Key, &str) -> Result<(), String>,
    /// Whether an app may have this name; if not, why.
    pub accepts_name: &'a dyn Fn(&str) -> Result<(), String>,
    /// Whose variables and files with variables have to be there. Of other apps they are not looked up.
    pub wants: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

pub(crate) fn read(path: &Path, text: &str, context: &Context<'_>) -> Result<Vec<App>, Problems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut notes = Notes::new(path, text);
    let mut broken = Vec::new();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        broken.push(notes.place(&span).line);
        notes.add(&span, error.message().replace('\n', ", "));
    }
    let tables = Reader::new(context, &mut notes).tables(table.get_ref());
    let drafts = tables.under(context.profile, &mut notes);
    let mut apps = Vec::new();
    for draft in drafts {
        let finished = Finisher {
            path,
            context,
            notes: &mut notes,
            is_wanted: (context.wants)(&draft.name),
            is_broken: !errors.is_empty(),
        }
        .finish(draft);
        apps.extend(finished);
    }
    let mut problems = notes.into_problems();
    // What else seems wrong with a line that cannot be read is no news.
    let syntax = problems.len().min(errors.len());
    if syntax > 0 {
        let told: Vec<_> = errors
            .iter()
            .map(|error| error.message().replace('\n', ", "))
            .collect();
        problems.retain(|one| told.contains(&one.text) || !broken.contains(&one.place.line));
    }
    problems.dedup();
    if problems.is_empty() {
        Ok(apps)
    } else {
        Err(Problems(problems))
    }
}

/// The names of all apps in the text and in its profiles.
pub(crate) fn names(text: &str) -> BTreeSet<String> {
    let (table, _) = DeTable::parse_recoverable(text);
    let profiles = table.get_ref().get("profile");
    let profiles = profiles.and_then(|all| all.get_ref().as_table());
    let profiles = profiles.into_iter().flat_map(|all| all.values());
    let profiles = profiles.filter_map(|profile| profile.get_ref().as_table());
    let tables = profiles.chain(std::iter::once(table.get_ref()));
    let apps = tables.filter_map(|table| table.get("app")?.get_ref().as_table());
    apps.flat_map(|apps| apps.keys().map(|name| name.get_ref().to_string()))
        .collect()
}

/// Makes an app of a draft: looks up its variables, and reads its files with variables.
struct Finisher<'a, 'b> {
    path: &'a Path,
    context: &'a Context<'a>,
    notes: &'a mut Notes<'b>,
    is_wanted: bool,
    /// The text has errors that may have swallowed what seems to be missing.
    is_broken: bool,
}

impl Finisher<'_, '_> {
    fn finish(&mut self, draft: Draft) -> Option<App> {
        let place = self.notes.place(&draft.span);
        let Some(program) = draft.program else {
            if !self.is_broken {
                let text = format!(
                    "the app {} has neither script nor command: add script = \"server.js\", or command = [\"./server\"]",
                    draft.name
                );
                self.notes.add(&draft.span, text);
            }
            return None;
        };
        let mut words = Vec::new();
        for word in program.words.iter().chain(&draft.args) {
            words.extend(self.text(word));
        }
        let program = Program {
            place: self.notes.place(&program.span),
            words,
        };
        let mut settings = BTreeMap::new();
        for (key, value) in draft.settings {
            let mut values = Vec::new();
            for text in &value.values {
                values.extend(self.value(&key, text));
            }
            let setting = Setting {
                values,
                is_on: value.is_on,
                place: self.notes.place(&value.span),
            };
            settings.insert(key, setting);
        }
        let mut env = BTreeMap::new();
        for file in &draft.env_files {
            env.extend(self.variables_of(file));
        }
        for (name, value) in draft.env {
            if let Some(value) = self.text(&value) {
                env.insert(name, value);
            }
        }
        self.is_wanted.then_some(App {
            name: draft.name,
            place,
            program,
            settings,
            env,
        })
    }

    /// The text with its variables, if they are of interest.
    fn text(&mut self, text: &Text) -> Option<String> {
        if !self.is_wanted {
            return None;
        }
        match expand(&text.text, self.context.variable) {
            Ok(text) => Some(text),
            Err(reason) => {
                self.notes.add(&text.span, reason);
                None
            }
        }
    }

    /// As [`Finisher::text`]. A value without variables was looked at before.
    fn value(&mut self, key: &str, text: &Text) -> Option<String> {
        let value = self.text(text)?;
        if text.has_variables()
            && let Some(key) = self.context.keys.find(key)
            && let Err(reason) = (self.context.accepts)(key, &value)
        {
            self.notes
                .add(&text.span, format!("{}: {reason}", key.name));
        }
        Some(value)
    }

    fn variables_of(&mut self, file: &Text) -> Vec<(String, String)> {
        let Some(name) = self.text(file) else {
            return Vec::new();
        };
        let path = self.path.parent().unwrap_or(Path::new(".")).join(name);
        let text = match (self.context.read)(&path) {
            Ok(text) => text,
            Err(error) => {
                let reason = cannot_read(&path, &error);
                self.notes.add(&file.span, reason);
                return Vec::new();
            }
        };
        dotenv::parse(&path, &text).unwrap_or_else(|problems| {
            for one in problems {
                self.notes.take(one);
            }
            Vec::new()
        })
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("env_file: cannot read {}: {error}", path.display())
}

/// What a value is, for people.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

type Span = Range<usize>;
