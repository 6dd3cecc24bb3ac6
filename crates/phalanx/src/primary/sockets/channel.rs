//! The primary's end of one worker's channel: what waits to be written, what was read, and which
//! handles are on their way. All calls are non-blocking; waiting is the channel task's business.
//!
//! INVARIANT: handles are answered in the order sent, so `sent` is a queue whose front the next ACK
//! or NACK belongs to. One writer: the hub's lock is held for every call.

mod handles;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use phalanx_core::wire::splice::{FIRST_NUMBER, Serialization};
use phalanx_core::wire::{Frames, Pacing, outgoing};
use phalanx_sys::channel::Identity;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::handle::Unread;
use crate::primary::sockets::outgoing::{Origin, Outgoing, SentHandle, Waiting};
use crate::primary::sockets::splice::Splice;

/// What may wait for one worker, in bytes, before [`Channel::queue_user`] refuses.
const QUEUE_LIMIT_BYTES: usize = 16 << 20;

/// What may wait above that, for answers to the worker itself: none is made for a worker that takes none.
const ANSWERS_LIMIT_BYTES: usize = 4 << 20;
/// Messages that may wait; each costs more than its bytes.
const QUEUE_LIMIT: usize = 16_384;
/// Handles on their way to one worker, without its ACK or NACK. Connections have a window of their own.
const SENT_LIMIT: usize = 64;

#[derive(Debug)]
pub(in crate::primary) struct Channel {
    pub(in crate::primary) socket: Arc<AsyncFd<OwnedFd>>,
    /// Which socket is the worker's end.
    pub(in crate::primary) peer: Identity,
    pub(in crate::primary) frames: Frames,
    /// Descriptors received, in order, for the `NODE_HANDLE` lines to come.
    pub(in crate::primary) received: VecDeque<OwnedFd>,
    /// What it sent and nobody has taken yet.
    pub(in crate::primary) unread: Arc<Unread>,
    /// Its last handle is to be acknowledged when there are fewer of those.
    pub(in crate::primary) owes_ack: bool,
    pub(in crate::primary) sent: VecDeque<SentHandle>,
    /// A handle of the application that did not arrive, until it is sent again.
    delayed: Option<Waiting>,
    /// How often something came from the worker.
    pub(in crate::primary) heard: u64,
    /// When the question, or the first handle on its way, was sent that has no answer yet.
    asked_at: Option<Instant>,
    /// It has answered a handle: it speaks the protocol, and can be asked.
    pub(in crate::primary) answers: bool,
    /// How long the last answer took: how late the event loop is. None before the first.
    pub(in crate::primary) lag: Option<Duration>,
    pub(in crate::primary) pacing: Pacing,
    waiting: VecDeque<Waiting>,
    written: usize,
    waiting_bytes: usize,
    blocked: bool,
    seq: u64,
    line: Vec<u8>,
    serialization: Serialization,
    /// What stands behind it, where the worker is one of Node's own primary.
    pub(in crate::primary) splice: Option<Box<Splice>>,
    /// Tells the channel's task to wait until the socket is writable, or that all is over.
    pub(in crate::primary) blocked_notice: Arc<Notify>,
}

impl Channel {
    pub(in crate::primary) fn new(
        socket: Arc<AsyncFd<OwnedFd>>,
        peer: Identity,
        serialization: Serialization,
    ) -> Self {
        Self {
            socket,
            peer,
            frames: Frames::of(serialization),
            received: VecDeque::new(),
            unread: Arc::default(),
            owes_ack: false,
            sent: VecDeque::new(),
            delayed: None,
            heard: 0,
            asked_at: None,
            answers: false,
            lag: None,
            pacing: Pacing::default(),
            waiting: VecDeque::new(),
            written: 0,
            waiting_bytes: 0,
            blocked: false,
            seq: 0,
            line: Vec::new(),
            serialization,
            splice: None,
            blocked_notice: Arc::new(Notify::new()),
        }
    }

    /// The channel of a worker of Node's own primary.
    pub(in crate::primary) fn spliced(
        socket: Arc<AsyncFd<OwnedFd>>,
        peer: Identity,
        serialization: Serialization,
        splice: Splice,
    ) -> Self {
        let mut channel = Self::new(socket, peer, serialization);
        channel.splice = Some(Box::new(splice));
        channel.seq = FIRST_NUMBER;
        channel
    }

