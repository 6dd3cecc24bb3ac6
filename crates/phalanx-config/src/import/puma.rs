//! A configuration of Puma, `config/puma.rb`, in the common form: words with literal values. It is not executed.
//!
//! Puma goes on to read the file for what is its own, in single mode, in each of our workers.

use super::literal::Literal;
use super::{Draft, Fate, Imported, fates};
use crate::keys::Keys;
use Fate::{Key, Otherwise, Refused};

const STAYS: Fate = Otherwise("stays with Puma, which goes on to read its file");
const CLUSTER: Fate = Refused(
    "it is of Puma's cluster mode, which phalanx takes the place of: move what it does to where the app starts",
);
const LIMITS: Fate = Refused(
    "it is of Puma's cluster mode; the limits of phalanx are ready-timeout, drain-timeout and kill-timeout",
);

/// The words, and what becomes of them. Those that are not listed stay with Puma.
pub const WORDS: &[(&str, Fate)] = &[
    ("workers", Key("workers")),
    ("threads", STAYS),
    ("bind", Key("bind")),
    ("port", Otherwise("`bind`")),
    ("environment", Otherwise("`RACK_ENV` in `[app.NAME.env]`")),
    ("directory", Key("cwd")),
    ("tag", Otherwise("the name of the app: `[app.NAME]`")),
    ("rackup", STAYS),
    (
        "preload_app!",
        Otherwise("nothing: each worker loads the app for itself"),
    ),
    (
        "prune_bundler",
        Otherwise("nothing: each reload starts Puma anew"),
    ),
    ("fork_worker", CLUSTER),
    (
        "pidfile",
        Refused("leave it out, all workers would write it; for the primary's there is pid-file"),
    ),
    (
        "state_path",
        Refused("leave it out, all workers would write it; there is `phalanx status`"),
    ),
    (
        "activate_control_app",
        Refused("leave it out, all workers would open it; there is `phalanx status`"),
    ),
    (
        "daemonize",
        Refused("leave it out: a worker that goes into the background is lost"),
    ),
    (
        "stdout_redirect",
        Refused("leave it out: workers' output goes through phalanx"),
    ),
    ("plugin", STAYS),
    ("worker_timeout", LIMITS),
    ("worker_boot_timeout", LIMITS),
    ("worker_shutdown_timeout", LIMITS),
    ("worker_check_interval", LIMITS),
    (
        "worker_culling_strategy",
        Refused("the newest workers leave first"),
    ),
    (
        "wait_for_less_busy_worker",
        Refused("choose by `policy`: least-connections, fastest or power-of-two"),
    ),
    (
        "restart_command",
        Refused("phalanx starts `command` anew for each worker"),
    ),
    ("before_fork", CLUSTER),
    ("on_worker_boot", CLUSTER),
    ("before_worker_boot", CLUSTER),
    ("on_worker_fork", CLUSTER),
    ("after_worker_fork", CLUSTER),
    ("on_worker_shutdown", CLUSTER),
    ("before_worker_shutdown", CLUSTER),
    ("on_refork", CLUSTER),
    ("on_restart", CLUSTER),
    ("before_restart", CLUSTER),
    ("on_booted", STAYS),
    ("after_booted", STAYS),
    ("force_shutdown_after", STAYS),
    ("persistent_timeout", STAYS),
    ("first_data_timeout", STAYS),
    ("queue_requests", STAYS),
    ("nakayoshi_fork", CLUSTER),
    ("silence_single_worker_warning", Otherwise("nothing")),
];

/// What becomes of each word, as a table of Markdown.
#[must_use]
pub fn table() -> String {
    fates(
        "Puma",
        WORDS
            .iter()
            .map(|(name, fate)| (format!("`{name}`"), *fate)),
    )
}

