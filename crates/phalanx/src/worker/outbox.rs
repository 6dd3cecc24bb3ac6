//! What waits to be written to the primary: lines, and sockets that go with some of them.
//!
//! INVARIANT: behind a socket nothing is written before its acknowledgement, as Node does it: so the order stays when it has to be
//! sent again. Only acknowledgements of the primary's own handles may pass.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use phalanx_core::wire::{HANDLE_RETRIES, outgoing};
use serde_json::Value;

use crate::error::MessageError;
use crate::handle::{Handle, Unsent};

/// What may wait for the primary, in bytes, before a message is refused.
const LIMIT_BYTES: usize = 16 << 20;
/// Handles that may wait, before one is refused.
const LIMIT_HANDLES: usize = 256;
/// A handle that did not arrive is sent again after this.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Lines, or one line with a handle.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    handle: Option<OwnedFd>,
    sent: u8,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// How much of the first piece is written.
    written: usize,
    /// Acknowledgements, which wait for nobody's.
    urgent: Vec<u8>,
    is_within_urgent: bool,
    /// The last handle that was written, until it is answered.
    unanswered: Option<Piece>,
    retry_at: Option<Instant>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.urgent.is_empty()
    }

    /// Puts lines in.
    pub(super) fn put(&mut self, line: &[u8]) -> Result<(), MessageError> {
        self.check_room(line.len())?;
        self.append(line);
        Ok(())
    }

    fn append(&mut self, line: &[u8]) {
        self.bytes += line.len();
        match self.pieces.back_mut().filter(|last| last.handle.is_none()) {
            Some(last) => last.bytes.extend_from_slice(line),
            None => self.pieces.push_back(Piece {
                bytes: line.to_vec(),
                handle: None,
                sent: 0,
            }),
        }
    }

    fn check_room(&self, bytes: usize) -> Result<(), MessageError> {
        if self.bytes.saturating_add(bytes) > LIMIT_BYTES {
            let queued_bytes = self.bytes;
            return Err(MessageError::ChannelFull { queued_bytes });
        }
        Ok(())
    }

    /// Puts a message of the application and its handle in.
    pub(super) fn put_handle(&mut self, message: &Value, handle: Handle) -> Result<(), Unsent> {
        let bytes = outgoing::user_handle(message, handle.kind());
        let queued = self
            .pieces
            .iter()
            .filter(|one| one.handle.is_some())
            .count();
        let room = if queued >= LIMIT_HANDLES {
            Err(MessageError::HandlesFull { queued })
        } else {
            self.check_room(bytes.len())
        };
        if let Err(error) = room {
            return Err(Unsent { error, handle });
        }
        self.bytes += bytes.len();
        let handle = Some(handle.into_outgoing());
        self.pieces.push_back(Piece {
            bytes,
            handle,
            sent: 0,
        });
        Ok(())
    }

    /// Puts the acknowledgement of a handle of the primary's in. It rides along with what is written next, where that waits
    /// for nobody.
    pub(super) fn put_answer(&mut self, answer: &[u8]) {
        let is_held_up =
            self.unanswered.is_some() || self.pieces.iter().any(|one| one.handle.is_some());
        if is_held_up {
            self.urgent.extend_from_slice(answer);
        } else {
            self.append(answer);
        }
    }

    /// The last handle was answered. What did not arrive is sent again, unless that was done often enough.
    pub(super) fn answered(&mut self, arrived: bool) {
        let Some(piece) = self.unanswered.take().filter(|_| !arrived) else {
            return;
        };
        if piece.sent > HANDLE_RETRIES {
            tracing::warn!("the primary did not receive a handle, time after time: it was closed");
            return;
        }
        self.retry_at = Some(phalanx_sys::clock::now() + RETRY_PAUSE);
        self.bytes += piece.bytes.len();
        self.pieces.push_front(piece);
    }

    /// When a handle is to be sent again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The time has come.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
    }

    /// Writes what may be written. True when the socket took not all of it.
    pub(super) fn push(&mut self, socket: BorrowedFd<'_>) -> bool {
        loop {
            let done = if self.is_urgent_next() {
                self.push_urgent(socket)
            } else if self.is_waiting() || self.pieces.is_empty() {
                return false;
            } else {
                self.push_piece(socket)
            };
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    tracing::debug!(%error, "the channel takes no more");
                    self.clear();
                }
            }
        }
    }

    /// A handle has to be answered, or sent again, before anything else is written.
    fn is_waiting(&self) -> bool {
        self.unanswered.is_some() || self.retry_at.is_some()
    }

    /// Lines in front may have acknowledgements that are older.
    fn is_urgent_next(&self) -> bool {
        let front = self.pieces.front();
        let may_pass = self.is_waiting() || front.is_none_or(|front| front.handle.is_some());
        self.is_within_urgent || (self.written == 0 && !self.urgent.is_empty() && may_pass)
    }

    fn push_urgent(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let count = phalanx_sys::channel::send(socket, &self.urgent, None)?;
        self.urgent.drain(..count);
        self.is_within_urgent = !self.urgent.is_empty();
        Ok(())
    }

    fn push_piece(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let Some(piece) = self.pieces.front_mut() else {
            return Ok(());
        };
        let handle = piece.handle.as_ref().filter(|_| self.written == 0);
        let rest = &piece.bytes[self.written..];
        let count = phalanx_sys::channel::send(socket, rest, handle.map(AsFd::as_fd))?;
        (self.written, self.bytes) = (self.written + count, self.bytes - count);
        if self.written < piece.bytes.len() {
            return Ok(());
        }
        self.written = 0;
        if let Some(mut piece) = self.pieces.pop_front().filter(|one| one.handle.is_some()) {
            piece.sent += 1;
            self.unanswered = Some(piece);
        }
        Ok(())
    }

    /// Writes everything, at the end: nobody is waited for any more but the socket, which blocks.
    pub(super) fn push_all(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while !self.is_empty() {
            if self.is_urgent_next() {
                self.push_urgent(socket)?;
            } else {
                self.push_piece(socket)?;
            }
        }
        Ok(())
    }

    /// The channel is closed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use phalanx_core::wire::HANDLE_ACK;
    use serde_json::json;

    use super::*;

    /// What the other end reads, and how many descriptors come with it.
    fn read(end: &OwnedFd) -> (String, usize) {
        let (mut text, mut handles) = (Vec::new(), VecDeque::new());
        let mut room = [0; 4096];
        while let Ok(got) = phalanx_sys::channel::receive(end.as_fd(), &mut room, &mut handles) {
            text.extend_from_slice(&room[..got.bytes]);
        }
        (String::from_utf8(text).unwrap(), handles.len())
    }

    fn handle() -> Handle {
        UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn what_is_behind_a_handle_waits_for_its_answer_and_acknowledgements_do_not() {
        let (ours, theirs) = phalanx_sys::channel::pair().unwrap();
        let mut outbox = Outbox::default();
        outbox.put(b"1\n").unwrap();
        outbox.put_handle(&json!("with"), handle()).unwrap();
        outbox.put(b"2\n").unwrap();
        assert!(!outbox.push(ours.as_fd()));
        let (text, handles) = read(&theirs);
        assert!(
            text.starts_with("1\n{\"cmd\":\"NODE_HANDLE\"") && !text.contains("\n2"),
            "{text}"
        );
        assert_eq!(handles, 1);

        outbox.put_answer(HANDLE_ACK);
        outbox.push(ours.as_fd());
        assert_eq!(read(&theirs).0.as_bytes(), HANDLE_ACK);
        outbox.answered(true);
        outbox.push(ours.as_fd());
        assert_eq!(read(&theirs).0, "2\n");
        assert!(outbox.is_empty() && outbox.bytes == 0);
    }

    #[test]
    fn a_handle_that_does_not_arrive_is_sent_three_times_more_and_in_order() {
        let (ours, theirs) = phalanx_sys::channel::pair().unwrap();
        let mut outbox = Outbox::default();
        outbox.put_handle(&json!("with"), handle()).unwrap();
        outbox.put(b"2\n").unwrap();
        for _ in 0..4 {
            outbox.push(ours.as_fd());
            let (text, handles) = read(&theirs);
            assert!(text.contains("with") && !text.contains("\n2"), "{text}");
            assert_eq!(handles, 1);
            outbox.answered(false);
            outbox.push(ours.as_fd());
            if outbox.retry_at().is_some() {
                assert_eq!(read(&theirs).0, "", "it waits a moment");
            }
            outbox.retry();
        }
        assert_eq!(read(&theirs), ("2\n".to_owned(), 0));
        assert!(outbox.is_empty() && outbox.bytes == 0);
    }

    #[test]
    fn so_many_handles_wait_and_the_next_comes_back() {
        let (ours, _theirs) = phalanx_sys::channel::pair().unwrap();
        let mut outbox = Outbox::default();
        for _ in 0..=LIMIT_HANDLES {
            outbox.put_handle(&json!(1), handle()).unwrap();
            outbox.push(ours.as_fd());
        }
        let refused = outbox.put_handle(&json!(1), handle()).unwrap_err();
        assert!(matches!(
            refused.error,
            MessageError::HandlesFull {
                queued: LIMIT_HANDLES
            }
        ));
        assert!(matches!(refused.handle, Handle::UdpSocket(_)));
    }
}