    /// The number for the next internal message.
    pub(in crate::primary) fn next_seq(&mut self) -> u64 {
        let seq = self.seq;
        self.seq += 1;
        seq
    }

    /// Can a connection be handed over right now?
    pub(in crate::primary) fn is_clear(&self) -> bool {
        let is_within = self.splice.as_ref().is_some_and(|splice| splice.is_within);
        !self.blocked
            && !is_within
            && self.waiting.is_empty()
            && !self.is_probing()
            && !self.awaits_answer()
            && self.pacing.may_send_handle()
    }

    /// What waits, in bytes.
    pub(in crate::primary) fn queued_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether an answer may be queued: the worker reads what it asks for, more or less.
    pub(in crate::primary) fn has_room_for_answers(&self) -> bool {
        self.waiting_bytes < QUEUE_LIMIT_BYTES + ANSWERS_LIMIT_BYTES
            && self.waiting.len() < QUEUE_LIMIT
    }

    /// Queues a message of the application. False when too much waits already.
    pub(in crate::primary) fn queue_user(&mut self, bytes: Vec<u8>) -> bool {
        let too_much = self.waiting_bytes.saturating_add(bytes.len()) > QUEUE_LIMIT_BYTES;
        if too_much || self.waiting.len() >= QUEUE_LIMIT {
            return false;
        }
        self.queue(Outgoing {
            bytes,
            handle: None,
        });
        true
    }

    /// Queues a message of the protocol and writes what can be written.
    pub(in crate::primary) fn queue(&mut self, mut message: Outgoing) {
        message.bytes = self.serialization.of_line(message.bytes);
        self.queue_again(message);
    }

    /// Queues a message that was sent before.
    pub(in crate::primary) fn queue_again(&mut self, message: Outgoing) {
        // Nothing goes into the middle of what is forwarded.
        match self.splice.as_mut().filter(|splice| splice.is_within) {
            Some(splice) => splice.behind.push_back(message),
            None => self.push(message, Origin::Own),
        }
        self.flush();
    }

    /// Passes on what Node's primary has written: a whole message, or a part of one.
    pub(in crate::primary) fn forward(&mut self, message: Outgoing, ends: bool) {
        self.push(message, Origin::Forwarded);
        if let Some(splice) = &mut self.splice {
            splice.is_within = !ends;
            if ends {
                for message in std::mem::take(&mut splice.behind) {
                    self.push(message, Origin::Own);
                }
            }
        }
        self.flush();
    }

    fn push(&mut self, message: Outgoing, origin: Origin) {
        self.waiting_bytes += message.bytes.len();
        self.waiting.push_back(Waiting { message, origin });
    }

