//! A configuration of gunicorn, `gunicorn.conf.py`, in the common form: settings with literal values. It is not executed.
//!
//! gunicorn goes on to read the file for what is its own; its arbiter stays, with one worker, in each of our workers.

use super::literal::Literal;
use super::{Draft, Fate, Imported, fates};
use crate::keys::Keys;
use Fate::{Key, Otherwise, Refused};

const STAYS: Fate = Otherwise("stays with gunicorn, which goes on to read its file");
const HOOK: Fate = Otherwise("stays with gunicorn, and runs once in each of our workers");

/// The settings, and what becomes of them. Those that are not listed stay with gunicorn.
pub const SETTINGS: &[(&str, Fate)] = &[
    ("wsgi_app", Otherwise("the last word of `command`")),
    ("bind", Key("bind")),
    ("workers", Key("workers")),
    ("worker_class", STAYS),
    ("threads", STAYS),
    ("worker_connections", STAYS),
    ("timeout", STAYS),
    ("keepalive", STAYS),
    (
        "graceful_timeout",
        Otherwise("`drain-timeout`; and it stays with gunicorn"),
    ),
    ("max_requests", STAYS),
    ("max_requests_jitter", STAYS),
    (
        "backlog",
        Refused("listeners have the longest backlog that the system allows"),
    ),
    (
        "reuse_port",
        Refused(
            "each worker has a queue of its own by dispatch in the kernel, and loses none of it",
        ),
    ),
    (
        "preload_app",
        Otherwise("stays with gunicorn; each of our workers loads the app for itself"),
    ),
    (
        "reload",
        Refused(
            "for development, run gunicorn by itself; `phalanx reload` replaces the workers without a loss",
        ),
    ),
    (
        "daemon",
        Refused(
            "leave it out: a worker that goes into the background is lost; `phalanx up` stays in the foreground",
        ),
    ),
    ("chdir", Key("cwd")),
    ("raw_env", Otherwise("`[app.NAME.env]`")),
    (
        "pidfile",
        Refused("leave it out, all workers would write it; for the primary's there is pid-file"),
    ),
    ("user", Key("user")),
    ("group", Key("group")),
    ("umask", STAYS),
    ("proc_name", Otherwise("the name of the app: `[app.NAME]`")),
    ("accesslog", STAYS),
    ("errorlog", STAYS),
    ("loglevel", STAYS),
    ("statsd_host", STAYS),
    (
        "control_socket",
        Refused("leave it out, all workers would make it; phalanx has its own, `phalanx status`"),
    ),
    ("certfile", STAYS),
    ("keyfile", STAYS),
    ("on_starting", HOOK),
    ("when_ready", HOOK),
    ("pre_fork", HOOK),
    ("post_fork", HOOK),
    ("post_worker_init", HOOK),
    ("worker_exit", HOOK),
    ("child_exit", HOOK),
    ("on_exit", HOOK),
    (
        "on_reload",
        Refused("gunicorn is not reloaded but replaced"),
    ),
    (
        "nworkers_changed",
        Refused("the number of gunicorn's own workers is always 1"),
    ),
    (
        "pre_exec",
        Refused("gunicorn does not replace itself by exec; phalanx replaces it"),
    ),
];

/// What becomes of each setting, as a table of Markdown.
#[must_use]
pub fn table() -> String {
    fates(
        "gunicorn",
        SETTINGS
            .iter()
            .map(|(name, fate)| (format!("`{name}`"), *fate)),
    )
}

/// Makes an app of the text of the file at `path`.
#[must_use]
pub fn import(path: &str, text: &str, keys: &Keys) -> Imported {
    let settings = assignments(text);
    let find = |name: &str| {
        settings
            .iter()
            .rev()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value)
    };
    let literal = |name: &str| find(name).and_then(|value| Literal::parse(value));
    let app_name = literal("proc_name").and_then(|name| name.text());
    let mut draft = Draft::new(app_name.as_deref().unwrap_or("web"));
    let wsgi = literal("wsgi_app").and_then(|name| name.text());
    if wsgi.is_none() {
        draft
            .remark("command: put the app, as wsgi:app, at its end, as on gunicorn's command line");
    }
    let mut command: Vec<String> = ["gunicorn", "-c", path, "-w", "1"]
        .map(str::to_owned)
        .to_vec();
    command.extend(wsgi);
    draft.command(&command);
    if find("bind").is_none() {
        draft.text(keys, "bind", "127.0.0.1:8000");
    }
    // The arbiter says READY=1 before its worker has loaded the app.
    draft.text(keys, "ready", "listen");
    if find("workers").is_none() {
        draft.text(keys, "workers", "${WEB_CONCURRENCY:-1}");
    }
    for (name, value) in &settings {
        setting(&mut draft, name, value, keys);
    }
    Imported::new(vec![draft])
}

fn setting(draft: &mut Draft, name: &str, value: &str, keys: &Keys) {
    let Some((_, fate)) = SETTINGS.iter().find(|(one, _)| *one == name) else {
        return;
    };
    let unread = |draft: &mut Draft| {
        draft.refuse(
            name,
            &format!("it is {value}, which would have to be run: write it by hand"),
        );
    };
    let literal = Literal::parse(value);
    match (name, fate) {
        ("workers", _) => match literal {
            Some(Literal::Processors) => draft.text(keys, "workers", "auto"),
            other => match other.and_then(|one| one.text()) {
                Some(text) => draft.text(keys, "workers", &text),
                None => unread(draft),
            },
        },
        ("bind", _) => {
            let binds: Vec<_> = literal.map(|one| one.texts()).unwrap_or_default();
            if binds.is_empty() {
                unread(draft);
            } else {
                draft.raw(keys, "bind", &crate::toml_text::list(&binds));
            }
        }
        ("graceful_timeout", _) => match literal.and_then(|one| one.text()) {
            Some(seconds) => draft.text(keys, "drain-timeout", &format!("{seconds}s")),
            None => unread(draft),
        },
        ("raw_env", _) => {
            for pair in literal.map(|one| one.texts()).unwrap_or_default() {
                if let Some((name, value)) = pair.split_once('=') {
                    draft.env(name, value);
                }
            }
        }
        (_, Key(key)) => match literal {
            Some(Literal::None) => {}
            other => match other.and_then(|one| one.text()) {
                Some(text) => draft.text(keys, key, &text),
                None => unread(draft),
            },
        },
        (_, Otherwise(_)) => {}
        (_, Refused(why)) => {
            if !matches!(literal, Some(Literal::None | Literal::Yes(false))) {
                draft.refuse(name, why);
            }
        }
    }
}

/// `NAME = VALUE` and `def NAME(` at the beginning of a line. A list may go over several lines.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("def ") {
            let name = rest.split('(').next().unwrap_or_default().trim();
            found.push((name.to_owned(), "def".to_owned()));
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let name = name.trim_end();
        if !crate::expand::is_name(name) || value.starts_with('=') {
            continue;
        }
        let mut value = without_comment(value);
        let is_open = |value: &str| {
            (value.starts_with('[') && !value.ends_with(']'))
                || (value.starts_with('(') && !value.ends_with(')'))
        };
        while is_open(&value) {
            match lines.next() {
                Some(more) => value.push_str(&without_comment(more)),
                None => break,
            }
        }
        found.push((name.to_owned(), value));
    }
    found
}

fn without_comment(text: &str) -> String {
    let end = text.find(" #").unwrap_or(text.len());
    let text = text[..end].trim();
    if text.starts_with('#') {
        String::new()
    } else {
        text.to_owned()
    }
}
