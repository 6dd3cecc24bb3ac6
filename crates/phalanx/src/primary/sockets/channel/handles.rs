//! Handles on a channel: those of the application that are sent, and the answers to all that are on their way.
//!
//! INVARIANT: behind a handle of the application nothing is written before its answer, as Node does it: so the order stays when it has
//! to be sent again.

use std::sync::Arc;

use super::{Channel, QUEUE_LIMIT_BYTES};
use crate::error::MessageError;
use crate::handle::{Handle, Unsent};
use crate::primary::sockets::outgoing::{Answered, Origin, Outgoing, SentHandle, handles_in};

/// Handles of the application that may wait for one worker, before [`Channel::queue_handle`] refuses.
const HANDLES_LIMIT: usize = 256;

impl Channel {
    /// Queues a message of the application and the handle that goes with it.
    ///
    /// # Errors
    /// Too much waits already; then the handle comes back.
    pub(in crate::primary) fn queue_handle(
        &mut self,
        bytes: Vec<u8>,
        handle: Handle,
    ) -> Result<(), Unsent> {
        let (queued, queued_bytes) = (handles_in(&self.waiting), self.waiting_bytes);
        let bytes = self.serialization.of_line(bytes);
        let error = if queued >= HANDLES_LIMIT {
            MessageError::HandlesFull { queued }
        } else if queued_bytes.saturating_add(bytes.len()) > QUEUE_LIMIT_BYTES {
            MessageError::ChannelFull { queued_bytes }
        } else {
            self.queue_parcel(bytes, handle);
            return Ok(());
        };
        Err(Unsent { error, handle })
    }

    fn queue_parcel(&mut self, bytes: Vec<u8>, handle: Handle) {
        let handle = Some(Arc::new(handle.into_outgoing()));
        self.push(Outgoing { bytes, handle }, Origin::Application { sent: 0 });
        self.flush();
    }

    /// The oldest handle on its way was answered; nothing if there was none. What did not arrive and is to be sent again
    /// stays here.
    pub(in crate::primary) fn handle_answered(&mut self, arrived: bool) -> Option<Answered> {
        let sent = self.sent.pop_front()?;
        if !self.pacing.answered() {
            return None;
        }
        self.answers = true;
        let answered = match sent {
            SentHandle::Application(parcel) if !arrived && parcel.may_go_again() => {
                self.delayed = Some(parcel.into_waiting());
                Answered::Again
            }
            SentHandle::Connection(_)
            | SentHandle::Probe
            | SentHandle::Listener(_)
            | SentHandle::Application(_)
            | SentHandle::Forwarded => Answered::Done(sent),
        };
        self.flush();
        self.was_answered();
        Some(answered)
    }

    /// Sends the handle again that did not arrive.
    pub(in crate::primary) fn send_delayed(&mut self) {
        if let Some(waiting) = self.delayed.take() {
            self.waiting_bytes += waiting.message.bytes.len();
            self.waiting.push_front(waiting);
            self.flush();
        }
    }

    /// A handle of the application has no answer yet: what was queued behind it waits.
    pub(super) fn awaits_answer(&self) -> bool {
        self.delayed.is_some() || matches!(self.sent.back(), Some(SentHandle::Application(_)))
    }
}
