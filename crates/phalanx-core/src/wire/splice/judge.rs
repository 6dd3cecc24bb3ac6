//! Whose an internal message is.

use super::{FIRST_NUMBER, KEY_PREFIX, Serialization};
use crate::wire::from_worker::{parse_frequent, parse_internal, returned};
use crate::wire::{FromWorker, HANDLE, Target, internal_command};

/// A handle with a longer message is none of phalanx's. The key of a listener is an address, a port and little more.
const RETURN_MAX: usize = 4 << 10;

/// What becomes of an internal message of a worker.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever stands between must handle each"
)]
pub enum OfWorker {
    /// It is for phalanx, and Node does not see it.
    Taken(FromWorker),
    /// phalanx takes note of it, and Node gets it.
    Noted(FromWorker),
    /// It answers the oldest handle that the worker was sent and has not answered, whoever sent that.
    Answer {
        /// Whether the descriptor had come.
        arrived: bool,
    },
    /// Node gets it, with a descriptor.
    Handle,
    /// Node gets it.
    Forwarded,
}

/// Judges an internal message of a worker. What cannot be read is for Node to complain of.
#[must_use]
pub fn judge_of_worker(frame: &[u8], serialization: Serialization) -> OfWorker {
    if serialization == Serialization::Json
        && let Some(frequent) = frame.strip_suffix(b"\n").and_then(parse_frequent)
    {
        return judge(frequent);
    }
    if serialization.command(frame) == Some(HANDLE) {
        return judge_handle(frame, serialization);
    }
    let Ok(value) = serialization.value(frame) else {
        return OfWorker::Forwarded;
    };
    match internal_command(&value) {
        Some(
            command @ ("NODE_CLUSTER" | "NODE_PHALANX" | "NODE_HANDLE_ACK" | "NODE_HANDLE_NACK"),
        ) => {
            match parse_internal(command, &value) {
                Ok(message) => judge(message),
                // Nobody but phalanx knows what to do with its own messages.
                Err(_) if command == "NODE_PHALANX" => OfWorker::Taken(FromWorker::Ignored),
                Err(_) => OfWorker::Forwarded,
            }
        }
        _ => OfWorker::Forwarded,
    }
}

/// A handle is the application's, but for a connection that a full worker gives back: that message is short.
fn judge_handle(frame: &[u8], serialization: Serialization) -> OfWorker {
    if frame.len() > RETURN_MAX {
        return OfWorker::Handle;
    }
    let value = serialization.value(frame).ok();
    let returned = value.and_then(|value| returned(value.get("msg")?));
    returned.map_or(OfWorker::Handle, OfWorker::Taken)
}

fn judge(message: FromWorker) -> OfWorker {
    match message {
        FromWorker::HandleAck => OfWorker::Answer { arrived: true },
        FromWorker::HandleNack => OfWorker::Answer { arrived: false },
        FromWorker::Accepted { ack, .. } if ack >= FIRST_NUMBER => OfWorker::Taken(message),
        FromWorker::QueryServer { seq, mut request } => match request.target {
            Target::Tcp { .. } | Target::UnixPath { .. } | Target::UnixAbstract(_) => {
                request.key.insert_str(0, KEY_PREFIX);
                OfWorker::Taken(FromWorker::QueryServer { seq, request })
            }
            // The descriptor is one of the primary's, and datagrams have no connections.
            Target::Udp { .. } | Target::Descriptor(_) | Target::DatagramDescriptor(_) => {
                OfWorker::Forwarded
            }
        },
        FromWorker::Close { ref key } if key.starts_with(KEY_PREFIX) => OfWorker::Taken(message),
        FromWorker::Listening(mut request) => {
            request.key.insert_str(0, KEY_PREFIX);
            OfWorker::Noted(FromWorker::Listening(request))
        }
        // Node acknowledges it.
        FromWorker::Leaving { seq: Some(_) } => OfWorker::Noted(FromWorker::Leaving { seq: None }),
        FromWorker::Online => OfWorker::Noted(message),
        FromWorker::Leaving { seq: None }
        | FromWorker::Board { .. }
        | FromWorker::Duplicates { .. }
        | FromWorker::Full { .. }
        | FromWorker::Returned { .. }
        | FromWorker::Load(_)
        | FromWorker::Holds { .. }
        | FromWorker::Loop { .. }
        | FromWorker::Health(_)
        | FromWorker::Patience { .. } => OfWorker::Taken(message),
        FromWorker::Accepted { .. }
        | FromWorker::Close { .. }
        | FromWorker::Handle { .. }
        | FromWorker::SocketsClosing { .. }
        | FromWorker::SocketCount { .. }
        | FromWorker::Ignored
        | FromWorker::User(_) => OfWorker::Forwarded,
    }
}

/// What becomes of an internal message of Node's primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever stands between must handle each"
)]
pub enum OfPrimary {
    /// The worker is to leave: it gets this, and what comes behind it, when nothing is on its way to it any more.
    Disconnect,
    /// The worker gets it, with a descriptor, and will answer that.
    Handle,
    /// The worker gets it.
    Forwarded,
}

/// Judges an internal message of Node's primary.
#[must_use]
pub fn judge_of_primary(frame: &[u8], serialization: Serialization) -> OfPrimary {
    if serialization.command(frame) == Some(HANDLE) {
        return OfPrimary::Handle;
    }
    let Ok(value) = serialization.value(frame) else {
        return OfPrimary::Forwarded;
    };
    match internal_command(&value) {
        Some("NODE_CLUSTER") if value["act"] == "disconnect" => OfPrimary::Disconnect,
        _ => OfPrimary::Forwarded,
    }
}
