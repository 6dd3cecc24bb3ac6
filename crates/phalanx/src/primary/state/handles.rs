//! Handles of the application: sockets that travel with its messages, from and to workers.
//!
//! INVARIANT: of what a worker sends and nobody takes, [`UNREAD_LIMIT`] descriptors and one more are kept. Then its last handle is not
//! acknowledged before there are fewer; until that Node sends nothing more, so that a worker that floods the primary
//! waits, and nothing is lost.

use std::sync::Arc;

use phalanx_core::ids::WorkerId;
use phalanx_core::wire::{HANDLE_ACK, HANDLE_NACK, outgoing};
use serde_json::Value;

use crate::error::MessageError;
use crate::handle::{Handle, Parcel, Unsent};
use crate::message::Message;
use crate::primary::state::Hub;

/// So many handles of one worker may wait to be taken.
const UNREAD_LIMIT: usize = 64;

impl Hub {
    /// A worker sent a message with a handle (`process.send(message, handle)`).
    pub(super) fn handle_received(&mut self, worker: WorkerId, message: Arc<str>) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        let Some(descriptor) = channel.received.pop_front() else {
            return self.write(worker, HANDLE_NACK.to_vec());
        };
        if channel.owes_ack {
            let text = "sends handles without waiting until those before are taken: closed one";
            return self.complain(worker, text);
        }
        let unread = Arc::clone(&channel.unread);
        let message = match Handle::received(descriptor) {
            Ok(handle) => Message::with(message, Parcel::new(handle, Arc::clone(&unread))),
            Err(error) => {
                self.complain(
                    worker,
                    &format!(
                        "sent a descriptor that is no such socket as Node sends: closed ({error})"
                    ),
                );
                Message::new(message)
            }
        };
        if unread.count() > UNREAD_LIMIT {
            self.owe_ack(worker);
        } else {
            self.write(worker, HANDLE_ACK.to_vec());
        }
        self.tell_message(worker, message);
    }

    fn owe_ack(&mut self, worker: WorkerId) {
        if let Some(channel) = self.channel_mut(worker) {
            channel.owes_ack = true;
        }
    }

    /// A handle of this worker was taken, or closed because nobody took it.
    pub(super) fn handle_read(&mut self, worker: WorkerId) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        let is_due = channel.owes_ack && channel.unread.count() <= UNREAD_LIMIT;
        channel.owes_ack &= !is_due;
        let untaken = channel.unread.take_untaken();
        if is_due {
            self.write(worker, HANDLE_ACK.to_vec());
        }
        if untaken > 0 {
            self.complain(
                worker,
                "sent a handle with a message: no program in the primary took it, and it was closed",
            );
        }
    }

    /// An application's message to a worker, and a handle that goes with it (`worker.send(message, handle)`).
    pub(in crate::primary) fn send_handle(
        &mut self,
        worker: WorkerId,
        message: &Value,
        handle: Handle,
    ) -> Result<(), Unsent> {
        let Some(channel) = self.channel_mut(worker) else {
            let error = MessageError::Disconnected;
            return Err(Unsent { error, handle });
        };
        channel.queue_handle(outgoing::user_handle(message, handle.kind()), handle)?;
        self.refresh(worker);
        Ok(())
    }
}
