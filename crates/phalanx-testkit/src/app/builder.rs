//! What an app is started with.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::App;
use crate::control::Control;
use crate::fixtures;
use crate::node::NodeBinary;
use crate::process::{Output, Process};
use crate::wait::{Deadline, LIMIT};

/// Longest temp directory from which a socket's path still fits.
const LONGEST_TEMP_DIR: usize = 40;

/// What to start: see [`App::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct AppBuilder {
    binary: PathBuf,
    pub(super) name: String,
    options: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    removed: Vec<OsString>,
    cwd: Option<PathBuf>,
    command: Vec<OsString>,
    with_stdin: bool,
    uid: Option<u32>,
    is_contained: bool,
}

impl AppBuilder {
    pub(super) fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            name: "app".to_owned(),
            options: Vec::new(),
            environment: Vec::new(),
            removed: Vec::new(),
            cwd: None,
            command: Vec::new(),
            with_stdin: false,
            uid: None,
            is_contained: false,
        }
    }

    /// The app's name; `app` unless told otherwise.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// `--workers N`.
    pub fn workers(self, count: usize) -> Self {
        self.option("--workers").option(count.to_string())
    }

    /// One more argument of `phalanx run`, before the command.
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().to_owned());
        self
    }

    /// More arguments of `phalanx run`, before the command.
    pub fn options(mut self, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.options
            .extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// An environment variable of the primary. What the test itself inherited reaches the app too,
    /// save for variables that steer phalanx or Node's cluster.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Takes a variable out of the inherited environment.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.removed.push(key.as_ref().to_owned());
        self
    }

    /// The primary's working directory; the test's own unless told otherwise.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// The command to cluster, after `--`.
    pub fn command(mut self, command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command = command
            .into_iter()
            .map(|part| part.as_ref().to_owned())
            .collect();
        self
    }

    /// One more argument of the command.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments of the command.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let arguments = arguments.into_iter();
        self.command
            .extend(arguments.map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// A script of `fixtures/` as the command, run by the `node` on `PATH`: `phalanx run SCRIPT`.
    #[track_caller]
    pub fn script(self, fixture: &str) -> Self {
        self.command([fixtures::fixture(fixture)])
    }

    /// A script of `fixtures/` under a certain Node: `phalanx run -- NODE SCRIPT`.
    #[track_caller]
    pub fn node(self, node: &NodeBinary, fixture: &str) -> Self {
        self.command([node.path.clone(), fixtures::fixture(fixture)])
    }

    /// A pipe as standard input, for `--control stdin`.
    pub fn with_stdin(mut self) -> Self {
        self.with_stdin = true;
        self
    }

    /// Runs the primary as this user, who also owns the app's directory. Needs root.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Runs the primary as a container with default settings would: with few capabilities, and with a seccomp
    /// filter that forbids `pidfd_getfd(2)` and bpf(2). Needs Python and root. Verbs run outside.
    pub fn contained(mut self) -> Self {
        self.is_contained = true;
        self
    }

    /// Starts the primary and returns at once.
    #[track_caller]
    pub fn start(self) -> App {
        let directory = runtime_directory();
        if let Some(uid) = self.uid {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(uid))
                .expect("root may give its directory away");
        }
        let mut command = if self.is_contained {
            let mut command = self.command_for("python3".as_ref(), directory.path());
            command.arg(fixtures::fixture("contained.py"));
            command.arg(&self.binary);
            command
        } else {
            self.binary_command(directory.path())
        };
        command
            .arg("run")
            .args(["--name", &self.name])
            .args(&self.options);
        command.arg("--").args(&self.command);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let start = if self.with_stdin {
            Process::start_with_stdin
        } else {
            Process::start
        };
        let process = start(command);
        let socket = directory
            .path()
            .join("phalanx")
            .join(format!("{}.sock", self.name));
        App {
            process,
            control: Control::new(socket),
            builder: self,
            directory,
        }
    }

    /// Starts the primary and waits until all its workers are ready.
    #[track_caller]
    pub fn start_ready(self) -> App {
        let mut app = self.start();
        app.wait_ready(LIMIT);
        app
    }

    /// Starts the primary and waits for its end: for what must be refused.
    #[track_caller]
    pub fn run_to_end(self, deadline: impl Into<Deadline>) -> Output {
        let App {
            process,
            directory: _directory,
            ..
        } = self.start();
        process.finish(deadline)
    }

    /// The binary with the app's environment and user; a verb needs no more to find the app.
    pub(super) fn binary_command(&self, directory: &Path) -> Command {
        self.command_for(&self.binary, directory)
    }

    fn command_for(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        for (key, _) in env::vars_os().filter(|(key, _)| steers_an_app(key)) {
            command.env_remove(key);
        }
        for key in &self.removed {
            command.env_remove(key);
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.env("XDG_RUNTIME_DIR", directory);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }
}

/// Whether an inherited variable would change what an app does: a test starts from defaults.
fn steers_an_app(key: &OsStr) -> bool {
    let steering = [
        "PORT",
        "NODE_CLUSTER_SCHED_POLICY",
        "NODE_OPTIONS",
        "NODE_APP_INSTANCE",
    ];
    steering.iter().any(|one| key == *one) || key.as_encoded_bytes().starts_with(b"PHALANX_")
}

/// A fresh directory whose path leaves room for a socket's name.
fn runtime_directory() -> TempDir {
    let directory = env::temp_dir();
    let is_short = directory.as_os_str().len() <= LONGEST_TEMP_DIR;
    let parent = if is_short {
        directory
    } else {
        PathBuf::from("/tmp")
    };
    tempfile::Builder::new()
        .prefix("px")
        .tempdir_in(parent)
        .expect("a writable temp directory")
}
