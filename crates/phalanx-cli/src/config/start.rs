//! `phalanx init`: a file to begin with.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use phalanx_config::toml_text::{key, list, quoted};
use phalanx_config::{FILE_NAME, schema};

use crate::args::InitArgs;
use crate::program::is_script;
use crate::report::{self, Failure, Outcome};
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;

/// Scripts that are taken for a server, if they are there.
const SCRIPTS: [&str; 9] = [
    "server.js",
    "server.mjs",
    "server.ts",
    "dist/server.js",
    "app.js",
    "index.js",
    "main.js",
    "src/server.js",
    "src/index.js",
];

pub(crate) fn init(args: &InitArgs) -> Outcome {
    let words = if args.command.is_empty() {
        vec![guess()]
    } else {
        args.command.clone()
    };
    let text = file_of(&words);
    if args.print {
        return report::print(&text);
    }
    let path = Path::new(FILE_NAME);
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            let reason = format!("{FILE_NAME} is there already; `phalanx check` checks it");
            Failure::new(Exit::CannotCreate, reason)
        } else {
            let what = format!("cannot write {FILE_NAME}");
            Failure::caused(Exit::CannotCreate, &what, &error)
        }
    })?;
    report::print(&format!(
        "{FILE_NAME} written: `phalanx check` checks it, `phalanx up` runs it\n"
    ))
}

/// The script of this directory, as far as can be told.
fn guess() -> String {
    let package = std::fs::read("package.json").ok();
    let package = package.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let main = package
        .as_ref()
        .and_then(|package| package["main"].as_str());
    let main = main.filter(|main| Path::new(main).is_file());
    let there = SCRIPTS
        .iter()
        .copied()
        .find(|script| Path::new(script).is_file());
    there.or(main).unwrap_or("server.js").to_owned()
}

fn file_of(words: &[String]) -> String {
    let (first, rest) = words
        .split_first()
        .map_or(("server.js", &[][..]), |(first, rest)| {
            (first.as_str(), rest)
        });
    let program = if !is_script(OsStr::new(first)) {
        format!("command = {}", list(words))
    } else if rest.is_empty() {
        format!("script = {}", quoted(first))
    } else {
        format!("script = {}\nargs = {}", quoted(first), list(rest))
    };
    let name = Name::of_program(OsStr::new(first));
    let name = key(name.as_str());
    format!(
        "#:schema {}\n# The keys are the long options of `phalanx run`: `phalanx help run`.\n\n[app.{name}]\n{program}\n\
         workers = \"auto\"\n# drain-timeout = \"30s\"\n\n[app.{name}.env]\n# PORT = \"${{PORT:-3000}}\"\n\n\
         # What is otherwise in production: `phalanx up --profile production`\n# [profile.production.app.{name}]\n# workers = 4\n",
        schema::ADDRESS
    )
}
