//! Files of other tools as a file of ours. What has no counterpart is not passed over: it is refused by its name, with the reason,
//! in a comment of the app that it belongs to.

pub mod gunicorn;
pub mod pm2;
pub mod procfile;
pub mod puma;

mod literal;
mod shell;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::keys::Keys;
use crate::schema;
use crate::toml_text::{comment, key, list, quoted};

/// What becomes of a setting of another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the three things that can become of it"
)]
pub enum Fate {
    /// It becomes this key.
    Key(&'static str),
    /// It becomes something else, which the text says.
    Otherwise(&'static str),
    /// It has no counterpart; the text says why, and what there is instead.
    Refused(&'static str),
}

impl Fate {
    /// The fate in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Key(key) => format!("`{key}`"),
            Self::Otherwise(text) => (*text).to_owned(),
            Self::Refused(why) => format!("refused: {why}"),
        }
    }
}

/// A file of ours that was made of another.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Imported {
    apps: Vec<Draft>,
}

/// An app that is being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    name: String,
    /// Keys, and what TOML writes there.
    lines: Vec<(String, String)>,
    env: BTreeMap<String, String>,
    profiles: BTreeMap<String, BTreeMap<String, String>>,
    remarks: Vec<String>,
}

impl Draft {
    pub(crate) fn new(name: &str) -> Self {
        let is_usable = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        let name: String = name
            .chars()
            .map(|letter| if is_usable(letter) { letter } else { '-' })
            .skip_while(|letter| "-.".contains(*letter))
            .take(64)
            .collect();
        Self {
            name: if name.is_empty() {
                "app".to_owned()
            } else {
                name
            },
            ..Self::default()
        }
    }

    pub(crate) fn command(&mut self, words: &[String]) {
        self.set("command", list(words));
    }

    pub(crate) fn script(&mut self, script: &str, args: &[String]) {
        self.set("script", quoted(script));
        if !args.is_empty() {
            self.set("args", list(args));
        }
    }

    /// Sets a key to a text, if this version has it.
    pub(crate) fn text(&mut self, keys: &Keys, name: &str, value: &str) {
        self.raw(keys, name, &quoted(value));
    }

    /// Sets a key to what TOML writes so.
    pub(crate) fn raw(&mut self, keys: &Keys, name: &str, value: &str) {
        if keys.find(name).is_some() {
            self.set(name, value.to_owned());
        } else {
            let line = format!("{} = {value}", key(name));
            self.remark(&format!("{line}  (this version has no such key)"));
        }
    }

    /// Of a setting that is made twice, the last one counts.
    fn set(&mut self, name: &str, value: String) {
        match self.lines.iter_mut().find(|(key, _)| key == name) {
            Some(line) => line.1 = value,
            None => self.lines.push((name.to_owned(), value)),
        }
    }

    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn profile_env(&mut self, profile: &str, name: &str, value: &str) {
        let profile = self.profiles.entry(profile.to_owned()).or_default();
        profile.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn remark(&mut self, text: &str) {
        self.remarks.push(text.to_owned());
    }

    /// A setting that was not taken over.
    pub(crate) fn refuse(&mut self, name: &str, why: &str) {
        self.remark(&format!("{name}: {why}"));
    }
}

impl Imported {
    pub(crate) fn new(apps: Vec<Draft>) -> Self {
        let mut imported = Self::default();
        for mut app in apps {
            let is_taken = |name: &str| imported.apps.iter().any(|one| one.name == name);
            if is_taken(&app.name) {
                // Of as many names as there are apps, and one more, one is free.
                let numbers = 2..imported.apps.len() + 3;
                let mut names = numbers.map(|number| format!("{}-{number}", app.name));
                app.name = names.find(|name| !is_taken(name)).unwrap_or_default();
            }
            imported.apps.push(app);
        }
        imported
    }

    /// How many settings were not taken over; the text has them in comments.
    #[must_use]
    pub fn remarks(&self) -> usize {
        self.apps.iter().map(|app| app.remarks.len()).sum()
    }

    /// How many apps there are.
    #[must_use]
    pub fn apps(&self) -> usize {
        self.apps.len()
    }

    /// The file, as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = format!("#:schema {}\n", schema::ADDRESS);
        // Writing to a text cannot fail.
        for app in &self.apps {
            let name = key(&app.name);
            write!(text, "\n[app.{name}]\n").unwrap_or_default();
            for (name, value) in &app.lines {
                writeln!(text, "{} = {value}", key(name)).unwrap_or_default();
            }
            for remark in &app.remarks {
                text.push_str(&comment(remark));
            }
            write_env(&mut text, &format!("app.{name}.env"), &app.env);
            for (profile, env) in &app.profiles {
                let table = format!("profile.{}.app.{name}.env", key(profile));
                write_env(&mut text, &table, env);
            }
        }
        text
    }
}

fn write_env(text: &mut String, table: &str, env: &BTreeMap<String, String>) {
    if env.is_empty() {
        return;
    }
    write!(text, "\n[{table}]\n").unwrap_or_default();
    for (name, value) in env {
        // In the other file it was no variable of ours.
        writeln!(text, "{} = {}", key(name), quoted(value)).unwrap_or_default();
    }
}

/// A text in which `${` means nothing.
pub(crate) fn literally(text: &str) -> String {
    text.replace("${", "$${")
}

/// A table of Markdown: what becomes of each setting.
fn fates(heading: &str, rows: impl Iterator<Item = (String, Fate)>) -> String {
    let mut text = format!("| {heading} | phalanx |\n|---|---|\n");
    for (name, fate) in rows {
        writeln!(text, "| {name} | {} |", fate.words()).unwrap_or_default();
    }
    text
}
