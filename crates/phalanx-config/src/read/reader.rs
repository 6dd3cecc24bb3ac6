//! Which tables there may be, and which keys and values may stand in them.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::Context;
use super::tables::{Draft, Tables, Text, Value, Words};
use super::{Span, kind_of};
use crate::expand::is_name;
use crate::import::pm2;
use crate::keys::{Key, Kind};
use crate::near;
use crate::problem::Notes;

pub(super) struct Reader<'a, 'b, 'c> {
    context: &'a Context<'a>,
    notes: &'b mut Notes<'c>,
}

type Entry<'a, 'i> = &'a Spanned<DeValue<'i>>;

impl<'a, 'b, 'c> Reader<'a, 'b, 'c> {
    pub(super) fn new(context: &'a Context<'a>, notes: &'b mut Notes<'c>) -> Self {
        Self { context, notes }
    }
}

impl Reader<'_, '_, '_> {
    /// All tables of the file.
    pub(super) fn tables(&mut self, table: &DeTable<'_>) -> Tables {
        let mut tables = Tables::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "app" => tables.apps = self.apps(value, "app"),
                "profile" => tables.profiles = self.profiles(value),
                other => self.unknown_table(other, &key.span(), &["app", "profile"]),
            }
        }
        tables
    }

    fn unknown_table(&mut self, name: &str, span: &Span, known: &[&str]) {
        let hint = match near::nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None if known.len() == 1 => format!("there is only {}", known[0]),
            None => "an app is written [app.NAME], a profile [profile.P.app.NAME]".to_owned(),
        };
        self.notes
            .add(span, format!("unknown table {name:?}: {hint}"));
    }

    fn table<'a, 'i>(&mut self, value: Entry<'a, 'i>, what: &str) -> Option<&'a DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let kind = kind_of(value.get_ref());
            self.notes.add(
                &value.span(),
                format!("{what} is {kind}, and has to be a table"),
            );
        }
        table
    }

    fn apps(&mut self, value: Entry<'_, '_>, path: &str) -> BTreeMap<String, Draft> {
        let mut apps = BTreeMap::new();
        let Some(table) = self.table(value, path) else {
            return apps;
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if let Err(reason) = (self.context.accepts_name)(name) {
                self.notes.add(
                    &key.span(),
                    format!("{name:?} cannot be the name of an app: {reason}"),
                );
                continue;
            }
            if let Some(table) = self.table(value, &format!("{path}.{name}")) {
                let draft = self.app(name, key.span(), table);
                apps.insert(name.to_owned(), draft);
            }
        }
        apps
    }

    fn profiles(&mut self, value: Entry<'_, '_>) -> BTreeMap<String, BTreeMap<String, Draft>> {
        let mut profiles = BTreeMap::new();
        let Some(table) = self.table(value, "profile") else {
            return profiles;
        };
        for (name, value) in table {
            let path = format!("profile.{}", name.get_ref());
            let mut apps = BTreeMap::new();
            let table = self.table(value, &path);
            for (key, value) in table.into_iter().flat_map(|table| table.iter()) {
                match key.get_ref().as_ref() {
                    "app" => apps = self.apps(value, &format!("{path}.app")),
                    other => self.unknown_table(other, &key.span(), &["app"]),
                }
            }
            profiles.insert(name.get_ref().to_string(), apps);
        }
        profiles
    }

    fn app(&mut self, name: &str, span: Span, table: &DeTable<'_>) -> Draft {
        let mut draft = Draft::new(name, span);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                own @ ("script" | "command") => {
                    if let Some(first) = &draft.program {
                        let place = self.notes.place(&first.span);
                        let text = format!(
                            "script and command are two ways to say the same: leave one out (line {})",
                            place.line
                        );
                        self.notes.add(&key.span(), text);
                    }
                    let words = match own {
                        "script" => self.text(own, value).map(|text| vec![text]),
                        _ => self.words(own, value),
                    };
                    // Something is there, if only something wrong.
                    draft.program = Some(Words {
                        words: words.unwrap_or_default(),
                        span: value.span(),
                    });
                }
                "args" => draft.args = self.words("args", value).unwrap_or_default(),
                "env" => draft.env = self.env(value),
                "env_file" => draft.env_files = self.texts("env_file", value),
                other => match self.context.keys.find(other) {
                    Some(known) => {
                        if let Some(value) = self.value(known, value) {
                            draft.settings.insert(other.to_owned(), value);
                        }
                    }
                    None => self.unknown_key(other, &key.span()),
                },
            }
        }
        draft
    }

    fn unknown_key(&mut self, name: &str, span: &Span) {
        let hint = if name == "name" {
            "the name is that of the table: [app.NAME]".to_owned()
        } else if let Some(meant) = self.context.keys.meant(name) {
            format!("did you mean {meant}?")
        } else if let Some(instead) = pm2::instead(name) {
            format!("that is a word of PM2: {instead}")
        } else {
            "`phalanx help run` lists the keys: they are its long options".to_owned()
        };
        self.notes
            .add(span, format!("unknown key {name:?}: {hint}"));
    }

    fn text(&mut self, key: &str, value: Entry<'_, '_>) -> Option<Text> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let kind = kind_of(value.get_ref());
            self.notes.add(
                &value.span(),
                format!("{key} is {kind}, and has to be a text in quotation marks"),
            );
        }
        text.filter(|text| self.is_clean(text, &value.span()))
            .map(|text| Text {
                text: text.to_owned(),
                span: value.span(),
            })
    }

    /// Neither arguments nor variables can hold a NUL.
    fn is_clean(&mut self, text: &str, span: &Span) -> bool {
        let is_clean = !text.contains('\0');
        if !is_clean {
            self.notes.add(span, "a text cannot hold a NUL");
        }
        is_clean
    }

    /// A list of words, with at least one in it.
    fn words(&mut self, key: &str, value: Entry<'_, '_>) -> Option<Vec<Text>> {
        let Some(list) = value.get_ref().as_array() else {
            let kind = kind_of(value.get_ref());
            let text = match value.get_ref().as_str() {
                Some(text) if text.contains(' ') && !text.contains(['"', '\'', '\\']) => {
                    let words: Vec<_> = text
                        .split_whitespace()
                        .map(|word| format!("{word:?}"))
                        .collect();
                    format!(
                        "{key} is a list of words: write {key} = [{}]",
                        words.join(", ")
                    )
                }
                Some(text) => format!("{key} is a list of words: write {key} = [{text:?}]"),
                None => format!("{key} is {kind}, and has to be a list of words"),
            };
            self.notes.add(&value.span(), text);
            return None;
        };
        if list.is_empty() && key == "command" {
            self.notes.add(
                &value.span(),
                "command is empty: it is the program and its arguments",
            );
        }
        Some(
            list.iter()
                .filter_map(|word| self.text(key, word))
                .collect(),
        )
    }

    /// One text or a list of texts.
    fn texts(&mut self, key: &str, value: Entry<'_, '_>) -> Vec<Text> {
        match value.get_ref().as_array() {
            Some(list) => list.iter().filter_map(|one| self.text(key, one)).collect(),
            None => self.text(key, value).into_iter().collect(),
        }
    }

    fn env(&mut self, value: Entry<'_, '_>) -> BTreeMap<String, Text> {
        let mut env = BTreeMap::new();
        let Some(table) = self.table(value, "env") else {
            return env;
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if !is_name(name) {
                let text =
                    format!("{name:?} is no name of a variable: it has letters, digits and _");
                self.notes.add(&key.span(), text);
                continue;
            }
            let text = match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Integer(number) => whole(number),
                DeValue::Float(number) => Some(number.as_str().to_owned()),
                DeValue::Boolean(yes) => Some(yes.to_string()),
                DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
            };
            match text {
                Some(text) if self.is_clean(&text, &value.span()) => {
                    let text = Text {
                        text,
                        span: value.span(),
                    };
                    env.insert(name.to_owned(), text);
                }
                Some(_) => {}
                None => {
                    let kind = kind_of(value.get_ref());
                    self.notes.add(
                        &value.span(),
                        format!("{name} is {kind}, and has to be a text"),
                    );
                }
            }
        }
        env
    }

    fn value(&mut self, key: &Key, value: Entry<'_, '_>) -> Option<Value> {
        let span = value.span();
        if key.kind == Kind::Switch {
            let DeValue::Boolean(is_on) = value.get_ref() else {
                let kind = kind_of(value.get_ref());
                self.notes.add(
                    &span,
                    format!("{} is {kind}, and has to be true or false", key.name),
                );
                return None;
            };
            return Some(Value {
                values: Vec::new(),
                is_on: *is_on,
                span,
            });
        }
        let values: Vec<Text> = match value.get_ref() {
            DeValue::Array(list) if key.is_list => list
                .iter()
                .filter_map(|one| self.scalar(key, one))
                .collect(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => vec![self.scalar(key, value)?],
        };
        Some(Value {
            values,
            is_on: true,
            span,
        })
    }

    fn scalar(&mut self, key: &Key, value: Entry<'_, '_>) -> Option<Text> {
        let (name, span) = (&key.name, value.span());
        let (text, fits) = match value.get_ref() {
            DeValue::String(text) => (Some(text.to_string()), true),
            DeValue::Integer(number) => (whole(number), key.kind == Kind::NumberOrText),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => (None, false),
        };
        let Some(text) = text else {
            let kind = kind_of(value.get_ref());
            let wanted = match (key.kind, key.is_list) {
                (Kind::NumberOrText, _) => "a number or a text",
                (Kind::Switch | Kind::Text, false) => "a text in quotation marks",
                (Kind::Switch | Kind::Text, true) => "a text in quotation marks, or a list of them",
            };
            self.notes
                .add(&span, format!("{name} is {kind}, and has to be {wanted}"));
            return None;
        };
        if !self.is_clean(&text, &span) {
            return None;
        }
        let text = Text { text, span };
        if !text.has_variables()
            && let Err(reason) = (self.context.accepts)(key, &text.text)
        {
            self.notes.add(&text.span, format!("{name}: {reason}"));
            return None;
        }
        if !fits {
            self.notes.add(
                &text.span,
                format!("{name} is a number, and has to be a text: {:?}", text.text),
            );
            return None;
        }
        Some(text)
    }
}

/// The number in decimal digits, if it is not too large for any use.
fn whole(number: &DeInteger<'_>) -> Option<String> {
    let digits = number.as_str().replace('_', "");
    i128::from_str_radix(&digits, number.radix())
        .ok()
        .map(|number| number.to_string())
}
