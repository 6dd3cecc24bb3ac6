//! When a handle may be sent: the discipline that keeps Node.js pairing lines with descriptors.
//!
//! A worker reads up to 65,536 bytes at once, and one read yields at most one descriptor. If a read
//! boundary splits a message that carries one, its tail coalesces with the next and Node pairs the
//! wrong two. So after about 60 kB of plain bytes, or after a handle message of more than 32 kB,
//! every outstanding acknowledgement is awaited before each of the next two handles.

const PLAIN_LIMIT_BYTES: usize = 60_000;
const LONG_HANDLE_BYTES: usize = 32_000;

/// The state of one channel, in the direction towards the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pacing {
    plain_bytes: usize,
    unacknowledged: u32,
    alone: u8,
}

impl Pacing {
    /// May a handle be sent now? If not, an acknowledgement has to come first.
    #[must_use]
    pub fn may_send_handle(&self) -> bool {
        self.unacknowledged == 0 || (self.alone == 0 && self.plain_bytes < PLAIN_LIMIT_BYTES)
    }

    /// Plain bytes were queued.
    pub fn plain(&mut self, bytes: usize) {
        self.plain_bytes = self.plain_bytes.saturating_add(bytes);
        if self.plain_bytes >= PLAIN_LIMIT_BYTES {
            self.alone = 2;
        }
    }

    /// A handle message of this length was sent.
    pub fn handle(&mut self, bytes: usize) {
        self.alone = self.alone.saturating_sub(1);
        if bytes > LONG_HANDLE_BYTES {
            self.alone = 2;
        }
        self.plain_bytes = 0;
        self.unacknowledged = self.unacknowledged.saturating_add(1);
    }

    /// An ACK or a NACK came. False when none was owed.
    pub fn answered(&mut self) -> bool {
        match self.unacknowledged.checked_sub(1) {
            Some(rest) => {
                self.unacknowledged = rest;
                true
            }
            None => false,
        }
    }

    /// Handles sent and not yet answered.
    #[must_use]
    pub fn unacknowledged(&self) -> u32 {
        self.unacknowledged
    }
}
