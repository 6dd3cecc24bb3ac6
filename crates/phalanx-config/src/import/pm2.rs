//! PM2's `ecosystem.config.*`, as the JSON of what it exports.

mod table;

use serde_json::{Map, Value};

pub use table::KEYS;

use super::{Draft, Fate, Imported, fates, literally};
use crate::keys::Keys;
use crate::toml_text::list;

/// Words of PM2 with a meaning for what follows: a key, and its other names.
fn row(name: &str) -> Option<&'static (&'static str, &'static [&'static str], Fate)> {
    let is_it = |row: &&(&str, &[&str], Fate)| row.0 == name || row.1.contains(&name);
    KEYS.iter().find(is_it).or_else(|| {
        let is_env = name.starts_with("env_") && name.len() > "env_".len();
        KEYS.iter()
            .find(|row| is_env && row.0 == table::ENV_OF_PROFILE)
    })
}

/// What there is instead of a word of PM2's schema; None: it is no word of it.
#[must_use]
pub fn instead(name: &str) -> Option<String> {
    Some(match &row(name)?.2 {
        Fate::Key(key) => format!("use {key}"),
        Fate::Otherwise(text) => (*text).to_owned(),
        Fate::Refused(why) => format!("it has no counterpart: {why}"),
    })
}

/// What becomes of each key of PM2's schema, as a table of Markdown.
#[must_use]
pub fn table() -> String {
    let rows = KEYS.iter().map(|(name, aliases, fate)| {
        let names: Vec<_> = std::iter::once(name)
            .chain(*aliases)
            .map(|one| format!("`{one}`"))
            .collect();
        (names.join(", ").replace('|', "\\|"), *fate)
    });
    fates("PM2", rows)
}

/// Makes apps of what an `ecosystem.config.*` exports: an object with `apps`, one app, or a list of them.
///
/// # Errors
///
/// Says what it is instead, in a sentence.
pub fn import(exported: &Value, keys: &Keys) -> Result<Imported, String> {
    let apps = match exported {
        Value::Object(object) => match object.get("apps") {
            Some(Value::Array(apps)) => apps.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            Some(_) => return Err("its apps are no list".to_owned()),
            None => vec![exported],
        },
        Value::Array(apps) => apps.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err("it exports no apps".to_owned());
        }
    };
    let mut drafts = Vec::new();
    for (number, app) in apps.into_iter().enumerate() {
        let object = app
            .as_object()
            .ok_or_else(|| format!("app {number} is no object"))?;
        drafts.push(draft(number, object, keys)?);
    }
    if drafts.is_empty() {
        return Err("it has no apps".to_owned());
    }
    Ok(Imported::new(drafts))
}

/// The value at a key or one of its other names.
fn find<'a>(app: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let aliases = row(name).map_or(&[][..], |row| row.1);
    let mut names = std::iter::once(&name).chain(aliases);
    names
        .find_map(|name| app.get(*name))
        .filter(|value| !value.is_null())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(literally(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A list of words; a text is split at blanks, as PM2 does.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(text).collect(),
        Some(Value::String(text)) => super::shell::words(text)
            .unwrap_or_else(|| text.split_whitespace().map(literally).collect()),
        _ => Vec::new(),
    }
}

fn draft(number: usize, app: &Map<String, Value>, keys: &Keys) -> Result<Draft, String> {
    let script = find(app, "script").and_then(text);
    let script = script.ok_or_else(|| format!("app {number} has no script"))?;
    let stem = std::path::Path::new(&script)
        .file_stem()
        .unwrap_or_default();
    let name = find(app, "name").and_then(text);
    let mut draft = Draft::new(name.as_deref().unwrap_or(&stem.to_string_lossy()));
    program(&mut draft, app, &script, keys);
    for (key, value) in app.iter().filter(|(_, value)| !value.is_null()) {
        match row(key) {
            Some((name, _, fate)) => setting(&mut draft, app, (name, key), value, fate, keys),
            None => draft.refuse(key, "it is no key of PM2's schema"),
        }
    }
    if !app.contains_key("instances") {
        // One is PM2's default.
        draft.raw(keys, "workers", "1");
    }
    Ok(draft)
}

fn program(draft: &mut Draft, app: &Map<String, Value>, script: &str, keys: &Keys) {
    let args = words(find(app, "args"));
    let node_args = words(find(app, "node_args"));
    let interpreter = find(app, "exec_interpreter").and_then(text);
    let is_script = [".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"]
        .iter()
        .any(|end| script.ends_with(end));
    let is_node =
        |program: &str| std::path::Path::new(program).file_stem() == Some("node".as_ref());
    let mut command = match interpreter.as_deref() {
        Some("none") => vec![],
        Some(program) if is_node(program) && node_args.is_empty() && is_script => {
            if program != "node" {
                draft.text(keys, "node", program);
            }
            return draft.script(script, &args);
        }
        Some(program) => vec![program.to_owned()],
        None if is_script && node_args.is_empty() => return draft.script(script, &args),
        None => match script.rsplit_once('.').map(|(_, extension)| extension) {
            Some("py") => vec!["python3".to_owned()],
            Some("rb") => vec!["ruby".to_owned()],
            Some("sh") => vec!["bash".to_owned()],
            Some("php") => vec!["php".to_owned()],
            _ if is_script => vec!["node".to_owned()],
            _ => vec![],
        },
    };
    command.extend(node_args);
    command.push(script.to_owned());
    command.extend(args);
    draft.command(&command);
}

