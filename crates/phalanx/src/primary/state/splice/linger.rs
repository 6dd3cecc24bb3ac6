//! The end of a spliced channel: what one side had written before it ended is written to the other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use crate::primary::sockets::channel::Outgoing;

/// Writes it all, and lets go of the socket. A reader that never reads keeps what it is owed, as in the kernel's queue.
pub(super) fn until_written((socket, rest): (Arc<AsyncFd<OwnedFd>>, VecDeque<Outgoing>)) {
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
