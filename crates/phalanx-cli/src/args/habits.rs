//! Words of PM2 that do here what they do there, with the app as the word after them.

use std::ffi::OsString;

/// What a word is here.
struct Habit {
    word: &'static str,
    verb: &'static [&'static str],
    /// The next word is the name of an app.
    takes_app: bool,
}

const HABITS: &[Habit] = &[
    habit("ls", &["list"], false),
    habit("ps", &["list"], false),
    habit("l", &["list"], false),
    habit("jlist", &["list", "--json"], false),
    habit("prettylist", &["list", "--json"], false),
    habit("restart", &["reload"], true),
    habit("delete", &["stop"], true),
    habit("del", &["stop"], true),
    habit("describe", &["status"], true),
    habit("desc", &["status"], true),
    habit("info", &["status"], true),
    habit("show", &["status"], true),
    #[cfg(feature = "top")]
    habit("monit", &["top"], false),
    #[cfg(feature = "top")]
    habit("imonit", &["top"], false),
    habit("ecosystem", &["init"], false),
    habit("startup", &["unit", "--install"], false),
];

const fn habit(word: &'static str, verb: &'static [&'static str], takes_app: bool) -> Habit {
    Habit {
        word,
        verb,
        takes_app,
    }
}

/// Verbs of ours that PM2 has too, there with the name of an app after them.
const SHARED: [&str; 3] = ["reload", "stop", "status"];

/// The words of the command line as this command has them: `restart api` is `reload --name api`.
pub(crate) fn translate(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<OsString> = words.into_iter().collect();
    let Some(first) = words.get(1).and_then(|word| word.to_str()) else {
        return words;
    };
    let shared = SHARED.iter().find(|verb| **verb == first);
    let (verb, takes_app) = match HABITS.iter().find(|habit| habit.word == first) {
        Some(habit) => (habit.verb, habit.takes_app),
        None => match shared {
            Some(verb) => (std::slice::from_ref(verb), true),
            None => return words,
        },
    };
    let mut translated = vec![words[0].clone()];
    translated.extend(verb.iter().map(OsString::from));
    let mut rest = &words[2..];
    if let [app, others @ ..] = rest
        && takes_app
        && !app.to_string_lossy().starts_with('-')
    {
        translated.extend(["--name".into(), app.clone()]);
        rest = others;
    }
    translated.extend(rest.iter().cloned());
    translated
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;
    use super::*;

    fn translated(words: &str) -> String {
        let words = translate(format!("phalanx {words}").split(' ').map(OsString::from));
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words[1..].join(" ")
    }

    #[test]
    fn words_of_pm2_do_what_they_do_there() {
        for (theirs, ours) in [
            ("ls", "list"),
            ("jlist", "list --json"),
            ("restart api", "reload --name api"),
            ("reload api", "reload --name api"),
            ("delete api --fast", "stop --name api --fast"),
            ("describe api", "status --name api"),
            #[cfg(feature = "top")]
            ("monit api", "top api"),
            ("reload --canary 1", "reload --canary 1"),
            ("status", "status"),
            ("run ls", "run ls"),
            ("scale api 3", "scale api 3"),
        ] {
            assert_eq!(translated(theirs), ours);
        }
    }

    #[test]
    fn every_word_becomes_a_verb_and_is_none_itself() {
        let cli = Cli::command();
        for habit in HABITS {
            assert!(cli.find_subcommand(habit.word).is_none(), "{}", habit.word);
            let words = translated(&format!("{} app", habit.word));
            let words = if habit.takes_app {
                words
            } else {
                habit.verb.join(" ")
            };
            let words = std::iter::once("phalanx").chain(words.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{}", habit.word);
        }
    }
}
