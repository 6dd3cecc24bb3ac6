//! One message of a channel.
#![no_main]

#[path = "../../crates/phalanx-core/tests/any_bytes/entries.rs"]
#[allow(dead_code, reason = "each target has one entry")]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::message(bytes));
