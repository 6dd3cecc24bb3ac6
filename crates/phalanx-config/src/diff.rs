//! What differs between two descriptions of an app.

use crate::app::App;

/// A key that says something else now. Values of variables are not among what is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The key; `env.NAME` for a variable.
    pub key: String,
    /// What it said; None: nothing.
    pub from: Option<String>,
    /// What it says now; None: nothing.
    pub to: Option<String>,
}

/// The key of what the workers run.
pub const COMMAND: &str = "command";
/// What stands before the name of a variable.
pub const ENV: &str = "env.";
const HIDDEN: &str = "(not shown)";

/// What differs, in the order of the keys: the command first, the variables last.
#[must_use]
pub fn compare(from: &App, to: &App) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |key: String, from: Option<String>, to: Option<String>| {
        changes.push(Change { key, from, to });
    };
    if from.program.words != to.program.words {
        let shown = |app: &App| Some(app.program.words.join(" "));
        add(COMMAND.to_owned(), shown(from), shown(to));
    }
    let mut keys: Vec<_> = from.settings.keys().chain(to.settings.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        // A switch that is off is as good as none.
        let shown = |app: &App| {
            let setting = app.settings.get(key).filter(|setting| setting.is_on);
            setting.map(crate::app::Setting::shown)
        };
        if shown(from) != shown(to) {
            add(key.clone(), shown(from), shown(to));
        }
    }
    let mut names: Vec<_> = from.env.keys().chain(to.env.keys()).collect();
    names.sort();
    names.dedup();
    for name in names
        .into_iter()
        .filter(|name| from.env.get(*name) != to.env.get(*name))
    {
        let shown = |app: &App| app.env.contains_key(name).then(|| HIDDEN.to_owned());
        add(format!("{ENV}{name}"), shown(from), shown(to));
    }
    changes
}
