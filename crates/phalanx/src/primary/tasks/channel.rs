//! Waits for what a worker writes to its channel, and for room in it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::ids::WorkerId;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::handle::Unread;
use crate::primary::mailbox::{Mailbox, Reading};

/// The primary's end of a channel, watched.
pub(in crate::primary) type Socket = Arc<AsyncFd<OwnedFd>>;

/// Reads the channel when something came, and writes it when it was full and is not any more.
pub(in crate::primary) async fn follow(
    mailbox: Mailbox,
    worker: WorkerId,
    socket: Socket,
    (blocked, unread): (Arc<Notify>, Arc<Unread>),
) {
    let mut full = false;
    loop {
        tokio::select! {
            readable = socket.readable() => {
                let (Ok(mut readable), Some(primary)) = (readable, mailbox.open()) else { return };
                let reading = primary.read_channel(worker);
                match reading {
                    Reading::Drained => readable.clear_ready(),
                    // The others have their turn: a worker that writes without end slows down itself.
                    Reading::More => {
                        drop(readable);
                        drop(primary);
                        tokio::task::yield_now().await;
                    }
                    Reading::Closed => return primary.channel_closed(worker),
                }
            }
            writable = socket.writable(), if full => {
                let (Ok(mut writable), Some(primary)) = (writable, mailbox.open()) else { return };
                full = primary.channel_writable(worker);
                if full {
                    writable.clear_ready();
                }
            }
            () = unread.changed.notified() => match mailbox.open() {
                Some(primary) => primary.handle_read(worker),
                None => return,
            },
            () = blocked.notified() => {
                if mailbox.is_gone() {
                    return;
                }
                full = true;
            }
        }
    }
}
