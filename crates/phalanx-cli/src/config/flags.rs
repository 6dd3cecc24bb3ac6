//! The keys that a file may have: the long flags of `phalanx run`, from their definitions.

use std::cell::RefCell;
use std::error::Error;

use clap::builder::ValueRange;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory};
use phalanx_config::{Key, Keys, Kind};

use crate::args::Cli;

/// Long flags of `run` that are no keys, and why.
pub(super) const NO_KEYS: [(&str, &str); 13] = [
    ("config", "names the file"),
    ("profile", "names a part of the file"),
    ("name", "is the name of the table"),
    ("env", "is a table of its own"),
    (
        "log-format",
        "is of the process, which may run several apps",
    ),
    ("log-time", "is of the process, which may run several apps"),
    ("verbose", "is of the process, which may run several apps"),
    ("quiet", "is of the process, which may run several apps"),
    ("log-terminal", "is hidden"),
    ("log-line-time", "is hidden"),
    ("log-journal", "is hidden"),
    ("seed", "is hidden"),
    ("help", "asks for help"),
];

/// Words of a value's name that a number can stand for.
const NUMBERS: [&str; 4] = ["N", "USER", "GROUP", "SIGNAL"];

/// The definitions of the flags.
pub(super) struct Flags {
    command: RefCell<Command>,
}

impl Flags {
    pub(super) fn new() -> Self {
        let mut command = Cli::command();
        command.build();
        Self {
            command: RefCell::new(command),
        }
    }

    /// All keys.
    pub(super) fn keys(&self) -> Keys {
        let command = self.command.borrow();
        let run = command.find_subcommand("run");
        let args = run.into_iter().flat_map(Command::get_arguments);
        Keys::new(args.filter_map(key).collect())
    }

    /// Whether the flag's own parser takes this value.
    pub(super) fn accepts(&self, key: &str, value: &str) -> Result<(), String> {
        let word = format!("--{key}={value}");
        let words = ["phalanx", "run", &word, "program"];
        let parsed = self.command.borrow_mut().try_get_matches_from_mut(words);
        let of_value = |error: &clap::Error| {
            // That it needs another flag is for all of them together to tell.
            matches!(
                error.kind(),
                ErrorKind::ValueValidation | ErrorKind::InvalidValue
            )
        };
        match parsed.err().filter(of_value) {
            Some(error) => Err(reason(&error)),
            None => Ok(()),
        }
    }
}

/// What is wrong with a value, in a sentence.
fn reason(error: &clap::Error) -> String {
    if let Some(cause) = error.source() {
        return cause.to_string();
    }
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let choices = of(ContextKind::ValidValue).unwrap_or_default();
    match of(ContextKind::SuggestedValue) {
        Some(meant) => format!("did you mean {meant}? There are {choices}"),
        None => format!("use one of {choices}"),
    }
}

fn key(arg: &Arg) -> Option<Key> {
    let name = arg.get_long()?;
    if NO_KEYS.iter().any(|(no_key, _)| *no_key == name) {
        return None;
    }
    let takes_value = arg
        .get_num_args()
        .is_none_or(|range: ValueRange| range.takes_values())
        && arg.get_action().takes_values();
    let value_name = arg.get_value_names().and_then(|names| names.first());
    let words = value_name
        .map(clap::builder::Str::as_str)
        .unwrap_or_default();
    let mut words = words.split(|letter: char| !letter.is_ascii_alphanumeric());
    let kind = if !takes_value {
        Kind::Switch
    } else if words.any(|word| NUMBERS.contains(&word)) {
        Kind::NumberOrText
    } else {
        Kind::Text
    };
    let choices = arg.get_possible_values();
    let choices = choices
        .iter()
        .filter(|one| takes_value && !one.is_hide_set());
    let mut defaults = arg.get_default_values().iter();
    let default = defaults.find_map(|value| value.to_str());
    Some(
        Key::new(
            name,
            kind,
            arg.get_help().map(ToString::to_string).unwrap_or_default(),
        )
        .list(matches!(arg.get_action(), ArgAction::Append))
        .choices(choices.map(|one| one.get_name().to_owned()).collect())
        .default(default.filter(|_| takes_value).map(str::to_owned)),
    )
}

/// The JSON schema of the file.
pub(crate) fn schema() -> String {
    phalanx_config::schema::schema(&Flags::new().keys())
}

/// The page of the keys, as Markdown.
pub(crate) fn page() -> String {
    phalanx_config::schema::page(&Flags::new().keys(), &super::live::is_applied)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_long_flag_of_run_is_a_key_or_is_said_to_be_none() {
        let flags = Flags::new();
        let keys = flags.keys();
        let command = flags.command.borrow();
        let run = command.find_subcommand("run").unwrap();
        let longs: Vec<_> = run.get_arguments().filter_map(Arg::get_long).collect();
        for long in &longs {
            let is_no_key = NO_KEYS.iter().any(|(name, _)| name == long);
            assert!(keys.find(long).is_some() != is_no_key, "{long}");
        }
        assert!(keys.iter().all(|key| longs.contains(&key.name.as_str())));
        for (name, why) in NO_KEYS {
            assert!(longs.contains(&name) && !why.is_empty(), "{name}");
        }
        for key in keys.iter() {
            let is_own = phalanx_config::keys::OWN
                .iter()
                .any(|(name, _)| *name == key.name);
            assert!(!is_own && !key.help.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn values_are_judged_by_the_flags_themselves() {
        let flags = Flags::new();
        for (key, value) in [
            ("workers", "auto"),
            ("ready-timeout", "3s"),
            ("policy", "p2c"),
            ("max-surge", "25%"),
            ("weights", "3"),
        ] {
            assert_eq!(flags.accepts(key, value), Ok(()), "{key} {value}");
        }
        for (key, value, part) in [
            ("workers", "many", "or auto"),
            ("ready-timeout", "30", "a unit"),
            ("dispatch", "kernl", "did you mean kernel?"),
            ("adopt", "xyz", "use one of auto"),
        ] {
            let reason = flags.accepts(key, value).unwrap_err();
            assert!(reason.contains(part), "{key} {value}: {reason}");
        }
    }

    #[test]
    fn what_is_made_of_the_definitions_is_fresh() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for (name, fresh) in [
            ("phalanx.schema.json", schema()),
            ("configuration-keys.md", page()),
        ] {
            let there = std::fs::read_to_string(docs.join(name)).unwrap_or_default();
            assert!(there == fresh, "docs/{name} is stale: run `just schema`");
        }
    }
}
