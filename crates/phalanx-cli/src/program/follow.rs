//! Follows a command to what is executed in the end, to see whether that is Node: through links, first lines, `env`, a shell that only
//! executes, and the launchers of packages. Nothing is executed for it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use phalanx_core::program::launcher::{self, Launch};
use phalanx_core::program::node::is_node_name;
use phalanx_core::program::node_options::NodeLine;
use phalanx_core::program::words;
use phalanx_sys::process::resolve_program;

use super::package::{Package, path_with_executables};
use crate::values::Variable;

/// Whoever leads further than this leads round in a circle.
const MOST_STEPS: usize = 12;
/// As much as the kernel reads of a first line.
const HEADER_BYTES: u64 = 256;

/// A command, and what is to be set for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    pub(super) exec: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<Variable>,
    /// Without links resolved. Absolute.
    pub(super) directory: PathBuf,
    /// How many words are a launcher's that executes the rest.
    pub(super) launcher_words: usize,
    /// What Node was asked to run by the first word alone.
    pub(super) script: Option<OsString>,
    /// What the app is called after, if the words on the way told it.
    pub(super) called: Option<String>,
}

impl Trail {
    fn with(&self, exec: impl Into<OsString>, args: Vec<OsString>) -> Self {
        Self {
            exec: exec.into(),
            args,
            ..self.clone()
        }
    }

    fn variables(mut self, variables: Vec<(OsString, OsString)>) -> Self {
        let variables = variables.into_iter();
        self.env
            .extend(variables.map(|(key, value)| Variable { key, value }));
        self
    }

    /// The last value that a variable has got on the way.
    fn variable(&self, key: &str) -> Option<&OsStr> {
        let set = self.env.iter().rev().find(|one| one.key == key);
        set.map(|one| one.value.as_os_str())
    }
}

/// What is known of the surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finder<'a> {
    /// `PATH` for the workers.
    pub(super) path: Option<&'a OsStr>,
    /// The Node that was chosen for scripts.
    pub(super) node: Option<&'a OsStr>,
}

impl Finder<'_> {
    /// The command that executes Node and comes to the same. None if what is executed in the end is not Node, or cannot be told.
    pub(super) fn follow(&self, trail: &Trail) -> Option<Trail> {
        self.follow_for(trail, MOST_STEPS)
    }

    pub(super) fn find(&self, trail: &Trail) -> Option<PathBuf> {
        let path = trail.variable("PATH").or(self.path);
        resolve_program(&trail.exec, path, &trail.directory).ok()
    }

    fn follow_for(&self, trail: &Trail, steps: usize) -> Option<Trail> {
        let steps = steps.checked_sub(1)?;
        let path = self.find(trail)?;
        let name = path.file_name()?;
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let real_name = real.file_name().unwrap_or(name);
        if is_node_name(name) || is_node_name(real_name) {
            return self.of_node(trail, steps);
        }
        let launch = launcher::of(name, &trail.args);
        if let Some(launch) = launch.or_else(|| launcher::of(real_name, &trail.args)) {
            return self.of_launch(trail, launch, steps);
        }
        let next = match name.to_str()? {
            "env" => words::of_env(&trail.args)?,
            "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" => match trail.args.as_slice() {
                [option, line] if option == "-c" => words::of_shell(line.to_str()?)?,
                _ => return None,
            },
            _ => return self.of_script(trail, &path, steps),
        };
        let next = trail.of_command(next)?;
        self.follow_for(&next, steps)
    }

    /// Node itself: it may run a package's script, or one that starts another Node.
    fn of_node(&self, trail: &Trail, steps: usize) -> Option<Trail> {
        let line = NodeLine::parse(&trail.args);
        let run = line.options.iter().find(|option| option.name == "--run");
        if let Some(run) = run {
            let rest = trail.args.get(run.last + 1..).unwrap_or_default();
            let args = rest.iter().skip_while(|word| *word == "--");
            return self.of_package(trail, run.value?, args.cloned().collect(), false, steps);
        }
        if let Some(at) = line.script {
            let script = trail.directory.join(&trail.args[at]);
            let script = fs::canonicalize(&script).unwrap_or(script);
            let args = &trail.args[at + 1..];
            if let Some(launch) = script.file_name().and_then(|name| launcher::of(name, args)) {
                return self.of_launch(trail, launch, steps);
            }
        }
        Some(trail.clone())
    }

    fn of_launch(&self, trail: &Trail, launch: Launch, steps: usize) -> Option<Trail> {
        match launch {
            Launch::Script {
                name,
                args,
                or_executable,
            } => {
                // Yarn can do without `node_modules`, and then needs its own loader.
                let is_plug_and_play = trail
                    .directory
                    .ancestors()
                    .any(|place| place.join(".pnp.cjs").exists());
                if is_plug_and_play {
                    return None;
                }
                let scripted = self.of_package(trail, &name, args.clone(), true, steps);
                scripted.or_else(|| {
                    let is_scripted = Package::around(&trail.directory)
                        .is_some_and(|package| package.script(&name.to_string_lossy()).is_some());
                    let executable = Launch::Executable { name, args };
                    (or_executable && !is_scripted)
                        .then(|| self.of_launch(trail, executable, steps))
                        .flatten()
                })
            }
            Launch::Executable { name, args } => {
                let path =
                    path_with_executables(&trail.directory, trail.variable("PATH").or(self.path));
                let place = trail
                    .directory
                    .ancestors()
                    .map(|place| place.join("node_modules/.bin").join(&name))
                    .find(|place| place.is_file())?;
                let mut next = trail.with(place, args);
                next.env.push(Variable {
                    key: "PATH".into(),
                    value: path,
                });
                self.follow_for(&next, steps)
            }
            Launch::Node { words } => Some(Trail {
                launcher_words: trail.launcher_words + words,
                ..trail.clone()
            }),
            Launch::Command(command) => self.follow_for(&trail.of_command(command)?, steps),
            Launch::Unknown | _ => None,
        }
    }

    /// A script of the package around, as npm runs it: in the package's directory, with its executables in `PATH`.
    fn of_package(
        &self,
        trail: &Trail,
        name: &OsStr,
        args: Vec<OsString>,
        with_pre: bool,
        steps: usize,
    ) -> Option<Trail> {
        let package = Package::around(&trail.directory)?;
        let name = name.to_str()?;
        let line = package.script(name)?;
        let before = with_pre
            .then(|| package.script(&format!("pre{name}")))
            .flatten();
        let path = trail.variable("PATH").or(self.path);
        let mut next = trail.with("", Vec::new());
        next.env.extend(package.variables(name, &line, path));
        next.directory.clone_from(&package.directory);
        let called = package.name().map(str::to_owned);
        next.called = called.or_else(|| directory_name(&package.directory));
        let (first, last) = words::last_command(&line);
        let mut command = words::of_shell(last)?;
        command.words.extend(args);
        let before: Vec<&str> = before.as_deref().into_iter().chain(first).collect();
        if before.is_empty() {
            return self.follow_for(&next.of_command(command)?, steps);
        }
        let found = self.follow_for(&next.of_command(command)?, steps)?;
        Some(behind(&before, &next, found))
    }

    /// A file whose first line names an interpreter.
    fn of_script(&self, trail: &Trail, path: &Path, steps: usize) -> Option<Trail> {
        let (interpreter, argument) = words::interpreter(&header(path)?)?;
        let mut args: Vec<OsString> = argument.into_iter().collect();
        args.push(if trail.exec.as_encoded_bytes().contains(&b'/') {
            trail.exec.clone()
        } else {
            path.into()
        });
        args.extend(trail.args.iter().cloned());
        let mut found = self.follow_for(&trail.with(interpreter, args), steps)?;
        if let Some(node) = self.node.filter(|_| found.exec == "node") {
            found.exec = node.to_owned();
        }
        Some(found)
    }
}

