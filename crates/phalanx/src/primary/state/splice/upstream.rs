//! The channel to Node's primary: what it has written, and what waits to be written to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::wire::splice::{Cutter, Serialization};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::primary::sockets::channel::Outgoing;

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) socket: Arc<AsyncFd<OwnedFd>>,
    pub(super) serialization: Serialization,
    pub(super) cutter: Cutter,
    /// Descriptors received, in order, for the messages to come.
    pub(super) received: VecDeque<OwnedFd>,
    waiting: VecDeque<Outgoing>,
    written: usize,
    waiting_bytes: usize,
    blocked: bool,
    /// Tells its task to look how things stand.
    pub(super) notice: Arc<Notify>,
}

impl Upstream {
    pub(super) fn new(socket: Arc<AsyncFd<OwnedFd>>, serialization: Serialization) -> Self {
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

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn queue(&mut self, message: Outgoing) {
        self.waiting_bytes += message.bytes.len();
        self.waiting.push_back(message);
        self.flush();
    }

    /// The socket may take bytes again. True when it is full once more.
    pub(super) fn unblock(&mut self) -> bool {
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
    pub(super) fn into_rest(mut self) -> (Arc<AsyncFd<OwnedFd>>, VecDeque<Outgoing>) {
        if let Some(first) = self.waiting.front_mut().filter(|_| self.written > 0) {
            first.bytes.drain(..self.written);
            first.handle = None;
        }
        (self.socket, self.waiting)
    }
}
