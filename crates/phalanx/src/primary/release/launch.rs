//! From settings to a process: program, arguments, environment and descriptors of a worker.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::wire::splice::Serialization;
use phalanx_sys::process::{FdMapping, SpawnPlan, resolve_program};
use phalanx_sys::signal::Signal;

use crate::error::{Result, StartError, StartFailure};
use crate::primary::release::directory::working_directory;
use crate::primary::release::inherited_fds::InheritedFds;
use crate::primary::release::node_line::{self, NodeRelease, PreloadBy};
use crate::primary::release::pinned_release::{PinnedArgument, PinnedProgram};
use crate::primary::release::preload;
use crate::settings::{Adoption, Settings, Stdio};

/// The descriptor number at which a worker finds its channel, as Node.js does it.
pub(in crate::primary) const CHANNEL_NUMBER: i32 = 3;
const NODE_OPTIONS: &str = "NODE_OPTIONS";

/// What a generation runs: settings made definite, at one moment. It stays what it is, whatever is
/// deployed afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    program: PinnedProgram,
    name: OsString,
    args: Vec<PinnedArgument>,
    env: BTreeMap<OsString, OsString>,
    /// Where the workers are, without links.
    directory: PathBuf,
    /// If it runs Node.
    node: Option<NodeRelease>,
    settings: Settings,
}

/// What differs from worker to worker.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) position: Position,
    pub(crate) env: &'a [(OsString, OsString)],
    /// The worker's end of its channel, if it has one.
    pub(crate) channel: Option<OwnedFd>,
    pub(crate) inherited: &'a InheritedFds,
    /// The script that Node is to load before that of its worker.
    pub(crate) preload: Option<PathBuf>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Counts the workers with an inspector.
    pub(crate) inspector: u16,
    /// The variable by which its descendants are known.
    pub(crate) mark: (&'a str, &'a str),
    /// The directory of the control group that it begins in.
    pub(crate) cgroup: Option<OwnedFd>,
}

