//! What the workers run: from the words of the command line to a program, its arguments and a name.
//!
//! A word that ends like a script is run by Node. Whatever can be known to fail is refused here, before
//! anything is started: a program or script that is not there, a Node too old for the script.

mod entry;
mod follow;
mod package;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use phalanx_core::program::names;
use phalanx_sys::marker;
use phalanx_sys::process::{SpawnError, resolve_program};

use crate::report::{Failure, Outcome, with_causes};
use crate::values::Variable;
use entry::Entry;
use follow::{Finder, Trail};
use package::Package;
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;

const SCRIPTS: [&str; 3] = ["js", "mjs", "cjs"];
/// Scripts that Node runs since version 22.18 (23.6 in that line) by leaving the types out.
const TYPED_SCRIPTS: [&str; 3] = ["ts", "mts", "cts"];

/// What the workers run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// A path, or a name to be looked up in `PATH`.
    pub(crate) exec: OsString,
    pub(crate) args: Vec<OsString>,
    /// What the app is called unless it is given a name.
    pub(crate) name: Name,
    /// It is run by Node, which has a channel.
    pub(crate) is_node: bool,
    /// How many words are those of a launcher that executes Node.
    pub(crate) launcher_words: usize,
    /// It links the library, and so speaks the channel.
    pub(crate) is_linked: bool,
    /// Variables that the way to it sets.
    pub(crate) env: Vec<Variable>,
    /// The directory that the way to it leads into.
    pub(crate) cwd: Option<PathBuf>,
}

/// The words of the command line, and what they are to be understood by.
#[derive(Debug)]
pub(crate) struct Words<'a> {
    /// The command and its arguments; at least one word.
    pub(crate) command: &'a [OsString],
    /// The Node that was chosen.
    pub(crate) node: Option<&'a OsStr>,
    /// The workers' directory, when it is not this one.
    pub(crate) cwd: Option<&'a Path>,
    /// Variables that are set for the workers.
    pub(crate) env: &'a [Variable],
}

impl Words<'_> {
    /// Finds out what is to be run, and that it can be.
    pub(crate) fn resolve(&self) -> Outcome<Program> {
        let (first, rest) = self.command.split_first().ok_or_else(|| {
            Failure::new(Exit::Usage, "the command is missing: phalanx run server.js")
        })?;
        if first.is_empty() {
            // Joined to the directory it would be the directory itself.
            let reason = "the command is an empty word: name a script or a program";
            return Err(Failure::new(Exit::NotFound, reason));
        }
        let directory = self.directory()?;
        let path = self.path();
        let finder = Finder {
            path: path.as_deref(),
            node: self.node,
        };
        let mut trail = Trail {
            exec: first.clone(),
            args: rest.to_vec(),
            directory: directory.clone(),
            ..Trail::default()
        };
        if is_script(first) && !directory.join(first).is_dir() {
            trail = self.run_by_node(trail, first)?;
        } else {
            match entry::of(&finder, &trail)? {
                Entry::Program => {}
                Entry::Script(script) => trail = self.run_by_node(trail, &script)?,
                Entry::Words(words) => {
                    let mut words = words.into_iter();
                    trail.exec = words.next().unwrap_or_default();
                    trail.args.splice(0..0, words);
                }
                Entry::Start(package) => {
                    let args = [vec!["start".into(), "--".into()], trail.args].concat();
                    trail.exec = "npm".into();
                    trail.args = if rest.is_empty() {
                        vec!["start".into()]
                    } else {
                        args
                    };
                    trail.directory = package;
                }
            }
        }
        let found = self.find(&trail.exec, &trail.directory)?;
        let node = finder.follow(&trail);
        let is_node = node.is_some() || trail.script.is_some();
        let trail = node.unwrap_or(trail);
        Ok(Program {
            name: name(&trail),
            is_node,
            launcher_words: trail.launcher_words,
            // What cannot be read, the kernel may still execute.
            is_linked: !is_node && marker::is_marked(&found).unwrap_or(false),
            env: trail.env,
            cwd: (trail.directory != directory).then_some(trail.directory),
            exec: trail.exec,
            args: trail.args,
        })
    }

    /// Has Node run the script, which takes the place of the first word.
    fn run_by_node(&self, trail: Trail, script: &OsStr) -> Outcome<Trail> {
        let node = self.node.unwrap_or(OsStr::new("node"));
        let path = self.find_node(node, script, &trail.directory)?;
        check_script(script, &trail.directory)?;
        if has_extension(script, &TYPED_SCRIPTS) {
            check_version(&path)?;
        }
        let mut args = vec![script.to_owned()];
        args.extend(trail.args.iter().cloned());
        Ok(Trail {
            exec: node.to_owned(),
            args,
            script: Some(script.to_owned()),
            ..trail
        })
    }

    fn directory(&self) -> Outcome<PathBuf> {
        let here = phalanx::working_directory().map_err(|error| {
            Failure::caused(Exit::Failed, "cannot find the working directory", &error)
        })?;
        let directory = self.cwd.map_or_else(|| here.clone(), |cwd| here.join(cwd));
        if directory.is_dir() {
            return Ok(directory);
        }
        let reason = format!("--cwd {}: there is no such directory", directory.display());
        Err(Failure::new(Exit::Usage, reason))
    }

    /// `PATH` of the workers.
    fn path(&self) -> Option<OsString> {
        let set = self
            .env
            .iter()
            .rev()
            .find(|variable| variable.key == "PATH");
        set.map(|variable| variable.value.clone())
            .or_else(|| env::var_os("PATH"))
    }

    fn find(&self, program: &OsStr, directory: &Path) -> Outcome<PathBuf> {
        let path = self.path();
        resolve_program(program, path.as_deref(), directory).map_err(|error| not_runnable(&error))
    }

    fn find_node(&self, node: &OsStr, script: &OsStr, directory: &Path) -> Outcome<PathBuf> {
        self.find(node, directory).map_err(|mut failure| {
            failure.reason = format!(
                "{} is to be run by Node, but: {}; name another one with --node",
                script.display(),
                failure.reason
            );
            failure
        })
    }
}

