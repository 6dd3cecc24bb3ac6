//! Messages of the primary that the application has not taken yet. Whoever never takes any does not fill its memory.

use std::collections::VecDeque;

use crate::handle::Handle;

/// What may wait, in bytes: the texts, and what it takes to keep each.
const LIMIT_BYTES: usize = 16 << 20;
/// What it takes to keep a text, about.
const KEEPING_BYTES: usize = 32;

/// Handles that may wait.
const LIMIT_HANDLES: usize = 64;

/// A message as text, and the handle that came with it.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) text: Box<str>,
    pub(super) handle: Option<Handle>,
}

/// The messages that wait.
#[derive(Default)]
pub(super) struct Mailbox {
    letters: VecDeque<Letter>,
    bytes: usize,
    handles: usize,
    /// How many found no room.
    dropped: u64,
}

impl Mailbox {
    /// Puts a message in, if there is room for it: false if not. One that is alone always finds some.
    pub(super) fn put(&mut self, letter: Letter) -> bool {
        let bytes = self.bytes + letter.text.len() + KEEPING_BYTES;
        let handles = self.handles + usize::from(letter.handle.is_some());
        if handles > LIMIT_HANDLES {
            // Its sender is told, and tries again.
            return false;
        }
        if bytes > LIMIT_BYTES && !self.letters.is_empty() {
            self.dropped += 1;
            // It is told at the first, and each time that they are twice as many.
            if self.dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = self.dropped,
                    "messages of the primary are dropped: this worker does not take those that wait"
                );
            }
            return false;
        }
        (self.bytes, self.handles) = (bytes, handles);
        self.letters.push_back(letter);
        true
    }

    /// The oldest message.
    pub(super) fn take(&mut self) -> Option<Letter> {
        let letter = self.letters.pop_front()?;
        self.bytes -= letter.text.len() + KEEPING_BYTES;
        self.handles -= usize::from(letter.handle.is_some());
        Some(letter)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(mailbox: &mut Mailbox, text: impl Into<Box<str>>) -> bool {
        let (text, handle) = (text.into(), None);
        mailbox.put(Letter { text, handle })
    }

    fn take(mailbox: &mut Mailbox) -> Option<Box<str>> {
        mailbox.take().map(|letter| letter.text)
    }

    #[test]
    fn messages_that_nobody_takes_are_bounded_in_bytes_and_the_first_are_kept() {
        let mut mailbox = Mailbox::default();
        for number in 0..1_000_000 {
            put(&mut mailbox, number.to_string());
        }
        assert!(mailbox.bytes <= LIMIT_BYTES && mailbox.dropped > 0);
        let kept = mailbox.letters.len() as u64;
        assert_eq!(kept + mailbox.dropped, 1_000_000);
        for number in 0..kept {
            assert_eq!(take(&mut mailbox).as_deref(), Some(&*number.to_string()));
        }
        assert!(take(&mut mailbox).is_none() && mailbox.is_empty());
        assert_eq!(mailbox.bytes, 0);
    }

    #[test]
    fn so_many_handles_wait_and_those_that_are_taken_make_room() {
        let handle = || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let (text, handle) = ("1".into(), Some(socket.into()));
            Letter { text, handle }
        };
        let mut mailbox = Mailbox::default();
        let kept = (0..1000).filter(|_| mailbox.put(handle())).count();
        assert_eq!(kept, LIMIT_HANDLES);
        assert!(put(&mut mailbox, "2"), "a message without one has room");
        assert!(mailbox.take().unwrap().handle.is_some());
        assert!(mailbox.put(handle()) && !mailbox.put(handle()));
    }

    #[test]
    fn a_message_that_is_longer_than_all_that_may_wait_arrives_alone() {
        let mut mailbox = Mailbox::default();
        let long: Box<str> = "x".repeat(LIMIT_BYTES + 1).into();
        put(&mut mailbox, long.clone());
        put(&mut mailbox, "1");
        assert_eq!(take(&mut mailbox), Some(long));
        assert!(mailbox.is_empty());
        put(&mut mailbox, "2");
        assert_eq!(take(&mut mailbox).as_deref(), Some("2"));
    }
}