impl Release {
    /// Makes the settings definite: program and directory are looked up now, links are followed now,
    /// the environment is copied now.
    ///
    /// # Errors
    /// [`StartError::Program`] when the program is missing or may not be executed.
    pub(crate) fn resolve(settings: &Settings) -> Result<Self, StartError> {
        let name = settings
            .exec
            .clone()
            .unwrap_or_else(|| own_program().into_os_string());
        let here = working_directory().unwrap_or_else(|_| PathBuf::from("/"));
        let directory = settings
            .cwd
            .as_ref()
            .map_or_else(|| here.clone(), |cwd| here.join(cwd));
        let directory = std::fs::canonicalize(&directory).unwrap_or(directory);
        let path = settings
            .env
            .iter()
            .rev()
            .find(|(key, _)| key == "PATH")
            .map(|(_, value)| value.clone())
            .or_else(|| std::env::var_os("PATH"));
        let program = resolve_program(&name, path.as_deref(), &directory).map_err(|source| {
            StartError::Program {
                program: PathBuf::from(&name),
                source: StartFailure::of(source),
            }
        })?;
        let args: Vec<OsString> = settings
            .args
            .clone()
            .unwrap_or_else(|| std::env::args_os().skip(1).collect());
        let mut env: BTreeMap<_, _> = std::env::vars_os().collect();
        env.extend(settings.env.iter().cloned());
        let variable = env.get(OsStr::new(NODE_OPTIONS)).map(OsString::as_os_str);
        let runs_node = settings.launcher_words > 0 || node_line::is_node(&program);
        let words = args.get(settings.launcher_words..).unwrap_or_default();
        let node = runs_node.then(|| NodeRelease::of(words, variable, &directory));
        let pinned = args
            .iter()
            .map(|text| PinnedArgument::new(text, &directory));
        Ok(Self {
            program: PinnedProgram::new(program),
            name,
            args: pinned.collect(),
            env,
            directory,
            node,
            settings: settings.clone(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A variable as every worker has it.
    pub(crate) fn variable(&self, name: &OsStr) -> Option<&OsStr> {
        self.env.get(name).map(OsString::as_os_str)
    }

    /// Whether workers are Node.
    pub(crate) fn runs_node(&self) -> bool {
        self.node.is_some()
    }

    /// True when the primary reads this worker's output.
    pub(crate) fn pipes(&self) -> (bool, bool) {
        (
            self.settings.stdout == Stdio::Piped,
            self.settings.stderr == Stdio::Piped,
        )
    }

    /// Everything that `fork` and `exec` need, prepared before them.
    pub(crate) fn plan(&self, launch: Launch<'_>) -> SpawnPlan {
        let mut args = vec![self.name.clone()];
        let found = |argument: &PinnedArgument| argument.find(&self.directory);
        args.extend(self.args.iter().map(found));
        // The first of Node's own words.
        let first = (1 + self.settings.launcher_words).min(args.len());
        if let Some((behind, word)) = self.inspect_word(launch.inspector) {
            args.insert((first + behind).min(args.len()), word);
        }
        let mut env = self.env.clone();
        env.extend(launch.env.iter().cloned());
        let id = launch.worker.to_string();
        for (name, value) in [
            ("PHALANX_WORKER_ID", &id),
            (launch.mark.0, &launch.mark.1.to_owned()),
        ] {
            env.insert(name.into(), value.into());
        }
        for (name, value) in position_variables(launch.position) {
            match value {
                Some(value) => drop(env.insert(name.into(), value)),
                None => drop(env.remove(OsStr::new(name))),
            }
        }
        let mut fds = vec![
            stream(0, self.settings.stdin.unwrap_or(Stdio::Null), None),
            stream(1, self.settings.stdout, launch.stdout),
            stream(2, self.settings.stderr, launch.stderr),
        ];
        for name in phalanx_sys::notify::VARIABLES {
            env.remove(OsStr::new(name));
        }
        env.extend(launch.inherited.env(launch.position, &self.settings));
        fds.extend(launch.inherited.fds());
        if let Some(script) = &launch.preload {
            self.load(script, first, &mut args, &mut env);
        }
        tie(
            launch.channel,
            (&id, self.settings.serialization),
            &mut env,
            &mut fds,
        );
        let (program, executable) = self.program.find();
        SpawnPlan {
            program,
            args,
            env: env.into_iter().collect(),
            own_pid_env: launch.inherited.own_pid_env(&self.settings),
            cwd: self.moves().then(|| self.directory.clone()),
            fds,
            uid: self.settings.uid,
            gid: self.settings.gid,
            new_process_group: true,
            die_with_parent: Some(Signal::KILL),
            executable,
            cgroup: launch.cgroup.map(Arc::new),
            intercept: self.settings.adoption == Adoption::Intercept,
            intercept_paths: self.settings.shares_paths(),
        }
    }

    /// Whether a worker has to go to its directory: where the primary stands may have had that name once.
    fn moves(&self) -> bool {
        let here = std::env::current_dir();
        self.settings.cwd.is_some() || here.map_or(true, |here| here != self.directory)
    }

    /// Has Node load this script before its own. The script takes away again exactly what is added here.
    fn load(
        &self,
        script: &Path,
        first: usize,
        args: &mut Vec<OsString>,
        env: &mut BTreeMap<OsString, OsString>,
    ) {
        let name = OsStr::new(NODE_OPTIONS);
        let own = env.get(name).map(OsString::as_os_str);
        match self.node.and_then(|node| node.preload) {
            Some(PreloadBy::Words) if own.is_none() => {
                args.splice(first..first, ["--require".into(), script.into()]);
            }
            Some(PreloadBy::Words | PreloadBy::Variable) => {
                // Who wants an inspector finds it as usual.
                let publish = self.inspector(0).is_none();
                let options = preload::node_options(&preload::option(script), own, publish);
                env.insert(name.into(), options);
            }
            None => {}
        }
    }

    /// Whether its workers load the script of Node workers.
    pub(crate) fn preloads(&self) -> bool {
        self.node.is_some_and(|node| node.preload.is_some())
            && self.settings.adoption == Adoption::Channel
            && !self.settings.no_preload
    }

    /// Node workers that are to be inspected need a port each: the word that names it, and its place among Node's.
    fn inspect_word(&self, inspector: u16) -> Option<(usize, OsString)> {
        self.node?
            .inspect_word(self.settings.inspect_port, inspector)
    }

    /// The port of the worker's inspector, if it is to have one; 0 for any.
    pub(crate) fn inspector(&self, inspector: u16) -> Option<u16> {
        self.node?.port(self.settings.inspect_port, inspector)
    }
}

/// Gives the worker its channel, if it has one.
fn tie(
    channel: Option<OwnedFd>,
    (id, serialization): (&str, Serialization),
    env: &mut BTreeMap<OsString, OsString>,
    fds: &mut Vec<FdMapping>,
) {
    for (name, value) in [
        ("NODE_CHANNEL_FD", CHANNEL_NUMBER.to_string().as_str()),
        ("NODE_CHANNEL_SERIALIZATION_MODE", serialization.as_str()),
        ("NODE_UNIQUE_ID", id),
    ] {
        // A channel that the primary itself was started with is none of a worker's business.
        if channel.is_some() {
            env.insert(name.into(), value.into());
        } else {
            env.remove(OsStr::new(name));
        }
    }
    fds.extend(channel.map(|channel| FdMapping::owned(channel, CHANNEL_NUMBER)));
}

fn stream(number: i32, stdio: Stdio, pipe: Option<OwnedFd>) -> FdMapping {
    match (stdio, pipe) {
        (Stdio::Inherit, _) => FdMapping::inherit(number, number),
        (Stdio::Piped, Some(pipe)) => FdMapping::owned(pipe, number),
        (Stdio::Null, _) | (Stdio::Piped, None) => FdMapping::null(number),
    }
}

/// The path under which this process was started, made absolute when first asked for. Not resolved
/// through links: what a deploy puts in its place is what the next worker runs.
fn own_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let invoked = std::env::args_os().next().map(PathBuf::from);
            let named = invoked.filter(|path| path.components().count() > 1 || path.is_absolute());
            match (named, std::env::current_dir()) {
                (Some(path), Ok(here)) => here.join(path),
                (_, _) => {
                    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
                }
            }
        })
        .clone()
}

/// Remembers the program's path while the working directory is still the one it was started in.
pub(crate) fn remember_own_program() {
    let _path: PathBuf = own_program();
    drop(working_directory());
}

/// What a worker finds in its environment of its position. A spare has none yet.
fn position_variables(position: Position) -> [(&'static str, Option<OsString>); 3] {
    let number = (!position.is_spare()).then(|| OsString::from(position.to_string()));
    let is_spare = position.is_spare().then(|| OsString::from("1"));
    [
        ("NODE_APP_INSTANCE", number.clone()),
        ("PHALANX_POSITION", number),
        ("PHALANX_SPARE", is_spare),
    ]
}