    /// What is still to be written when the channel ends, whose first message may be written in part.
    pub(in crate::primary) fn take_rest(&mut self) -> VecDeque<Outgoing> {
        let mut rest: VecDeque<_> = std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|waiting| waiting.message)
            .collect();
        if let Some(first) = rest.front_mut().filter(|_| self.written > 0) {
            first.bytes.drain(..self.written);
            first.handle = None;
        }
        (self.waiting_bytes, self.written) = (0, 0);
        rest
    }

    /// The socket may take bytes again.
    pub(in crate::primary) fn unblock(&mut self) {
        self.blocked = false;
        self.flush();
    }

    /// True while the socket takes no bytes.
    pub(in crate::primary) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Writes what waits, until the socket is full or the pacing asks for an acknowledgement first.
    /// A broken channel is left alone: its reader sees the end.
    pub(in crate::primary) fn flush(&mut self) {
        while !self.blocked && !self.awaits_answer() {
            let Some(Waiting { message, .. }) = self.waiting.front() else {
                return;
            };
            let handle = message.handle.as_ref().filter(|_| self.written == 0);
            let may_send =
                !self.is_probing() && self.pacing.may_send_handle() && self.sent.len() < SENT_LIMIT;
            if handle.is_some() && !may_send {
                return;
            }
            let rest = &message.bytes[self.written..];
            match phalanx_sys::channel::send(
                self.socket.as_fd(),
                rest,
                handle.map(|handle| handle.as_fd()),
            ) {
                Ok(count) => self.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.block(),
                Err(error) => {
                    tracing::debug!(%error, "a worker's channel takes no more");
                    self.waiting.clear();
                    self.waiting_bytes = 0;
                    self.written = 0;
                }
            }
        }
    }

    fn wrote(&mut self, count: usize) {
        let first = self.written == 0;
        self.written += count;
        self.waiting_bytes -= count;
        let Some(Waiting { message, .. }) = self.waiting.front() else {
            return;
        };
        let whole = message.bytes.len();
        let carries = message.handle.is_some();
        if carries && first {
            self.pacing.handle(whole);
        } else {
            self.pacing.plain(count);
        }
        if self.written == whole {
            self.written = 0;
            if let Some(waiting) = self.waiting.pop_front().filter(|_| carries) {
                self.sent.push_back(waiting.into_sent());
            }
        }
    }

    /// Asks whether the worker's event loop turns, if nothing on its way tells it anyway.
    ///
    /// Node gives a descriptor to the first line in a read that may have one, and a read may hold plain
    /// bytes and the line behind them: so the probe travels alone, and no handle follows before its answer.
    pub(in crate::primary) fn probe(&mut self) {
        let is_idle = self.sent.is_empty() && self.waiting.is_empty() && self.delayed.is_none();
        if is_idle && !self.blocked {
            self.sent.push_back(SentHandle::Probe);
            self.asked_at = Some(phalanx_sys::clock::now());
            self.pacing.handle(outgoing::PROBE.len());
            self.queue(Outgoing {
                bytes: outgoing::PROBE.to_vec(),
                handle: None,
            });
        }
    }

    /// A question or a handle was answered.
    fn was_answered(&mut self) {
        let now = phalanx_sys::clock::now();
        if let Some(asked_at) = self.asked_at.take() {
            self.lag = Some(now.saturating_duration_since(asked_at));
        }
    }

    fn is_probing(&self) -> bool {
        matches!(self.sent.back(), Some(SentHandle::Probe))
    }

    fn block(&mut self) {
        self.blocked = true;
        self.blocked_notice.notify_one();
    }

    /// Hands a connection over: one line, one descriptor, in one `sendmsg(2)`.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full, or something on its way has to be answered first; then nothing was sent.
    pub(in crate::primary) fn hand_over(
        &mut self,
        start: &[u8],
        seq: u64,
        connection: BorrowedFd<'_>,
    ) -> io::Result<()> {
        if !self.is_clear() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.line.clear();
        self.line.extend_from_slice(start);
        push_decimal(&mut self.line, seq);
        self.line.extend_from_slice(outgoing::NEW_CONNECTION_END);
        if self.serialization != Serialization::Json {
            self.line = self.serialization.of_line(std::mem::take(&mut self.line));
        }
        let sent = phalanx_sys::channel::send(self.socket.as_fd(), &self.line, Some(connection));
        match sent {
            Ok(count) => {
                self.pacing.handle(self.line.len());
                if self.sent.is_empty() {
                    self.asked_at = Some(phalanx_sys::clock::now());
                }
                self.sent.push_back(SentHandle::Connection(seq));
                if count < self.line.len() {
                    // Linux takes a short line whole or not at all; should it not, the rest goes first.
                    let rest = self.line[count..].to_vec();
                    self.waiting_bytes += rest.len();
                    self.waiting.push_front(Waiting {
                        message: Outgoing {
                            bytes: rest,
                            handle: None,
                        },
                        origin: Origin::Own,
                    });
                    self.flush();
                }
                Ok(())
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.block();
                }
                Err(error)
            }
        }
    }
}

impl Drop for Channel {
    /// Its task holds the socket too, and lets go of it when the cluster is gone.
    fn drop(&mut self) {
        self.blocked_notice.notify_one();
    }
}

fn push_decimal(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        let digit = u8::try_from(number % 10).unwrap_or(0);
        digits[at] = b'0' + digit;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::push_decimal;

    #[test]
    fn numbers_are_written_as_decimal() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut line = Vec::new();
            push_decimal(&mut line, number);
            assert_eq!(String::from_utf8(line).unwrap(), number.to_string());
        }
    }
}
