//! A process that was started, addressed by its pidfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_send_signal, waitid,
};

use super::Pid;
use super::reap::{self, Registry};
use crate::intercept::Interception;
use crate::signal::Signal;

/// A process that this one started.
///
/// Its descriptor (`AsFd`) is a pidfd: readable as soon as the process has exited, and safe
/// from reused numbers. Dropping a `Process` neither ends nor reaps it; a zombie that is left
/// like that is a stranger for [`reap_strangers`](super::reap_strangers).
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    leads_group: bool,
    is_reaped: bool,
    interception: Option<Interception>,
}

/// How a process ended.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "wait(2) knows no other end than these two"
)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// It was ended by the signal with this number.
    Signal(u8),
}

impl Process {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd, leads_group: bool) -> Process {
        Process {
            pid,
            pidfd,
            leads_group,
            is_reaped: false,
            interception: None,
        }
    }

    pub(super) fn set_interception(&mut self, interception: Option<Interception>) {
        self.interception = interception;
    }

    /// The calls of a process that was started with [`SpawnPlan::intercept`](super::SpawnPlan), once.
    /// As long as they are not received the process waits in them; without anybody to receive them
    /// they fail with `ENOSYS`.
    #[must_use]
    pub fn take_interception(&mut self) -> Option<Interception> {
        self.interception.take()
    }

    /// Its number, for showing.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends `signal` to the process (`pidfd_send_signal(2)`). Harmless, and no error, when it
    /// is gone.
    ///
    /// # Errors
    ///
    /// `EPERM` when it has become another user and this process is not root.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        gone_is_fine(pidfd_send_signal(&self.pidfd, signal.as_rustix()))
    }

    /// Sends `signal` to the process group that this process leads; only to the process itself
    /// if it was started without one (kill(2)).
    ///
    /// Does nothing once the process is reaped: from then on another group may have its
    /// number. To reach what an exited leader left behind, call this between
    /// [`has_exited`](Process::has_exited) and [`try_reap`](Process::try_reap).
    ///
    /// # Errors
    ///
    /// `EPERM` when no process of the group may be signalled.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if self.is_reaped {
            return Ok(());
        }
        match self.pid.as_rustix() {
            Some(group) if self.leads_group => {
                gone_is_fine(kill_process_group(group, signal.as_rustix()))
            }
            Some(_) | None => self.signal(signal),
        }
    }

    /// Whether the process has exited, without reaping it.
    ///
    /// # Errors
    ///
    /// Those of waitid(2); `EINVAL` on kernels before 5.4.
    pub fn has_exited(&self) -> io::Result<bool> {
        if self.is_reaped {
            return Ok(true);
        }
        match self.wait(WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT) {
            Ok(status) => Ok(status.is_some()),
            Err(Errno::CHILD) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reaps the process if it has exited; `None` while it runs. Never waits.
    ///
    /// # Errors
    ///
    /// `ECHILD` when it has been reaped already, here or (against all rules) elsewhere.
    pub fn try_reap(&mut self) -> io::Result<Option<ExitStatus>> {
        self.reap(WaitIdOptions::NOHANG)
    }

    /// Kills it with the process group that it leads, and reaps it: nobody will be told how it ended.
    pub fn end(mut self) {
        // KILL fails for a process that has become another user at most, which would be waited for in vain.
        if self.signal_group(Signal::KILL).is_ok() {
            self.reap_waiting();
        }
    }

    /// Waits for the process to exit and reaps it. For processes that are about to exit.
    pub(super) fn reap_waiting(&mut self) {
        // ECHILD is the only error, and it means that nothing is left to be done.
        let _reaped = self.reap(WaitIdOptions::empty());
    }

    fn reap(&mut self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        // Nobody may see the number as free, or as ours, between the reaping and the removal.
        let mut registry = reap::registry();
        match self.wait(options) {
            Ok(None) => Ok(None),
            Ok(Some(status)) => {
                self.forget(&mut registry);
                Ok(Some(ExitStatus::from_wait(&status)))
            }
            Err(errno) => {
                if errno == Errno::CHILD {
                    self.forget(&mut registry);
                }
                Err(errno.into())
            }
        }
    }

    fn wait(&self, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
        retry_on_intr(|| {
            waitid(
                WaitId::PidFd(self.pidfd.as_fd()),
                options | WaitIdOptions::EXITED,
            )
        })
    }

    fn forget(&mut self, registry: &mut Registry) {
        if !self.is_reaped {
            self.is_reaped = true;
            registry.remove(&self.pid);
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.forget(&mut reap::registry());
    }
}

impl ExitStatus {
    fn from_wait(status: &WaitIdStatus) -> ExitStatus {
        let low_byte = |number: i32| number.to_le_bytes()[0];
        match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => ExitStatus::Signal(low_byte(signal)),
            (code, None) => ExitStatus::Code(low_byte(code.unwrap_or(0))),
        }
    }
}

fn gone_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
