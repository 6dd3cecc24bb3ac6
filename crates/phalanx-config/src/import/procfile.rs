//! A Procfile: one `NAME: COMMAND` a line.

use super::{Draft, Imported, shell};
use crate::keys::Keys;

/// Makes apps of the lines of a Procfile. The one named `web` is a server; the others are programs that accept no
/// connections, as Heroku has it.
#[must_use]
pub fn import(text: &str, keys: &Keys) -> Imported {
    let mut apps = Vec::new();
    let mut stray = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once(':') {
            Some((name, command)) if is_name(name) && !command.trim().is_empty() => {
                apps.push(app(name, command.trim(), keys));
            }
            Some(_) | None => stray.push(format!("line {}: it is no NAME: COMMAND", number + 1)),
        }
    }
    if let Some(first) = apps.first_mut() {
        for text in &stray {
            first.remark(text);
        }
    }
    Imported::new(apps)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || "_-".contains(one))
}

fn app(name: &str, command: &str, keys: &Keys) -> Draft {
    let mut app = Draft::new(name);
    let words = shell::words(command);
    match words.as_deref() {
        Some([node, script, args @ ..]) if node == "node" && is_script(script) => {
            app.script(script, args);
        }
        Some(words) => app.command(words),
        None => {
            let words = ["sh", "-c", command].map(super::literally);
            app.command(&words);
            app.remark(
                "the command needs a shell: put exec before the server, so that signals reach it",
            );
        }
    }
    if name != "web" {
        app.raw(keys, "workers", "1");
        app.text(keys, "adopt", "none");
        app.remark("only web accepts connections in a Procfile: leave adopt out if this one does");
    }
    app
}

fn is_script(word: &str) -> bool {
    [".js", ".mjs", ".cjs", ".ts"]
        .iter()
        .any(|end| word.ends_with(end))
}
