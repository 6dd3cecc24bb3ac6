//! From the first word to something that can be executed: a script, a directory, a package, a file beside us.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use phalanx_core::program::words;

use super::follow::{Finder, Trail, header};
use super::package::Package;
use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;

/// What runs a file that says nothing of it itself.
const INTERPRETERS: [(&str, &[&str]); 8] = [
    ("py", &["python3", "python"]),
    ("pyz", &["python3", "python"]),
    ("rb", &["ruby"]),
    ("php", &["php"]),
    ("pl", &["perl"]),
    ("lua", &["lua"]),
    ("sh", &["sh"]),
    ("jar", &["java"]),
];

/// What the first word stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// What is executed as it stands.
    Program,
    /// These words instead of the first one.
    Words(Vec<OsString>),
    /// A file that Node is to run.
    Script(OsString),
    /// npm's `start` of the package in this directory.
    Start(PathBuf),
}

/// Finds it.
///
/// # Errors
/// When it is a directory or package without an entry, or a file that nothing can run.
pub(super) fn of(finder: &Finder<'_>, trail: &Trail) -> Outcome<Entry> {
    let word = &trail.exec;
    let path = trail.directory.join(word);
    let has_slash = word.as_encoded_bytes().contains(&b'/') || word == "." || word == "..";
    if path.file_name() == Some(OsStr::new("package.json")) && path.is_file() {
        let directory = Path::new(word).parent().unwrap_or(Path::new(""));
        return of_directory(trail, directory);
    }
    let is_program = finder.find(trail).is_some();
    if path.is_dir() && (has_slash || !is_program) {
        return of_directory(trail, Path::new(word));
    }
    if is_program || !path.is_file() {
        return Ok(Entry::Program);
    }
    of_file(finder, trail, &path, has_slash)
}

/// A file that is not found in `PATH`, or that nobody may execute.
fn of_file(finder: &Finder<'_>, trail: &Trail, path: &Path, has_slash: bool) -> Outcome<Entry> {
    let here = if has_slash {
        trail.exec.clone()
    } else {
        Path::new(".").join(&trail.exec).into_os_string()
    };
    let is_executable = path
        .metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0);
    let header = header(path).unwrap_or_default();
    let interpreter = words::interpreter(&header);
    if is_executable && (interpreter.is_some() || header.contains(&0)) {
        return Ok(Entry::Words(vec![here]));
    }
    if let Some((interpreter, argument)) = interpreter {
        let words = std::iter::once(interpreter).chain(argument);
        return Ok(Entry::Words(words.chain([here]).collect()));
    }
    let extension = path.extension();
    let known = INTERPRETERS
        .iter()
        .find(|(ending, _)| extension.is_some_and(|extension| extension == *ending));
    let Some((ending, names)) = known else {
        return Ok(Entry::Program);
    };
    let found = names.iter().find(|name| {
        let one = Trail {
            exec: (**name).into(),
            ..trail.clone()
        };
        finder.find(&one).is_some()
    });
    let Some(name) = found else {
        let reason = format!(
            "{} is to be run by {}, which is not in PATH; name an interpreter before it",
            path.display(),
            names.join(" or ")
        );
        return Err(Failure::new(Exit::NotFound, reason));
    };
    let mut words: Vec<OsString> = vec![name.into()];
    if *ending == "jar" {
        words.push("-jar".into());
    }
    words.push(here);
    Ok(Entry::Words(words))
}

/// As `node DIRECTORY` and `npm start` would.
fn of_directory(trail: &Trail, word: &Path) -> Outcome<Entry> {
    let directory = trail.directory.join(word);
    let script = |file: &Path| Entry::Script(Path::new(".").join(word).join(file).into_os_string());
    let Some(package) = Package::at(&directory) else {
        if directory.join("index.js").is_file() {
            return Ok(script(Path::new("index.js")));
        }
        let reason = format!(
            "{} is a directory without an entry: looked for package.json (its main, exports and scripts.start) and index.js; \
             name a script or a program",
            directory.display()
        );
        return Err(Failure::new(Exit::NotExecutable, reason));
    };
    if let Some(file) = package.entry() {
        return Ok(script(&file));
    }
    if package.script("start").is_some() {
        return Ok(Entry::Start(directory));
    }
    let reason = format!(
        "{} has no entry: main and exports name no file that is there, scripts.start is not set, and there is no \
         index.js; name a script or a program",
        directory.join("package.json").display()
    );
    Err(Failure::new(Exit::NotExecutable, reason))
}
