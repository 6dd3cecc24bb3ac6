//! What the workers run: from the words of the command line to a program, its arguments and a name.
//!
//! A word that ends like a script is run by Node. Whatever can be known to fail is refused here, before
//! anything is started: a program or script that is not there, a Node too old for the script.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use phalanx_sys::marker;
use phalanx_sys::process::{SpawnError, resolve_program};

use crate::report::{Failure, Outcome, with_causes};
use crate::values::Variable;
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
    /// It links the library, and so speaks the channel.
    pub(crate) is_linked: bool,
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
        let directory = self.directory()?;
        if !is_script(first) {
            let path = self.find(first, &directory)?;
            let named_after = interpreted_script(first, rest).unwrap_or(first);
            return Ok(Program {
                exec: first.clone(),
                args: rest.to_vec(),
                name: Name::of_program(named_after),
                is_node: is_node(first),
                // What cannot be read, the kernel may still execute.
                is_linked: marker::is_marked(&path).unwrap_or(false),
            });
        }
        let node = self.node.unwrap_or(OsStr::new("node"));
        let path = self.find_node(node, first, &directory)?;
        check_script(first, &directory)?;
        if has_extension(first, &TYPED_SCRIPTS) {
            check_version(&path)?;
        }
        Ok(Program {
            exec: node.to_owned(),
            args: self.command.to_vec(),
            name: Name::of_program(first),
            is_node: true,
            is_linked: false,
        })
    }

    fn directory(&self) -> Outcome<PathBuf> {
        let here = env::current_dir().map_err(|error| {
            Failure::caused(Exit::Failed, "cannot find the working directory", &error)
        })?;
        let directory = self.cwd.map_or_else(|| here.clone(), |cwd| here.join(cwd));
        if directory.is_dir() {
            return Ok(directory);
        }
        let reason = format!("--cwd {}: there is no such directory", directory.display());
        Err(Failure::new(Exit::Usage, reason))
    }

    fn find(&self, program: &OsStr, directory: &Path) -> Outcome<PathBuf> {
        let set = self
            .env
            .iter()
            .rev()
            .find(|variable| variable.key == "PATH");
        let path = set
            .map(|variable| variable.value.clone())
            .or_else(|| env::var_os("PATH"));
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

fn not_runnable(error: &SpawnError) -> Failure {
    Failure::new(exit_of(error), with_causes(error))
}

/// The exit status for a program that cannot be started.
pub(crate) fn exit_of(error: &SpawnError) -> Exit {
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

fn is_node(program: &OsStr) -> bool {
    Path::new(program).file_stem() == Some(OsStr::new("node"))
}

/// The script in `node --some-option server.js`.
fn interpreted_script<'a>(program: &OsStr, args: &'a [OsString]) -> Option<&'a OsStr> {
    let script = args.iter().find(|word| is_script(word));
    script.filter(|_| is_node(program)).map(OsString::as_os_str)
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
mod tests {
    use std::fs;

    use super::*;

    fn resolve(command: &[&str], cwd: &Path) -> Outcome<Program> {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        Words {
            command: &command,
            node: Some(OsStr::new("sh")),
            cwd: Some(cwd),
            env: &[],
        }
        .resolve()
    }

    fn directory_with(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(directory.path().join(file), "").unwrap();
        }
        directory
    }

    #[test]
    fn scripts_are_run_by_node_and_programs_by_themselves() {
        let directory = directory_with(&["server.js", "app.mjs"]);
        let program = resolve(&["server.js", "--port", "1"], directory.path()).unwrap();
        assert_eq!(program.exec, "sh");
        assert_eq!(program.args, ["server.js", "--port", "1"]);
        assert_eq!(program.name.as_str(), "server");
        let program = resolve(&["cat", "-n"], directory.path()).unwrap();
        assert_eq!(
            (program.exec, program.args),
            ("cat".into(), vec!["-n".into()])
        );
    }

    #[test]
    fn an_app_that_names_node_itself_is_called_after_the_script() {
        let args = ["--inspect".into(), "lib/web.cjs".into()];
        let named = interpreted_script(OsStr::new("/usr/bin/node"), &args);
        assert_eq!(named, Some(OsStr::new("lib/web.cjs")));
        assert_eq!(interpreted_script(OsStr::new("python3"), &args), None);
    }

    #[test]
    fn what_is_not_there_is_refused_with_its_place() {
        let directory = directory_with(&["plain"]);
        for (command, exit) in [
            ("missing.js", Exit::NotFound),
            ("no-such-program-anywhere", Exit::NotFound),
            ("./missing", Exit::NotFound),
            ("./plain", Exit::NotExecutable),
        ] {
            let failure = resolve(&[command], directory.path()).unwrap_err();
            assert_eq!(failure.exit, exit, "{failure}");
            assert!(
                failure.reason.contains(command.trim_start_matches("./")),
                "{failure}"
            );
        }
        let failure = resolve(&["cat"], &directory.path().join("nowhere")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{failure}");
    }

    #[test]
    fn typescript_needs_a_node_that_strips_types() {
        assert_eq!(parse_version("v22.18.0"), Some((22, 18)));
        assert_eq!(parse_version("Python 3"), None);
        for (version, runs) in [
            ((20, 99), false),
            ((22, 17), false),
            ((22, 18), true),
            ((23, 5), false),
            ((24, 0), true),
        ] {
            assert_eq!(runs_types(version), runs, "{version:?}");
        }
    }
}
