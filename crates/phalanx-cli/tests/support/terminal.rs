//! A terminal of 80 columns and 24 lines with the command in it: a tmux of its own, which ends with this.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use phalanx_testkit::process::Output;
use phalanx_testkit::wait::{eventually, try_eventually};
use phalanx_testkit::{LIMIT, Process, require};
use tempfile::TempDir;

use crate::support::PHALANX;

/// A command in a terminal.
pub(crate) struct Terminal {
    tmux: PathBuf,
    directory: TempDir,
    /// In the foreground, so that it ends with this.
    _server: Process,
}

impl Terminal {
    /// Runs `phalanx WORDS` on the apps of the directory. Nothing, and that is said, where tmux is missing.
    #[track_caller]
    pub(crate) fn open(runtime: &Path, variables: &[&str], words: &str) -> Option<Self> {
        let tmux = require("tmux")?;
        let directory = tempfile::Builder::new().prefix("px").tempdir_in("/tmp");
        let directory = directory.expect("a writable temp directory");
        let runtime = runtime.display();
        // The apps of the testkit lie below, those of tests in the directory itself.
        let inner = if fs::exists(format!("{runtime}/phalanx")).unwrap_or(false) {
            "/phalanx"
        } else {
            ""
        };
        let script = format!(
            "PS1= env -u PHALANX_NAME -u NO_COLOR PHALANX_RUNTIME_DIR={runtime}{inner} LC_ALL=C.UTF-8 {} {PHALANX} {words}; \
             echo \"ended with $?\"; exec cat",
            variables.join(" "),
        );
        let socket = directory.path().join("tmux");
        let mut server = Command::new(&tmux);
        server
            .arg("-u")
            .arg("-D")
            .arg("-S")
            .arg(&socket)
            .args(["-f", "/dev/null"]);
        server.env("TERM", "xterm-256color").env_remove("TMUX");
        let server = Process::start(server);
        eventually(LIMIT, "tmux listens", || UnixStream::connect(&socket).ok());
        let terminal = Self {
            tmux,
            directory,
            _server: server,
        };
        let new = ["new-session", "-d", "-x", "80", "-y", "24", &script];
        terminal.tmux(&new).expect_success();
        Some(terminal)
    }

    /// Types keys, by tmux's names.
    #[track_caller]
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "--"], keys].concat())
            .expect_success();
    }

    /// What is on the screen.
    #[track_caller]
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).expect_success().stdout
    }

    /// The same with what sets colours.
    #[track_caller]
    pub(crate) fn screen_with_escapes(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
            .expect_success()
            .stdout
    }

    /// Waits until this is on the screen, which is returned.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) -> String {
        self.wait_until(part, |screen| screen.contains(part))
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let seen = try_eventually(LIMIT, || {
            last = self.screen();
            is_there(&last).then(|| last.clone())
        });
        seen.unwrap_or_else(|| panic!("not on the screen: {what}\n{last}"))
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> Output {
        let mut command = Command::new(&self.tmux);
        command
            .arg("-u")
            .arg("-S")
            .arg(self.directory.path().join("tmux"))
            .args(words);
        command.env("TERM", "xterm-256color").env_remove("TMUX");
        Process::run(command, LIMIT)
    }
}
