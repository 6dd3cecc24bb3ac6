//! `phalanx.toml`, as the command uses it: the file is found and read, and an app of it becomes the words of a command line.
//!
//! INVARIANT: the keys of an app are the long flags of `phalanx run`, and each value is looked at by the flag's own parser. So
//! what can be typed can be written, and means the same.

mod change;
mod flags;
mod import;
mod live;
mod source;
mod start;
mod tell;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use phalanx_config::{Context, File};
use phalanx_sys::identity;

use crate::args::ConfigArgs;
use crate::report::{Failure, Outcome};
use flags::Flags;
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;

pub(crate) use change::{diff, left_by_reload};
pub(crate) use flags::{page, schema};
pub(crate) use import::import;
pub(crate) use live::Live;
pub(crate) use source::{Source, no_app_either, of_run, plain_args};
pub(crate) use start::init;
pub(crate) use tell::check;

/// The largest file that is read.
const LARGEST_BYTES: u64 = 1 << 20;

/// The file that is meant, as an absolute path.
///
/// # Errors
/// When there is none.
pub(crate) fn locate(args: &ConfigArgs) -> Outcome<PathBuf> {
    let here = env::current_dir().map_err(|error| {
        Failure::caused(Exit::Failed, "cannot find the working directory", &error)
    })?;
    match &args.config {
        Some(path) => Ok(here.join(path)),
        None => match phalanx_config::find(&here) {
            Some(path) => trusted(path, &here),
            None => Err(not_there(&here)),
        },
    }
}

fn not_there(here: &Path) -> Failure {
    let name = phalanx_config::FILE_NAME;
    let here = here.display();
    let reason = format!("there is no {name} in {here} or above; `phalanx init` writes one");
    Failure::new(Exit::Config, reason)
}

/// A file says which programs to run. One above the working directory may have been put there by somebody else, as into /tmp.
fn trusted(path: PathBuf, here: &Path) -> Outcome<PathBuf> {
    let owner = |path: &Path| {
        // Of a link, who made it has chosen the file.
        let found = fs::symlink_metadata(path);
        found.map(|found| found.uid()).map_err(|error| {
            let what = format!("cannot look at {}", path.display());
            Failure::caused(Exit::Config, &what, &error)
        })
    };
    if path.parent() == Some(here) {
        return Ok(path);
    }
    let uid = owner(&path)?;
    if identity::is_trusted(uid) || uid == owner(here)? {
        return Ok(path);
    }
    let reason = format!(
        "{} belongs to the user with id {uid}, and {} does not: name it with --config to use it",
        path.display(),
        here.display()
    );
    Err(Failure::new(Exit::Config, reason))
}

/// The text of a file, which is no pipe and no device, and no larger than any that people write.
pub(crate) fn text_of(path: &Path) -> Outcome<String> {
    read_text(path).map_err(|error| {
        let what = format!("cannot read {}", path.display());
        Failure::caused(Exit::Config, &what, &error)
    })
}

/// Reads the file, for these apps.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn load(
    path: &Path,
    profile: Option<&str>,
    wants: &dyn Fn(&str) -> bool,
) -> Outcome<File> {
    let text = text_of(path)?;
    let shown = shown(path);
    let read = read(&shown, &text, profile, wants);
    let mut file = read.map_err(|problems| Failure::new(Exit::Config, problems.to_string()))?;
    path.clone_into(&mut file.path);
    Ok(file)
}

/// The path as people like to read it: from the working directory, where it lies below that.
fn shown(path: &Path) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

fn read(
    path: &Path,
    text: &str,
    profile: Option<&str>,
    wants: &dyn Fn(&str) -> bool,
) -> Result<File, phalanx_config::Problems> {
    let flags = Flags::new();
    let keys = flags.keys();
    let context = Context {
        keys: &keys,
        profile,
        variable: &|name| env::var(name).ok(),
        read: &read_text,
        accepts: &|key, value| flags.accepts(&key.name, value),
        accepts_name: &|name| name.parse::<Name>().map(|_| ()),
        wants,
    };
    File::read(path, text, &context)
}

/// A device or a pipe would keep whoever asks waiting, and a running app asks too.
fn read_text(path: &Path) -> io::Result<String> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if found.len() > LARGEST_BYTES {
        let reason = format!("it has more than {LARGEST_BYTES} bytes");
        return Err(io::Error::other(reason));
    }
    fs::read_to_string(path)
}

/// The names of all apps that the file speaks of, in whatever profile and whether or not something is wrong with it.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn names_in(path: &Path) -> Outcome<Vec<Name>> {
    let names = File::names(&text_of(path)?);
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Which apps the file has, in whatever profile: `has api, web`.
fn apps_of(path: &Path) -> String {
    let all = names_in(path).unwrap_or_default();
    let all: Vec<_> = all.iter().map(Name::as_str).collect();
    match &all[..] {
        [] => "has none".to_owned(),
        all => format!("has {}", all.join(", ")),
    }
}

/// The app is not in the file, as it was read.
fn lacks(path: &Path, name: &str) -> Failure {
    let names = names_in(path).unwrap_or_default();
    let is_in_profile = names.iter().any(|one| one.as_str() == name);
    let shown = path.display();
    let reason = if is_in_profile {
        format!("{shown} has the app {name} only in another profile: choose it with --profile")
    } else {
        format!("{shown} has no app {name}: it {}", apps_of(path))
    };
    Failure::new(Exit::Config, reason)
}

/// The apps that were asked for by name, or all.
///
/// # Errors
/// When the file has none, or has not one that was asked for.
pub(crate) fn chosen(file: &File, names: &[Name]) -> Outcome<Vec<Name>> {
    let known: Vec<&str> = file.apps.iter().map(|app| app.name.as_str()).collect();
    for name in names {
        if !known.contains(&name.as_str()) {
            return Err(lacks(&file.path, name.as_str()));
        }
    }
    if known.is_empty() {
        let reason = format!("{} has no apps: write [app.NAME]", file.path.display());
        return Err(Failure::new(Exit::Config, reason));
    }
    if !names.is_empty() {
        return Ok(names.to_vec());
    }
    // The file was read, so they are names.
    Ok(known.iter().filter_map(|name| name.parse().ok()).collect())
}
