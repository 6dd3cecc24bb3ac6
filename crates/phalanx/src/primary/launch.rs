//! From settings to a process: program, arguments, environment and descriptors of a worker.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::process::{FdMapping, SpawnPlan, resolve_program};
use phalanx_sys::signal::Signal;

use super::gift::Gift;
use super::kept::{KeptArgument, KeptProgram};
use super::preload;
use crate::error::{Error, Result};
use crate::settings::{Adoption, InspectPort, Settings, Stdio};

/// The descriptor number at which a worker finds its channel, as Node.js does it.
pub(super) const CHANNEL_NUMBER: i32 = 3;
const NODE_OPTIONS: &str = "NODE_OPTIONS";
const DEFAULT_INSPECT_PORT: u16 = 9229;

/// What a generation runs: settings made definite, at one moment. It stays what it is, whatever is
/// deployed afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    program: KeptProgram,
    name: OsString,
    args: Vec<KeptArgument>,
    env: BTreeMap<OsString, OsString>,
    /// Where the workers are, without links.
    directory: PathBuf,
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
    pub(crate) gift: &'a Gift,
    /// What makes Node load the script of its worker.
    pub(crate) preload: Option<OsString>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Counts the workers with an inspector.
    pub(crate) inspector: u16,
    /// The variable by which its descendants are known.
    pub(crate) mark: (&'a str, &'a str),
}

