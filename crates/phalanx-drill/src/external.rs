//! A command of the user's, run by the shell: how a foreign server is reloaded.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use phalanx_sys::process::{self, ExitStatus, FdMapping, Process, SpawnPlan};
use phalanx_sys::signal::Signal;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long a command may take.
const LIMIT: Duration = Duration::from_mins(2);

/// A process that ends with this one, and whose whole group is killed when it is dropped before its end.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    /// A duplicate of its pidfd, readable when it has ended (`pidfd_open(2)`).
    end: AsyncFd<OwnedFd>,
    has_ended: bool,
}

impl Running {
    pub(super) fn start(plan: SpawnPlan) -> Result<Self, String> {
        let plan = SpawnPlan {
            new_process_group: true,
            die_with_parent: Some(Signal::TERM),
            ..plan
        };
        let process =
            process::spawn(plan).map_err(|error| phalanx_control::failure::with_causes(&error))?;
        let end = process.as_fd().try_clone_to_owned().and_then(watch);
        Ok(Self {
            end: end.map_err(|error| error.to_string())?,
            process,
            has_ended: false,
        })
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, String> {
        loop {
            let readable = self.end.readable().await;
            let mut guard = readable.map_err(|error| error.to_string())?;
            match self.process.try_reap() {
                Ok(Some(status)) => {
                    self.has_ended = true;
                    return Ok(status);
                }
                Ok(None) => guard.clear_ready(),
                Err(error) => {
                    self.has_ended = true;
                    return Err(error.to_string());
                }
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that may give their descriptor away; OwnedFd does not"
)]
fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            // It may be gone already, which is all that is wanted.
            drop(self.process.signal_group(Signal::KILL));
        }
    }
}

/// Runs a command to its end; what it prints is not shown.
pub(super) async fn run(command: &str) -> Result<(), String> {
    let mut plan = SpawnPlan::new(PathBuf::from("/bin/sh"));
    plan.args.extend(["-c".into(), OsString::from(command)]);
    plan.env = std::env::vars_os().collect();
    plan.fds = (0..3).map(FdMapping::null).collect();
    let mut running = Running::start(plan)?;
    match timeout(LIMIT, running.wait()).await {
        Ok(Ok(ExitStatus::Code(0))) => Ok(()),
        Ok(Ok(ExitStatus::Code(code))) => Err(format!("the command exited with status {code}")),
        Ok(Ok(ExitStatus::Signal(signal))) => {
            Err(format!("the command was ended by signal {signal}"))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(format!("the command did not end within {LIMIT:?}")),
    }
}
