//! Waits for the end of a worker's process, and for its last words.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::ExitStatus;
use phalanx_sys::process::{self, Process};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::{Mailbox, Reading};
use crate::primary::tasks::output::{self, Outlet, Stream};
use crate::primary::tasks::trees::{self, Trees};
use crate::watched::watch;

/// How long what the worker wrote last is waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What tells of a process's end and of its last words.
pub(in crate::primary) struct Watches {
    pidfd: AsyncFd<OwnedFd>,
    readers: Vec<JoinHandle<()>>,
}

impl Watches {
    /// # Errors
    /// When the process or a pipe cannot be watched.
    pub(in crate::primary) fn of(
        process: &Process,
        pipes: [Option<OwnedFd>; 2],
        outlet: &Outlet,
    ) -> io::Result<Self> {
        let pidfd = watch(process.as_fd().try_clone_to_owned()?)?;
        let mut readers = Vec::new();
        for (pipe, stream) in pipes.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
            if let Some(pipe) = pipe {
                readers.push(output::follow(pipe, stream, outlet.clone())?);
            }
        }
        Ok(Self { pidfd, readers })
    }
}

/// Waits for the process to end, reads what it left behind, and announces the exit.
pub(in crate::primary) async fn follow(
    mailbox: Mailbox,
    trees: Arc<Trees>,
    cell: Arc<Cell>,
    Watches { pidfd, readers }: Watches,
) {
    let status = loop {
        let Ok(mut readable) = pidfd.readable().await else {
            return;
        };
        if has_ended(&cell) {
            if let Some(primary) = mailbox.open() {
                primary.ended(cell.id);
            }
            trees::clear(&trees, &cell).await;
        }
        match end(&cell) {
            Ok(Some(status)) => break status,
            Ok(None) => readable.clear_ready(),
            Err(error) => {
                tracing::error!(worker = cell.id.0, %error, "cannot learn how a worker ended");
                break ExitStatus::Code(255);
            }
        }
    };
    // Messages written just before the exit are still in the socket; they come before the exit event.
    loop {
        let Some(primary) = mailbox.open() else {
            return;
        };
        if primary.read_channel(cell.id) != Reading::More {
            break;
        }
        drop(primary);
        tokio::task::yield_now().await;
    }
    finish_output(readers).await;
    if let Some(primary) = mailbox.open() {
        primary.exited(cell.id, status);
    }
}

fn has_ended(cell: &Cell) -> bool {
    let held = cell.process();
    held.as_ref()
        .is_some_and(|process| process.has_exited().unwrap_or(false))
}

/// Reaps the process; nothing while it runs.
fn end(cell: &Cell) -> io::Result<Option<ExitStatus>> {
    let mut held = cell.process();
    let Some(process) = held.as_mut() else {
        return Ok(None);
    };
    let status = process.try_reap()?;
    Ok(status.map(|status| match status {
        process::ExitStatus::Code(code) => ExitStatus::Code(code),
        process::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
    }))
}

/// Its last words are read before its exit is announced; a descendant that keeps the pipe open is not waited for.
async fn finish_output(readers: Vec<JoinHandle<()>>) {
    let deadline = clock::now() + LAST_WORDS;
    for reader in readers {
        if clock::timeout_at(deadline, reader).await.is_none() {
            return;
        }
    }
}
