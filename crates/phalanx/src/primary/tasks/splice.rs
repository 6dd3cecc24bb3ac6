//! Waits for what comes on either side of a spliced channel, for room in it, and for the end of its worker. What passes is
//! the state's business.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::{ExitStatus, WorkerId};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::{Flow, Mailbox};
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::sockets::splice::Side;

/// So long after a worker's end Node's primary has told how it ended, if it ever does.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// An end of a channel, watched, and what tells its task to look how things stand.
pub(in crate::primary) type End = (Arc<AsyncFd<OwnedFd>>, Arc<Notify>);

/// Reads one side of a spliced channel, and writes it when it was full and is not any more.
pub(in crate::primary) async fn follow(
    mailbox: Mailbox,
    worker: WorkerId,
    side: Side,
    (socket, notice): End,
) {
    let (mut full, mut paused) = (false, false);
    loop {
        tokio::select! {
            readable = socket.readable(), if !paused => {
                let (Ok(mut readable), Some(primary)) = (readable, mailbox.open()) else { return };
                match primary.read_side(worker, side) {
                    Flow::Drained => readable.clear_ready(),
                    Flow::More => {
                        drop(readable);
                        drop(primary);
                        tokio::task::yield_now().await;
                    }
                    Flow::Paused => paused = true,
                    Flow::Closed => return primary.side_closed(worker, side),
                }
            }
            writable = socket.writable(), if full => {
                let (Ok(mut writable), Some(primary)) = (writable, mailbox.open()) else { return };
                full = primary.side_writable(worker, side);
                if full {
                    writable.clear_ready();
                }
            }
            () = notice.notified() => {
                let state = mailbox.open().and_then(|primary| primary.side_state(worker, side));
                let Some((is_full, may_read)) = state else { return };
                (full, paused) = (is_full, !may_read);
            }
        }
    }
}

/// A worker is gone when its process has ended and its channel is closed. How it ended tells who reaps it; should he
/// not, it is forgotten after a while.
pub(in crate::primary) async fn follow_end(
    mailbox: Mailbox,
    cell: Arc<Cell>,
    pidfd: Option<AsyncFd<OwnedFd>>,
) {
    if let Some(pidfd) = pidfd {
        drop(pidfd.readable().await);
    }
    loop {
        let changed = cell.changed.notified();
        if !cell.is_connected() {
            break;
        }
        changed.await;
    }
    clock::sleep_until(clock::now() + TOLD_WITHIN).await;
    if let Some(primary) = mailbox.open() {
        primary.exited(cell.id, ExitStatus::Unknown);
    }
}

/// Writes what the holder's socket had no room for.
pub(in crate::primary) async fn follow_holder(mailbox: Mailbox, (socket, notice): End) {
    loop {
        notice.notified().await;
        let Ok(mut writable) = socket.writable().await else {
            return;
        };
        writable.clear_ready();
        let Some(primary) = mailbox.open() else {
            return;
        };
        primary.holder_writable();
    }
}

/// The end of a spliced channel: writes to one side all that the other had written before it ended, and lets go of the socket. A reader that never reads keeps what it is owed, as in the kernel's queue.
pub(in crate::primary) fn write_rest((socket, rest): (Arc<AsyncFd<OwnedFd>>, VecDeque<Outgoing>)) {
    if rest.is_empty() {
        return;
    }
    tokio::spawn(async move {
        for message in rest {
            if write(&socket, message).await.is_err() {
                return;
            }
        }
    });
}

async fn write(socket: &AsyncFd<OwnedFd>, mut message: Outgoing) -> io::Result<()> {
    let mut written = 0;
    while written < message.bytes.len() {
        let mut writable = socket.writable().await?;
        let handle = message.handle.as_ref().map(|handle| handle.as_fd());
        match phalanx_sys::channel::send(socket.as_fd(), &message.bytes[written..], handle) {
            Ok(count) => {
                written += count;
                message.handle = None;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable.clear_ready(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