/// Makes an app of the text of the file at `path`.
#[must_use]
pub fn import(path: &str, text: &str, keys: &Keys) -> Imported {
    let calls = calls(text);
    let value = |word: &str| {
        calls
            .iter()
            .rev()
            .find(|(one, _)| one == word)
            .map(|(_, value)| value.as_str())
    };
    let tag = value("tag")
        .and_then(Literal::parse)
        .and_then(|tag| tag.text());
    let mut draft = Draft::new(tag.as_deref().unwrap_or("web"));
    let command = [
        "bundle",
        "exec",
        "puma",
        "-C",
        path,
        "-w",
        "0",
        "--bind-to-activated-sockets",
        "only",
    ];
    draft.command(&command.map(str::to_owned));
    let mut binds = Vec::new();
    for (word, value) in &calls {
        call(&mut draft, &mut binds, word, value, keys);
    }
    if binds.is_empty() {
        binds.push("0.0.0.0:9292".to_owned());
    }
    draft.raw(keys, "bind", &crate::toml_text::list(&binds));
    if value("workers").is_none() {
        draft.text(keys, "workers", "${WEB_CONCURRENCY:-1}");
    }
    Imported::new(vec![draft])
}

fn call(draft: &mut Draft, binds: &mut Vec<String>, word: &str, value: &str, keys: &Keys) {
    let Some((_, fate)) = WORDS.iter().find(|(one, _)| *one == word) else {
        return;
    };
    let literal = Literal::parse(value);
    let one = literal.as_ref().and_then(Literal::text);
    let mut unread = || {
        let text = format!("it is {value}, which would have to be run: write it by hand");
        draft.refuse(word, &text);
    };
    match (word, fate) {
        ("workers", _) => match (literal, one) {
            (Some(Literal::Processors), _) => draft.text(keys, "workers", "auto"),
            // Puma's single mode.
            (_, Some(number)) if number == "0" => draft.text(keys, "workers", "1"),
            (_, Some(number)) => draft.text(keys, "workers", &number),
            (_, None) => unread(),
        },
        ("port", _) => match one {
            // A second argument is the host.
            Some(port) => binds.push(format!("0.0.0.0:{port}")),
            None => match value
                .split_once(',')
                .map(|(port, host)| (Literal::parse(port), Literal::parse(host)))
            {
                Some((Some(port), Some(host)))
                    if port.text().is_some() && host.text().is_some() =>
                {
                    binds.push(format!(
                        "{}:{}",
                        host.text().unwrap_or_default(),
                        port.text().unwrap_or_default()
                    ));
                }
                _ => unread(),
            },
        },
        ("bind", _) => match one.as_deref().map(address) {
            Some(Ok(address)) => binds.push(address),
            Some(Err(why)) => draft.refuse(word, why),
            None => unread(),
        },
        ("environment", _) => match one {
            Some(environment) => draft.env("RACK_ENV", &environment),
            None => unread(),
        },
        (_, Key(key)) => match one {
            Some(text) => draft.text(keys, key, &text),
            None => unread(),
        },
        (_, Otherwise(_)) => {}
        (_, Refused(why)) => draft.refuse(word, why),
    }
}

/// `tcp://HOST:PORT` and `unix://PATH`, which may have options after a question mark.
fn address(text: &str) -> Result<String, &'static str> {
    let plain = text.split('?').next().unwrap_or(text);
    if let Some(address) = plain.strip_prefix("tcp://") {
        return Ok(address.to_owned());
    }
    if let Some(path) = plain.strip_prefix("unix://") {
        return Ok(format!("unix:{path}"));
    }
    Err(
        "it is neither tcp:// nor unix://; with ssl:// Puma needs its file's own bind: put a proxy in front",
    )
}

/// `WORD ARGUMENTS` at the beginning of a line, blocks and conditions left out.
fn calls(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let end = line.find(" #").unwrap_or(line.len());
        let line = line[..end].trim_end();
        let word_end = line.find([' ', '(']).unwrap_or(line.len());
        let word = &line[..word_end];
        if word.is_empty() || word.starts_with('#') {
            continue;
        }
        let rest = line[word_end..].trim();
        let inside = rest
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'));
        // A condition after the call is the user's to look at.
        let value = inside.unwrap_or(rest);
        found.push((word.to_owned(), value.to_owned()));
    }
    found
}
