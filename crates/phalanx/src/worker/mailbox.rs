//! Messages of the primary that the application has not taken yet. Whoever never takes any does not fill its memory.

use std::collections::VecDeque;

/// What may wait, in bytes: the texts, and what it takes to keep each.
const LIMIT_BYTES: usize = 16 << 20;
/// What it takes to keep a text, about.
const KEEPING_BYTES: usize = 32;

/// The messages that wait, as texts.
#[derive(Default)]
pub(super) struct Mailbox {
    texts: VecDeque<Box<str>>,
    bytes: usize,
    /// How many found no room.
    dropped: u64,
}

impl Mailbox {
    /// Puts a message in, if there is room for it. One that is alone always finds some.
    pub(super) fn put(&mut self, text: Box<str>) {
        let bytes = self.bytes + text.len() + KEEPING_BYTES;
        if bytes > LIMIT_BYTES && !self.texts.is_empty() {
            self.dropped += 1;
            // It is told at the first, and each time that they are twice as many.
            if self.dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = self.dropped,
                    "messages of the primary are dropped: this worker does not take those that wait"
                );
            }
            return;
        }
        self.bytes = bytes;
        self.texts.push_back(text);
    }

    /// The oldest message.
    pub(super) fn take(&mut self) -> Option<Box<str>> {
        let text = self.texts.pop_front()?;
        self.bytes -= text.len() + KEEPING_BYTES;
        Some(text)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_nobody_takes_are_bounded_in_bytes_and_the_first_are_kept() {
        let mut mailbox = Mailbox::default();
        for number in 0..1_000_000 {
            mailbox.put(number.to_string().into());
        }
        assert!(mailbox.bytes <= LIMIT_BYTES && mailbox.dropped > 0);
        let kept = mailbox.texts.len() as u64;
        assert_eq!(kept + mailbox.dropped, 1_000_000);
        for number in 0..kept {
            assert_eq!(mailbox.take().as_deref(), Some(&*number.to_string()));
        }
        assert!(mailbox.take().is_none() && mailbox.is_empty());
        assert_eq!(mailbox.bytes, 0);
    }

    #[test]
    fn a_message_that_is_longer_than_all_that_may_wait_arrives_alone() {
        let mut mailbox = Mailbox::default();
        let long: Box<str> = "x".repeat(LIMIT_BYTES + 1).into();
        mailbox.put(long.clone());
        mailbox.put("1".into());
        assert_eq!(mailbox.take(), Some(long));
        assert!(mailbox.is_empty());
        mailbox.put("2".into());
        assert_eq!(mailbox.take().as_deref(), Some("2"));
    }
}
