//! A program under test: captured output, exit by pidfd, cleanup of everything it started.
//!
//! Each [`Process`] puts a mark of its own into the environment of what it starts. Descendants
//! inherit it, whatever process group, session or parent they end up with, so that
//! [`Process::family`] finds orphans too and dropping the value ends all of them.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use crate::lines::{Lines, Stream};
use crate::procs;
use crate::wait::{self, Deadline};

/// The environment variable that marks a family of processes.
const MARK: &str = "PHALANX_TESTKIT_MARK";
/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_mins(1);

static STARTED: AtomicU64 = AtomicU64::new(0);

/// What a program that has ended left behind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Output {
    /// Panics with the output unless the program exited with 0.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        let Self {
            status,
            stdout,
            stderr,
        } = &self;
        assert!(
            status.success(),
            "{status}\nstdout:\n{stdout}\nstderr:\n{stderr}"
        );
        self
    }
}

/// A running program whose output is captured. Dropping it kills it and all its descendants.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    lines: Lines,
    mark: String,
    shown_command: String,
}

impl Process {
    /// Starts `command` in a process group of its own, with both outputs captured and an empty
    /// standard input.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start_with(command)
    }

    /// As [`Process::start`], with a pipe as standard input: see [`Process::write_line`].
    #[track_caller]
    pub fn start_with_stdin(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        Self::start_with(command)
    }

    /// Runs `command` to its end; panics with its output at the deadline.
    #[track_caller]
    pub fn run(command: Command, deadline: impl Into<Deadline>) -> Output {
        Self::start(command).finish(deadline)
    }

    /// As [`Process::start`], with the standard input that the command names.
    #[track_caller]
    pub fn start_with(mut command: Command) -> Self {
        let mark = format!(
            "{}-{}",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        );
        let shown_command = format!("{command:?}");
        command
            .env(MARK, &mark)
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {shown_command}: {error}"),
        };
        let lines = Lines::default();
        lines.capture(
            Stream::Stdout,
            child.stdout.take().expect("stdout is piped"),
        );
        lines.capture(
            Stream::Stderr,
            child.stderr.take().expect("stderr is piped"),
        );
        let pidfd = procs::open(child.id()).expect("a child not yet waited for has a pidfd");
        Self {
            child,
            pidfd,
            lines,
            mark,
            shown_command,
        }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its output so far.
    #[must_use]
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Waits for a line, old or new, that contains `part`.
    #[track_caller]
    pub fn wait_for_line(&self, part: &str, deadline: impl Into<Deadline>) -> String {
        self.lines.wait_for(part, deadline)
    }

    /// Sends it a signal. One that has already ended receives nothing.
    pub fn signal(&self, signal: Signal) {
        // The pidfd refers to our child, so the only failure is that it is gone.
        pidfd_send_signal(&self.pidfd, signal).ok();
    }

    /// Writes a line to its standard input.
    #[track_caller]
    pub fn write_line(&mut self, line: &str) {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .expect("started with a pipe as standard input");
        writeln!(stdin, "{line}").expect("the program reads its standard input");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// How it ended, if it has.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for our own child")
    }

    /// Waits for its end; panics with its output at the deadline.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: impl Into<Deadline>) -> ExitStatus {
        let (command, lines) = (&self.shown_command, &self.lines);
        let has_ended = wait::readable(self.pidfd.as_fd(), deadline);
        assert!(
            has_ended,
            "still running: {command}; output:\n{}",
            lines.shown()
        );
        self.child.wait().expect("waiting for our own child")
    }

    /// Waits for its end and for the end of its output; panics at the deadline.
    #[track_caller]
    pub fn finish(mut self, deadline: impl Into<Deadline>) -> Output {
        let deadline = deadline.into();
        let status = self.wait_exit(deadline);
        self.lines.wait_end(deadline);
        Output {
            status,
            stdout: self.lines.text(Stream::Stdout),
            stderr: self.lines.text(Stream::Stderr),
        }
    }

    /// The pids of the living processes that descend from this one, itself included, even when
    /// their parents are gone.
    #[must_use]
    pub fn family(&self) -> Vec<u32> {
        procs::all_pids()
            .filter(|&pid| self.is_family(pid))
            .collect()
    }

    /// Waits until nothing of its family lives any more; panics with the survivors.
    #[track_caller]
    pub fn wait_family_gone(&self, deadline: impl Into<Deadline>) {
        let mut survivors = Vec::new();
        let gone = wait::try_eventually(deadline, || {
            survivors = self.family();
            survivors.is_empty().then_some(())
        });
        assert!(
            gone.is_some(),
            "still alive: {survivors:?}; output:\n{}",
            self.lines.shown()
        );
    }

    fn is_family(&self, pid: u32) -> bool {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
            return false;
        };
        let entry = format!("{MARK}={}", self.mark);
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == entry.as_bytes())
            && procs::is_alive(pid)
    }

    /// Kills every member of the family. The mark is read again after the pidfd is open, so a pid
    /// that was used anew in between is left alone.
    fn kill_family(&self) {
        for pid in self.family() {
            let Some(pidfd) = procs::open(pid) else {
                continue;
            };
            if self.is_family(pid) {
                pidfd_send_signal(&pidfd, Signal::KILL).ok();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Repeated because a process may start another while the list is read.
        let gone = wait::try_eventually(KILL_LIMIT, || {
            self.kill_family();
            self.family().is_empty().then_some(())
        });
        self.child.wait().ok();
        let command = &self.shown_command;
        let is_clean = gone.is_some() || std::thread::panicking();
        assert!(
            is_clean,
            "cannot kill what {command} left behind: {:?}",
            self.family()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::LIMIT;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_of_a_program_are_returned() {
        let output = Process::run(shell("echo out; echo err >&2; exit 3"), LIMIT);
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn a_program_answers_on_its_standard_input() {
        let mut process = Process::start_with_stdin(Command::new("cat"));
        process.write_line("hello");
        process.wait_for_line("hello", LIMIT);
        process.close_stdin();
        assert!(process.wait_exit(LIMIT).success());
    }

    #[test]
    fn orphans_in_another_session_are_found_and_killed() {
        let script = "setsid tail -f /dev/null >/dev/null & echo tail $!";
        let mut process = Process::start(shell(script));
        let line = process.wait_for_line("tail ", LIMIT);
        let orphan: u32 = line["tail ".len()..].parse().unwrap();
        assert!(process.wait_exit(LIMIT).success());
        assert!(process.family().contains(&orphan));
        drop(process);
        assert!(!procs::is_alive(orphan));
    }

    #[test]
    fn a_signal_ends_a_program() {
        use std::os::unix::process::ExitStatusExt;
        // With a pipe as standard input it does not end by itself.
        let mut process = Process::start_with_stdin(Command::new("cat"));
        process.signal(Signal::STOP);
        process.signal(Signal::KILL);
        assert_eq!(process.wait_exit(LIMIT).signal(), Some(9));
    }
}