fn setting(
    draft: &mut Draft,
    app: &Map<String, Value>,
    (name, written): (&str, &str),
    value: &Value,
    fate: &Fate,
    keys: &Keys,
) {
    match (name, fate) {
        ("script" | "name" | "args" | "exec_interpreter" | "node_args", _) => {}
        ("env", _) => each_variable(value, |name, value| draft.env(name, value)),
        (table::ENV_OF_PROFILE, _) => {
            let profile = written.strip_prefix("env_").unwrap_or(written);
            each_variable(value, |name, value| draft.profile_env(profile, name, value));
        }
        ("port", _) => {
            if let Some(port) = text(value) {
                draft.env("PORT", &port);
            }
        }
        ("instances", _) => instances(draft, value, keys),
        ("watch", _) => watch(draft, value, keys),
        ("ignore_watch", _)
            if find(app, "watch").is_some_and(|watch| *watch != Value::Bool(false)) =>
        {
            ignore_watch(draft, value, keys);
        }
        ("ignore_watch", _) => draft.refuse(written, "`watch` is off"),
        ("exec_mode", _) => {
            let is_fork = value.as_str().is_some_and(|mode| mode.starts_with("fork"));
            let is_several = find(app, "instances").is_some_and(|count| *count != 1);
            if is_fork && is_several {
                draft.refuse(written, "instances of PM2's fork mode each listened on a port of their own; here the workers share them");
            }
        }
        ("wait_ready", _) if *value == Value::Bool(true) => draft.text(keys, "ready", "message"),
        (
            "autorestart" | "autostart" | "treekill" | "vizion" | "pmx" | "automation"
            | "windowsHide",
            _,
        ) if *value == Value::Bool(true) => {}
        ("instance_var", _) if value == "NODE_APP_INSTANCE" => {}
        (_, Fate::Refused(_))
            if *value == Value::Bool(false)
                && name != "autorestart"
                && name != "treekill"
                && name != "autostart" => {}
        (_, Fate::Refused(why)) => draft.refuse(written, why),
        (_, Fate::Key(key)) => {
            if let Some(value) = own_value(name, value) {
                draft.text(keys, key, &value);
            } else if *value != Value::Bool(false) {
                draft.refuse(
                    written,
                    &format!("its value cannot be taken over; see {key}"),
                );
            }
        }
        (_, Fate::Otherwise(text)) => {
            if *value != Value::Bool(false) {
                draft.refuse(written, text);
            }
        }
    }
}

/// PM2's value in our units.
fn own_value(name: &str, value: &Value) -> Option<String> {
    let plain = text(value)?;
    match name {
        // Milliseconds; more than its own five seconds would pass for nothing.
        "kill_timeout" | "listen_timeout" | "watch_delay" => {
            let millis: u64 = plain.parse().ok()?;
            Some(format!("{millis}ms"))
        }
        // A bare number is one of bytes.
        "max_memory_restart" => match plain.parse::<u64>() {
            Ok(bytes) => Some(format!("{}K", bytes / 1024)),
            Err(_) => Some(plain),
        },
        _ => Some(plain),
    }
}

fn instances(draft: &mut Draft, value: &Value, keys: &Keys) {
    let count = value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    match count {
        Some(count) if count > 0 => draft.raw(keys, "workers", &count.to_string()),
        Some(0) => draft.text(keys, "workers", "auto"),
        None if value == "max" => draft.text(keys, "workers", "auto"),
        Some(_) | None => {
            draft.text(keys, "workers", "auto");
            draft.refuse(
                "instances",
                "it counts from the number of processors, of which auto takes all",
            );
        }
    }
}

/// `true`, or what to watch.
fn watch(draft: &mut Draft, value: &Value, keys: &Keys) {
    let paths = words(Some(value));
    match value {
        Value::Bool(false) | Value::Null => {}
        Value::Bool(true) => draft.raw(keys, "watch", "true"),
        Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            draft.raw(keys, "watch", "true");
            draft.raw(keys, "watch-path", &list(&paths));
        }
    }
}

/// Names are passed over here as there; expressions and paths are not.
fn ignore_watch(draft: &mut Draft, value: &Value, keys: &Keys) {
    let is_name = |word: &String| !word.contains(['/', '\\', '[', '^', '$', '(', '?']);
    let (names, others): (Vec<_>, Vec<_>) = words(Some(value)).into_iter().partition(is_name);
    if !names.is_empty() {
        draft.raw(keys, "watch-ignore", &list(&names));
    }
    for other in others {
        let why = format!("{other} is more than a name of a file or directory");
        draft.refuse("ignore_watch", &why);
    }
}

fn each_variable(value: &Value, mut set: impl FnMut(&str, &str)) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => None,
            Value::Array(_) | Value::Object(_) => Some(literally(&value.to_string())),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => text(value),
        };
        if let Some(value) = value.filter(|_| crate::expand::is_name(name)) {
            set(name, &value);
        }
    }
}
