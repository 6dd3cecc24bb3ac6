//! Handles on the worker's end of its channel: sockets that go with messages, and what is acknowledged.

use std::os::fd::OwnedFd;
use std::time::Instant;

use phalanx_core::wire::HANDLE_ACK;
use serde_json::Value;

use super::{Inner, State};
use crate::error::MessageError;
use crate::handle::{Handle, Unsent};
use crate::worker::mailbox::Letter;

impl Inner {
    /// Writes a message that a socket goes with.
    pub(in crate::worker) fn send_handle(
        &self,
        message: &Value,
        handle: Handle,
    ) -> Result<(), Unsent> {
        let mut state = self.state();
        if state.closed {
            let error = MessageError::Disconnected;
            return Err(Unsent { error, handle });
        }
        Self::acknowledge_connections(&mut state);
        state.outbox.put_handle(message, handle)?;
        self.push(&mut state);
        Ok(())
    }

    /// The acknowledgements of handles ride along with what is written next: they are counted, not numbered.
    pub(super) fn acknowledge_connections(state: &mut State) {
        for _ in 0..std::mem::take(&mut state.unacknowledged) {
            state.outbox.put_answer(HANDLE_ACK);
        }
    }

    /// When a handle is to be sent again that did not arrive.
    pub(in crate::worker) fn retry_at(&self) -> Option<Instant> {
        self.state().outbox.retry_at()
    }

    pub(in crate::worker) fn retry(&self) {
        let mut state = self.state();
        state.outbox.retry();
        self.push(&mut state);
    }

    /// Acknowledges a handle, after those that came before it.
    pub(super) fn acknowledge(&self, state: &mut State, answer: &[u8]) {
        if !state.closed {
            Self::acknowledge_connections(state);
            state.outbox.put_answer(answer);
            self.push(state);
        }
    }

    pub(super) fn handle_answered(&self, arrived: bool) {
        let mut state = self.state();
        state.outbox.answered(arrived);
        self.push(&mut state);
    }

    /// Puts a message into the mailbox. False when there is no room for it.
    pub(super) fn deliver(&self, message: &Value, handle: Option<OwnedFd>) -> bool {
        let handle = handle.and_then(|handle| {
            let handle = Handle::received(handle);
            handle.inspect_err(|error| tracing::warn!(%error, "the primary sent what is no such socket as Node sends: closed")).ok()
        });
        let text = message.to_string().into();
        let has_room = self.state().messages.put(Letter { text, handle });
        self.message.notify_one();
        has_room
    }
}
