//! What was meant by a verb that does not exist: the words of other tools of the field, slips of the key, a script without `run`.

use std::ffi::OsStr;
use std::path::Path;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;

/// The verb that does what other tools call otherwise.
const SYNONYMS: &[(&str, &str)] = &[
    ("serve", "run"),
    ("exec", "run"),
    ("cluster", "run"),
    ("restart", "reload"),
    ("gracefulreload", "reload"),
    ("graceful", "reload"),
    ("deploy", "reload"),
    ("update", "reload"),
    ("upgrade", "reload"),
    ("ls", "list"),
    ("ps", "list"),
    ("l", "list"),
    ("apps", "list"),
    ("kill", "stop"),
    ("delete", "stop"),
    ("del", "stop"),
    ("shutdown", "stop"),
    ("quit", "stop"),
    ("info", "status"),
    ("show", "status"),
    ("describe", "status"),
    ("desc", "status"),
    ("stat", "status"),
    ("stats", "status"),
    ("cycle", "recycle"),
    ("undo", "rollback"),
    ("revert", "rollback"),
    ("message", "send"),
    ("trigger", "send"),
    ("watch", "run --watch"),
    #[cfg(feature = "top")]
    ("monitor", "top"),
    #[cfg(feature = "top")]
    ("dash", "top"),
    #[cfg(feature = "top")]
    ("dashboard", "top"),
    #[cfg(feature = "top")]
    ("htop", "top"),
    ("log", "logs"),
    ("tail", "logs"),
    ("completion", "generate"),
    ("completions", "generate"),
    ("man", "generate"),
];

/// What phalanx has no verb for, and what there is instead.
const INSTEAD: &[(&[&str], &str)] = &[
    (
        &[
            "start",
            "startorreload",
            "startorrestart",
            "startorgracefulreload",
        ],
        "an app runs in the foreground here: `phalanx run server.js`, or `phalanx up` for all of phalanx.toml (`phalanx import \
         ecosystem.config.js` makes one); a service manager puts it into the background, as docs/systemd.md shows",
    ),
    (
        &["flush", "reloadlogs"],
        "what `phalanx logs` shows is in memory, where new lines replace the oldest; a file of `run --log-file` is turned over by \
         size or age, and opened anew on SIGUSR1",
    ),
    #[cfg(not(feature = "top"))]
    (
        &["monit", "monitor", "top", "dash", "dashboard", "imonit"],
        "this phalanx was built without its live view: use `phalanx status`, or `watch phalanx status`; `phalanx events` prints what happens",
    ),
    (
        &["save", "dump", "resurrect"],
        "there is nothing to save: what runs stands in phalanx.toml (`phalanx init`), and `phalanx unit --install` has it run at boot",
    ),
    (
        &["unstartup"],
        "a unit is taken back by the service manager: systemctl disable --now NAME, then remove /etc/systemd/system/NAME.service",
    ),
    (
        &["install", "enable", "daemon", "daemonize", "service"],
        "`phalanx unit --install` has systemd run an app in the background and at boot; docs/systemd.md has more",
    ),
];

/// As many keys may have slipped in a word of that length.
fn slips(length: usize) -> usize {
    if length < 4 { 1 } else { 2 }
}

/// What to tell about this error, if it is about a verb that does not exist.
pub(crate) fn explain(error: &clap::Error) -> Option<String> {
    let is_about_a_verb = error.kind() == ErrorKind::InvalidSubcommand;
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if is_about_a_verb => Some(reason(word)),
        Some(_) | None => None,
    }
}

fn reason(word: &str) -> String {
    let unknown = format!("there is no command {word:?}");
    let plain = word.to_ascii_lowercase();
    let is_it = |words: &[&str]| words.contains(&plain.as_str());
    if let Some((_, instead)) = INSTEAD.iter().find(|(words, _)| is_it(words)) {
        return format!("{unknown}: {instead}");
    }
    if let Some(verb) = meant(word) {
        return format!("{unknown}; did you mean `phalanx {verb}`?");
    }
    if is_a_program(word) {
        return format!("{unknown}; to run that: `phalanx run {word}`");
    }
    format!("{unknown}; `phalanx help` lists the commands")
}

fn meant(word: &str) -> Option<String> {
    let word = word.to_ascii_lowercase();
    if let Some((_, verb)) = SYNONYMS.iter().find(|(synonym, _)| *synonym == word) {
        return Some((*verb).to_owned());
    }
    let cli = Cli::command();
    let verbs = cli.get_subcommands().map(|verb| verb.get_name().to_owned());
    let near = verbs.map(|verb| (strsim::osa_distance(&word, &verb), verb));
    let near = near.filter(|(distance, _)| *distance <= slips(word.len()));
    near.min().map(|(_, verb)| verb)
}

fn is_a_program(word: &str) -> bool {
    let path = Path::new(word);
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|one| ["js", "mjs", "cjs", "ts", "py", "rb", "php"].contains(&one))
        || word.contains('/')
        || path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_other_tools_lead_to_the_verb_that_does_it() {
        for (word, verb) in [
            ("restart", "reload"),
            ("ls", "list"),
            ("ps", "list"),
            ("kill", "stop"),
            ("relaod", "reload"),
            ("stauts", "status"),
            ("lst", "list"),
            ("Status", "status"),
        ] {
            let reason = reason(word);
            assert!(reason.contains(&format!("`phalanx {verb}`")), "{reason}");
        }
        assert!(reason("start").contains("`phalanx run server.js`"));
        assert!(reason("flush").contains("phalanx logs"));
        #[cfg(feature = "top")]
        assert!(reason("dashboard").contains("`phalanx top`"));
        assert!(reason("server.js").contains("`phalanx run server.js`"));
    }

    #[test]
    fn what_resembles_nothing_is_not_guessed() {
        for word in ["frobnicate", "x", "pm2", "https"] {
            let reason = reason(word);
            assert!(reason.ends_with("lists the commands"), "{reason}");
        }
    }

    #[test]
    fn every_synonym_leads_to_a_verb_and_is_none_itself() {
        let cli = Cli::command();
        let is_verb = |word: &str| cli.find_subcommand(word).is_some();
        for (synonym, verb) in SYNONYMS {
            let verb = verb.split(' ').next().unwrap_or_default();
            assert!(is_verb(verb) && !is_verb(synonym), "{synonym} {verb}");
        }
    }
}
