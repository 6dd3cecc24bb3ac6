//! What a worker says in V8's serialization.

use std::sync::Arc;

use super::{FromWorker, parse_internal};
use crate::wire::{HANDLE, WireError, advanced, internal_command};

/// Reads a message in the other serialization, without its length. One of the application's that JSON cannot say becomes
/// `{"$v8": hex}`.
///
/// # Errors
/// [`WireError`] when it is damaged, or an internal one that makes no sense.
pub fn parse_advanced_from_worker(value: &[u8]) -> Result<FromWorker, WireError> {
    let command = advanced::command(value);
    if command.is_some_and(|command| command != HANDLE) && value.len() > INTERNAL_MAX {
        return Err(WireError::Long { bytes: value.len() });
    }
    match (advanced::read(value), command) {
        (Ok(read), _) => match internal_command(&read) {
            None => Ok(FromWorker::User(read.to_string().into())),
            Some(command) => parse_internal(command, &read),
        },
        (Err(_), Some(HANDLE)) => Ok(FromWorker::Handle {
            message: unread(value),
        }),
        (Err(_), None) if value.first() == Some(&0xff) => Ok(FromWorker::User(unread(value))),
        (Err(error), _) => Err(error),
    }
}

/// No internal message of Node's is longer.
const INTERNAL_MAX: usize = 64 << 10;

/// A message that JSON cannot say: `{"$v8": "ff0f…"}`, its bytes as V8 has them, in hexadecimal.
fn unread(value: &[u8]) -> Arc<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(value.len() * 2 + 12);
    text.push_str("{\"$v8\":\"");
    for byte in value {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 0x0f)].into());
    }
    text.push_str("\"}");
    text.into()
}
