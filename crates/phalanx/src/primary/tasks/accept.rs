//! Waits for who connects to a listener from which the primary accepts; that it does so is the state's business.

use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::task::{Poll, ready};
use std::time::Duration;

use phalanx_core::ledger::ListenerId;
use phalanx_sys::socket;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::primary::clock;
use crate::primary::mailbox::{Accepting, Mailbox};

/// The pause after the process ran out of descriptors or memory.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket, watched.
type Socket = AsyncFd<Arc<OwnedFd>>;

/// Accepts until it is dropped.
#[derive(Debug)]
pub(in crate::primary) struct Acceptor {
    /// The task only borrows it while it works: the address is free the moment this is dropped.
    socket: Arc<Socket>,
    task: AbortHandle,
}

impl Acceptor {
    /// `room` rings when somebody has room again.
    pub(in crate::primary) fn start(
        mailbox: Mailbox,
        listener: ListenerId,
        socket: Arc<Socket>,
        room: Arc<Notify>,
    ) -> Self {
        let accepting = accept(mailbox, listener, Arc::downgrade(&socket), room);
        Self {
            socket,
            task: tokio::spawn(accepting).abort_handle(),
        }
    }

    /// Whether no connection waits.
    pub(in crate::primary) fn is_idle(&self) -> bool {
        !socket::has_waiting(self.socket.get_ref().as_fd())
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(mailbox: Mailbox, listener: ListenerId, socket: Weak<Socket>, room: Arc<Notify>) {
    loop {
        let turn = poll_fn(|cx| {
            let (Some(socket), Some(primary)) = (socket.upgrade(), mailbox.open()) else {
                return Poll::Ready(Accepting::Closed);
            };
            let Ok(mut readable) = ready!(socket.poll_read_ready(cx)) else {
                return Poll::Ready(Accepting::Closed);
            };
            let turn = primary.accept(listener, socket.get_ref());
            if matches!(turn, Accepting::Empty) {
                readable.clear_ready();
            }
            Poll::Ready(turn)
        });
        match turn.await {
            Accepting::Empty => {}
            Accepting::More => tokio::task::yield_now().await,
            Accepting::Full => room.notified().await,
            Accepting::Exhausted => {
                clock::pause(EXHAUSTION_PAUSE).await;
            }
            Accepting::Closed => return,
        }
    }
}
