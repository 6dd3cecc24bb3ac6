//! What stands behind the channel of a worker of Node's own primary: the channel to that primary.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::wire::splice::{Cutter, Serialization};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::primary::sockets::outgoing::Outgoing;

/// What stands behind a worker's channel: the channel to Node's primary.
#[derive(Debug)]
pub(in crate::primary) struct Splice {
    pub(in crate::primary) from_worker: Cutter,
    pub(in crate::primary) upstream: Upstream,
    pub(in crate::primary) serialization: Serialization,
    /// A message of Node's primary was forwarded in part.
    pub(in crate::primary) is_within: bool,
    /// What is to be written behind it.
    pub(in crate::primary) behind: VecDeque<Outgoing>,
    /// The worker is about to be told to leave: what comes behind that waits.
    pub(in crate::primary) holds: bool,
}

/// One of the two ends of a spliced channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Side {
    Worker,
    Primary,
}

impl Splice {
    pub(in crate::primary) fn cutter(&mut self, side: Side) -> &mut Cutter {
        match side {
            Side::Worker => &mut self.from_worker,
            Side::Primary => &mut self.upstream.cutter,
        }
    }

    /// What comes behind the word to leave may follow.
    pub(in crate::primary) fn release_hold(&mut self) {
        self.holds = false;
        self.upstream.notice.notify_one();
    }
}

/// The channel to Node's primary, or to the holder: what it has written, and what waits to be written to it.
#[derive(Debug)]
pub(in crate::primary) struct Upstream {
    pub(in crate::primary) socket: Arc<AsyncFd<OwnedFd>>,
    pub(in crate::primary) serialization: Serialization,
    pub(in crate::primary) cutter: Cutter,
    /// Descriptors received, in order, for the messages to come.
    pub(in crate::primary) received: VecDeque<OwnedFd>,
    waiting: VecDeque<Outgoing>,
    written: usize,
    waiting_bytes: usize,
    blocked: bool,
    /// Tells its task to look how things stand.
    pub(in crate::primary) notice: Arc<Notify>,
}

impl Upstream {
    pub(in crate::primary) fn new(
        socket: Arc<AsyncFd<OwnedFd>>,
        serialization: Serialization,
    ) -> Self {
        Self {
            socket,
            serialization,
            cutter: Cutter::new(serialization),
            received: VecDeque::new(),
            waiting: VecDeque::new(),
            written: 0,
            waiting_bytes: 0,
            blocked: false,
            notice: Arc::new(Notify::new()),
        }
    }

    pub(in crate::primary) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(in crate::primary) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(in crate::primary) fn queue(&mut self, message: Outgoing) {
        self.waiting_bytes += message.bytes.len();
        self.waiting.push_back(message);
        self.flush();
    }

    /// The socket may take bytes again. True when it is full once more.
    pub(in crate::primary) fn unblock(&mut self) -> bool {
        self.blocked = false;
        self.flush();
        self.blocked
    }

    fn flush(&mut self) {
        while !self.blocked {
            let Some(message) = self.waiting.front() else {
                return;
            };
            let handle = message.handle.as_ref().filter(|_| self.written == 0);
            let rest = &message.bytes[self.written..];
            let sent = phalanx_sys::channel::send(
                self.socket.as_fd(),
                rest,
                handle.map(|handle| handle.as_fd()),
            );
            match sent {
                Ok(count) => {
                    self.written += count;
                    self.waiting_bytes -= count;
                    if self.written >= message.bytes.len() {
                        self.written = 0;
                        self.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    self.notice.notify_one();
                }
                // Its reader sees the end.
                Err(_) => {
                    self.waiting.clear();
                    (self.written, self.waiting_bytes) = (0, 0);
                }
            }
        }
    }

    /// The socket, and what is still to be written to it.
    pub(in crate::primary) fn into_rest(mut self) -> (Arc<AsyncFd<OwnedFd>>, VecDeque<Outgoing>) {
        if let Some(first) = self.waiting.front_mut().filter(|_| self.written > 0) {
            first.bytes.drain(..self.written);
            first.handle = None;
        }
        (self.socket, self.waiting)
    }
}