impl Release {
    /// Makes the settings definite: program and directory are looked up now, links are followed now,
    /// the environment is copied now.
    ///
    /// # Errors
    /// [`Error::Program`] when the program is missing or may not be executed.
    pub(crate) fn resolve(settings: &Settings) -> Result<Self> {
        let name = settings
            .exec
            .clone()
            .unwrap_or_else(|| own_program().into_os_string());
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
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
            Error::Program {
                program: PathBuf::from(&name),
                source,
            }
        })?;
        let args: Vec<OsString> = settings
            .args
            .clone()
            .unwrap_or_else(|| std::env::args_os().skip(1).collect());
        let args = args.iter().map(|text| KeptArgument::new(text, &directory));
        let args = args.collect();
        let mut env: BTreeMap<_, _> = std::env::vars_os().collect();
        env.extend(settings.env.iter().cloned());
        Ok(Self {
            program: KeptProgram::new(program),
            name,
            args,
            env,
            directory,
            settings: settings.clone(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
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
        let found = |argument: &KeptArgument| argument.find(&self.directory);
        args.extend(self.args.iter().map(found));
        if let Some((place, argument)) = self.inspect_argument(launch.inspector) {
            args.insert(1 + place, argument);
        }
        let mut env = self.env.clone();
        env.extend(launch.env.iter().cloned());
        let position = launch.position.to_string();
        let id = launch.worker.to_string();
        for (name, value) in [
            ("NODE_APP_INSTANCE", &position),
            ("PHALANX_POSITION", &position),
            ("PHALANX_WORKER_ID", &id),
            (launch.mark.0, &launch.mark.1.to_owned()),
        ] {
            env.insert(name.into(), value.into());
        }
        let mut fds = vec![
            stream(0, self.settings.stdin.unwrap_or(Stdio::Null), None),
            stream(1, self.settings.stdout, launch.stdout),
            stream(2, self.settings.stderr, launch.stderr),
        ];
        for name in phalanx_sys::notify::VARIABLES {
            env.remove(OsStr::new(name));
        }
        env.extend(launch.gift.env(launch.position, &self.settings));
        fds.extend(launch.gift.fds());
        if let Some(option) = &launch.preload {
            let name = OsStr::new(NODE_OPTIONS);
            // Who wants an inspector finds it as usual.
            let publish = self.inspect_port(0).is_none();
            let own = env.get(name).map(OsString::as_os_str);
            let options = preload::node_options(option, own, publish);
            env.insert(name.into(), options);
        }
        tie(launch.channel, &id, &mut env, &mut fds);
        let (program, executable) = self.program.find();
        SpawnPlan {
            program,
            args,
            env: env.into_iter().collect(),
            own_pid_env: launch.gift.own_pid_env(&self.settings),
            cwd: self.settings.cwd.is_some().then(|| self.directory.clone()),
            fds,
            uid: self.settings.uid,
            gid: self.settings.gid,
            new_process_group: true,
            die_with_parent: Some(Signal::KILL),
            executable,
            intercept: self.settings.adoption == Adoption::Intercept,
            intercept_paths: self.settings.shares_paths(),
        }
    }

    fn is_node(&self) -> bool {
        self.program.path().file_stem() == Some(OsStr::new("node"))
    }

    /// Whether its workers load the script of Node workers.
    pub(crate) fn preloads(&self) -> bool {
        let own = self.args.iter().map(KeptArgument::text);
        let own = own.take_while(|text| text.as_encoded_bytes().starts_with(b"-"));
        let variable = self.env.get(OsStr::new(NODE_OPTIONS));
        self.is_node()
            && self.settings.adoption == Adoption::Channel
            && !self.settings.no_preload
            && preload::is_loadable(own, variable.map(OsString::as_os_str))
    }

    /// Node workers that are to be inspected need a port each; the primary of Node counts them too.
    /// The argument that names it, and its place: of several, Node obeys the last.
    fn inspect_argument(&self, inspector: u16) -> Option<(usize, OsString)> {
        let (place, port) = self.inspect_port(inspector)?;
        Some((place, OsString::from(format!("--inspect-port={port}"))))
    }

    /// The port of the worker's inspector, if it is to have one.
    pub(crate) fn inspector(&self, inspector: u16) -> Option<u16> {
        self.inspect_port(inspector).map(|(_, port)| port)
    }

    fn inspect_port(&self, inspector: u16) -> Option<(usize, u16)> {
        if !self.is_node() {
            return None;
        }
        let own = self
            .args
            .iter()
            .map(|argument| argument.text().to_string_lossy());
        let own = own.take_while(|argument| argument.starts_with('-'));
        let own = own.enumerate();
        let own = own.filter_map(|(index, argument)| Some((index + 1, inspect_port(&argument)?)));
        let (place, base) = own.last().or_else(|| {
            let options = self.env.get(OsStr::new(NODE_OPTIONS))?;
            let options = options.to_string_lossy();
            let port = options
                .split_whitespace()
                .filter_map(inspect_port)
                .next_back()?;
            Some((0, port))
        })?;
        let port = match self.settings.inspect_port {
            InspectPort::Fixed(port) => port,
            InspectPort::Counting => base.checked_add(inspector).unwrap_or(1024 + inspector),
        };
        Some((place, port))
    }
}

/// Gives the worker its channel, if it has one.
fn tie(
    channel: Option<OwnedFd>,
    id: &str,
    env: &mut BTreeMap<OsString, OsString>,
    fds: &mut Vec<FdMapping>,
) {
    for (name, value) in [
        ("NODE_CHANNEL_FD", CHANNEL_NUMBER.to_string().as_str()),
        ("NODE_CHANNEL_SERIALIZATION_MODE", "json"),
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

/// The port that an `--inspect…` argument names or implies.
fn inspect_port(argument: &str) -> Option<u16> {
    let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
    matches!(
        name,
        "--inspect" | "--inspect-brk" | "--inspect-port" | "--debug-port"
    )
    .then(|| {
        let port = value.rsplit(':').next().unwrap_or(value);
        port.parse().unwrap_or(DEFAULT_INSPECT_PORT)
    })
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
}

#[cfg(test)]
mod tests {
    use super::inspect_port;

    #[test]
    fn inspector_arguments_are_recognised_with_their_port() {
        assert_eq!(inspect_port("--inspect"), Some(9229));
        assert_eq!(inspect_port("--inspect=127.0.0.1:9300"), Some(9300));
        assert_eq!(inspect_port("--inspect-brk=9400"), Some(9400));
        assert_eq!(inspect_port("--inspector"), None);
        assert_eq!(inspect_port("server.js"), None);
    }
}
