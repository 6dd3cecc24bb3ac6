//! The worker channel: Node.js's own IPC, one JSON value a line, descriptors beside the line.
//!
//! This module turns lines into messages and messages into lines; it reads and writes nothing itself.
//! Both directions live here, so that a Rust worker and an unmodified Node worker are one code path.
//!
//! Rules that every reader of this module relies on (observed on Node 18 to 26):
//! * A message is *internal* when it is an object whose `cmd` is a string that starts with `NODE_`
//!   and is longer than that; everything else belongs to the application.
//! * A descriptor travels only with a `NODE_HANDLE` line, one descriptor a line.
//! * `NODE_HANDLE_ACK` and `NODE_HANDLE_NACK` carry no number: they answer handles in the order sent.

pub mod advanced;
mod frames;
mod from_worker;
mod json;
mod pacing;
mod place;
pub mod splice;
mod to_worker;

pub use frames::{Frame, Frames, MAX_MESSAGE_BYTES, MAX_MESSAGE_TO_WORKER_BYTES};
pub use from_worker::{
    FromWorker, HoldReport, ListenRequest, LoadReport, MAX_DUPLICATES, Target,
    parse_advanced_from_worker, parse_from_worker, take_long_from_worker,
};
pub use json::{JsonCheck, MAX_DEPTH};
pub use pacing::Pacing;
pub use to_worker::{
    DrainLimits, HandleType, ReplyBody, Shed, SocketName, ToWorker, outgoing, parse_to_worker,
};

use serde_json::Value;

/// The command of what a descriptor comes with.
const HANDLE: &[u8] = b"NODE_HANDLE";
/// The line that acknowledges a handle.
pub const HANDLE_ACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
/// The line that refuses a handle (none came with its message).
pub const HANDLE_NACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n";

/// How often a handle that did not arrive is sent again, as Node does it.
pub const HANDLE_RETRIES: u8 = 3;

/// A line that is not what the protocol allows. Blast radius: this message; the channel goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The line is no JSON.
    #[error("message is not JSON")]
    Json(#[source] serde_json::Error),
    /// The line is JSON but not UTF-8.
    #[error("message is not UTF-8")]
    Text(#[source] std::str::Utf8Error),
    /// The line has more levels than anything here reads.
    #[error("message is nested deeper than {MAX_DEPTH} levels")]
    Deep,
    /// A message of the protocol is longer than any of them has to be.
    #[error("internal message of {bytes} bytes is too long")]
    Long {
        /// Its length.
        bytes: usize,
    },
    /// The message is damaged, or says what JSON cannot say.
    #[error("message in V8's serialization {0}")]
    Advanced(&'static str),
    /// An internal message lacks a field or has one of the wrong type.
    #[error("internal message {act:?} lacks a usable field {field:?}")]
    Field {
        /// The message's `act`, or its `cmd` where it has none.
        act: String,
        /// The field.
        field: &'static str,
    },
}

/// The `cmd` of an internal message, or nothing for an application's message.
fn internal_command(value: &Value) -> Option<&str> {
    let command = value.as_object()?.get("cmd")?.as_str()?;
    (command.len() > "NODE_".len() && command.starts_with("NODE_")).then_some(command)
}

/// Parses a line that may be internal. Lines without the marker skip the look at `cmd`.
fn parse_value(line: &[u8]) -> Result<Value, WireError> {
    serde_json::from_slice(line).map_err(WireError::Json)
}

fn field_error(act: &str, field: &'static str) -> WireError {
    WireError::Field {
        act: act.to_owned(),
        field,
    }
}

fn unsigned(value: &Value, act: &str, field: &'static str) -> Result<u64, WireError> {
    value
        .get(field)
        .and_then(Value::as_u64)
        .ok_or_else(|| field_error(act, field))
}

/// A key is a string or a number; both are kept as text.
fn key_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
