//! Keys and context for tests.

#![allow(dead_code, reason = "each test uses a part")]

use std::io;
use std::path::Path;

use phalanx_config::{Context, File, Key, Keys, Kind, Problems};

pub(crate) fn keys() -> Keys {
    let key = |name: &str, kind| Key::new(name, kind, "help");
    Keys::new(vec![
        key("workers", Kind::NumberOrText),
        key("max-surge", Kind::NumberOrText),
        key("ready-timeout", Kind::Text),
        key("drain-timeout", Kind::Text),
        key("no-preload", Kind::Switch),
        key("bind", Kind::Text).list(true),
        key("cwd", Kind::Text),
        key("max-memory", Kind::NumberOrText),
        key("user", Kind::NumberOrText),
        key("group", Kind::NumberOrText),
        key("ready", Kind::Text),
        key("adopt", Kind::Text).choices(vec!["auto".to_owned(), "none".to_owned()]),
        key("node", Kind::Text),
        key("pid-file", Kind::Text),
        key("watch", Kind::Switch),
        key("watch-path", Kind::Text).list(true),
        key("watch-ignore", Kind::Text).list(true),
        key("watch-delay", Kind::Text),
    ])
}

/// How to read a text.
#[derive(Default)]
pub(crate) struct Reading<'a> {
    pub(crate) profile: Option<&'a str>,
    pub(crate) only: Option<&'a str>,
}

impl Reading<'_> {
    pub(crate) fn read(&self, text: &str) -> Result<File, Problems> {
        let keys = keys();
        let variable = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        let context = Context {
            keys: &keys,
            profile: self.profile,
            variable: &variable,
            read: &|path: &Path| match path.file_name().and_then(|name| name.to_str()) {
                Some("api.env") => Ok("FROM=file\nMODE=file\n".to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
            accepts: &|key, value| {
                let is_time = key.name.ends_with("-timeout") && !value.ends_with('s');
                if is_time {
                    Err("use a unit".to_owned())
                } else {
                    Ok(())
                }
            },
            accepts_name: &|name| {
                if name.contains(' ') {
                    Err("no blanks".to_owned())
                } else {
                    Ok(())
                }
            },
            wants: &|name| self.only.is_none_or(|only| only == name),
        };
        File::read(Path::new("phalanx.toml"), text, &context)
    }
}

pub(crate) fn read(text: &str) -> Result<File, Problems> {
    Reading::default().read(text)
}
