//! The `phalanx run` of one app: started, read line by line, and signalled.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use phalanx_sys::process::{self, ExitStatus, FdMapping, Process, SpawnPlan};
use phalanx_sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;

use super::{Happening, own_program};
use crate::output::Writer;
use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;

/// The longest line that is kept whole. Primaries write whole lines, and cut longer ones themselves.
const LINE_BYTES: u64 = 1 << 20;

/// Variables by which one app would be taken for another, or for the service itself.
const NOT_INHERITED: [&str; 6] = [
    "PHALANX_NAME",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
];

/// How apps are started.
pub(super) struct Start {
    pub(super) file: PathBuf,
    pub(super) profile: Option<String>,
    pub(super) options: Vec<String>,
    pub(super) is_json: bool,
    /// Letters of the longest name.
    pub(super) width: usize,
    pub(super) stdout: Writer,
    pub(super) stderr: Writer,
}

impl Start {
    /// Starts an app. What happens to it is told as of `index`.
    pub(super) fn start(
        &self,
        name: &Name,
        notify_socket: &Path,
        index: usize,
        told: &mpsc::UnboundedSender<Happening>,
    ) -> Outcome<Child> {
        self.try_start(name, notify_socket, index, told)
            .map_err(|error| Failure::caused(Exit::Failed, &format!("cannot start {name}"), &error))
    }

    fn try_start(
        &self,
        name: &Name,
        notify_socket: &Path,
        index: usize,
        told: &mpsc::UnboundedSender<Happening>,
    ) -> io::Result<Child> {
        let program = own_program().map_err(|failure| io::Error::other(failure.reason))?;
        let mut plan = SpawnPlan::new(program);
        let mut words: Vec<OsString> = vec!["run".into(), "--config".into(), (&self.file).into()];
        if let Some(profile) = &self.profile {
            words.extend(["--profile".into(), profile.into()]);
        }
        words.extend(self.options.iter().map(OsString::from));
        words.push(name.as_str().into());
        plan.args.extend(words);
        let is_inherited = |key: &OsString| NOT_INHERITED.iter().all(|one| key != one);
        plan.env = std::env::vars_os()
            .filter(|(key, _)| is_inherited(key))
            .collect();
        plan.env
            .push(("NOTIFY_SOCKET".into(), notify_socket.into()));
        let (stdout, into_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, into_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        plan.fds = vec![
            FdMapping::null(0),
            FdMapping::owned(into_stdout, 1),
            FdMapping::owned(into_stderr, 2),
        ];
        // Ctrl-C is for this process, which passes it on.
        plan.new_process_group = true;
        plan.die_with_parent = Some(Signal::TERM);
        let process = process::spawn(plan).map_err(io::Error::other)?;
        self.read(stdout, self.stdout.clone(), name)?;
        self.read(stderr, self.stderr.clone(), name)?;
        wait(process.as_fd().try_clone_to_owned()?, index, told.clone())?;
        Ok(Child { process })
    }

    /// Reads lines to the end, and hands them in with the name in front.
    fn read(&self, from: OwnedFd, into: Writer, name: &Name) -> io::Result<()> {
        let prefix = Prefix::new(name, self.width, self.is_json);
        let read = move || {
            let mut input = BufReader::new(File::from(from));
            let mut line = Vec::new();
            while matches!(next_line(&mut input, &mut line), Ok(true)) {
                into.push(&prefix.put(&line));
            }
        };
        thread::Builder::new()
            .name("app-output".to_owned())
            .spawn(read)?;
        Ok(())
    }
}

/// Reads the next line, or a part of one that is too long; false at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut part = io::Read::take(input, LINE_BYTES);
    Ok(part.read_until(b'\n', line)? > 0)
}

/// What stands in front of an app's lines.
struct Prefix {
    text: String,
    is_json: bool,
}

impl Prefix {
    fn new(name: &Name, width: usize, is_json: bool) -> Self {
        let text = if is_json {
            format!("{{\"app\":\"{name}\",")
        } else {
            format!("{:width$} | ", name.as_str())
        };
        Self { text, is_json }
    }

    /// The line with the app's name, as one line.
    fn put(&self, line: &[u8]) -> Vec<u8> {
        // An object of JSON gains a field; names need no escapes.
        let rest = match line {
            [b'{', rest @ ..] if self.is_json && rest.first() == Some(&b'"') => rest,
            other if self.is_json => return ended(other.to_vec()),
            other => other,
        };
        ended([self.text.as_bytes(), rest].concat())
    }
}

fn ended(mut line: Vec<u8>) -> Vec<u8> {
    if line.last() != Some(&b'\n') {
        line.push(b'\n');
    }
    line
}

/// Waits for the end of a process, on a thread of its own.
fn wait(process: OwnedFd, index: usize, told: mpsc::UnboundedSender<Happening>) -> io::Result<()> {
    let wait = move || {
        let ended = retry_on_intr(|| poll(&mut [PollFd::new(&process, PollFlags::IN)], None));
        if let Err(error) = ended {
            tracing::error!(%error, "cannot wait for the end of an app");
        }
        // Nobody waits for it when all has ended.
        drop(told.send(Happening::Ended(index)));
    };
    thread::Builder::new()
        .name("app-end".to_owned())
        .spawn(wait)?;
    Ok(())
}

/// A running app.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
}

impl Child {
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = self.process.signal(signal) {
            tracing::warn!(%error, "cannot signal an app");
        }
    }

    /// How it ended, if it has.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        match self.process.try_reap() {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(%error, "cannot learn how an app ended");
                Some(ExitStatus::Code(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_whose_they_are() {
        let name: Name = "api".parse().unwrap();
        let text = Prefix::new(&name, 5, false);
        assert_eq!(text.put(b"x\n"), b"api   | x\n");
        assert_eq!(text.put(b"x"), b"api   | x\n");
        let json = Prefix::new(&name, 5, true);
        assert_eq!(json.put(b"{\"a\":1}\n"), b"{\"app\":\"api\",\"a\":1}\n");
        assert_eq!(json.put(b"plain\n"), b"plain\n");
    }
}