/// What the app is called: after a package that was started, else after a script, module or program; where that tells nothing,
/// after the package or directory that it belongs to.
fn name(trail: &Trail) -> Name {
    if let Some(called) = &trail.called {
        return Name::of_text(called);
    }
    let script = trail.script.as_deref();
    let after = script.unwrap_or_else(|| names::telling(&trail.exec, &trail.args));
    if !names::is_poor(after) {
        return Name::of_program(after);
    }
    let path = trail.directory.join(after);
    let place: PathBuf = path
        .parent()
        .unwrap_or(&trail.directory)
        .components()
        .collect();
    let package = Package::around(&place);
    let named = package.as_ref().and_then(Package::name).map(str::to_owned);
    let real = fs::canonicalize(&place).unwrap_or(place);
    match named.or_else(|| follow::directory_name(&real)) {
        Some(text) => Name::of_text(&text),
        None => Name::of_program(after),
    }
}

fn not_runnable(error: &SpawnError) -> Failure {
    Failure::new(exit_of(error), with_causes(error))
}

/// The exit status for a program that cannot be started.
fn exit_of(error: &SpawnError) -> Exit {
    if matches!(error, SpawnError::NotFound { .. }) {
        Exit::NotFound
    } else if matches!(error, SpawnError::NotExecutable { .. }) {
        Exit::NotExecutable
    } else {
        Exit::Failed
    }
}

fn has_extension(word: &OsStr, extensions: &[&str]) -> bool {
    let extension = Path::new(word).extension();
    extension.is_some_and(|extension| extensions.iter().any(|one| extension == *one))
}

/// Whether Node runs it, going by its name.
pub(crate) fn is_script(word: &OsStr) -> bool {
    has_extension(word, &SCRIPTS) || has_extension(word, &TYPED_SCRIPTS)
}

fn check_script(script: &OsStr, directory: &Path) -> Outcome {
    let path = directory.join(script);
    let fault = match path.metadata() {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(_) => "it is no file".to_owned(),
        Err(error) => error.to_string(),
    };
    let reason = format!("cannot run the script {}: {fault}", path.display());
    Err(Failure::new(Exit::NotFound, reason))
}

/// Refuses a Node that does not run TypeScript by itself.
fn check_version(node: &Path) -> Outcome {
    let cannot = |cause: &str| {
        let reason = format!("cannot ask {} for its version: {cause}", node.display());
        Failure::new(Exit::Failed, reason)
    };
    let output = Command::new(node).arg("--version").output();
    let output = output.map_err(|error| cannot(&error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(text.trim()).ok_or_else(|| cannot("its answer is no version"))?;
    if runs_types(version) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "{} is version {}: Node runs TypeScript since 22.18; compile the script, or name a newer Node with --node",
            node.display(),
            text.trim()
        ),
    ))
}

fn runs_types((major, minor): (u32, u32)) -> bool {
    match major {
        22 => minor >= 18,
        23 => minor >= 6,
        _ => major > 23,
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text
        .strip_prefix('v')?
        .split('.')
        .map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests;