impl Trail {
    fn of_command(&self, command: words::Command) -> Option<Self> {
        let (exec, args) = command.words.split_first()?;
        let next = self.with(exec.clone(), args.to_vec());
        Some(next.variables(command.variables))
    }
}

/// A shell that runs something before Node, which knows nothing of the worker's channel: a Node among it would take it for its own.
fn behind(before: &[&str], surroundings: &Trail, found: Trail) -> Trail {
    let kept = [
        "NODE_CHANNEL_FD",
        "NODE_CHANNEL_SERIALIZATION_MODE",
        "NODE_UNIQUE_ID",
    ];
    let keep = kept.map(|name| format!("phalanx_{name}=${name}; unset {name}"));
    let give =
        kept.map(|name| format!("[ -z \"$phalanx_{name}\" ] || export {name}=\"$phalanx_{name}\""));
    let before = before.iter().map(|line| format!("{line} || exit"));
    let lines: Vec<String> = keep.into_iter().chain(before).chain(give).collect();
    let script = format!("{}\nexec \"$@\"", lines.join("\n"));
    let mut args: Vec<OsString> = vec!["-c".into(), script.into(), "sh".into()];
    let own: Vec<&Variable> = found.env.iter().skip(surroundings.env.len()).collect();
    if !own.is_empty() {
        args.push("env".into());
        args.extend(own.iter().map(|variable| {
            let mut word = variable.key.clone();
            word.push("=");
            word.push(&variable.value);
            word
        }));
    }
    let launcher_words = 1 + args.len() + found.launcher_words;
    args.push(found.exec);
    args.extend(found.args);
    Trail {
        exec: "sh".into(),
        args,
        launcher_words,
        ..surroundings.clone()
    }
}

/// The beginning of a file.
pub(super) fn header(path: &Path) -> Option<Vec<u8>> {
    let mut header = Vec::new();
    let file = File::open(path).ok()?;
    file.take(HEADER_BYTES).read_to_end(&mut header).ok()?;
    Some(header)
}

/// The last part of a directory's path.
pub(super) fn directory_name(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_string_lossy().into_owned();
    Some(name)
}
