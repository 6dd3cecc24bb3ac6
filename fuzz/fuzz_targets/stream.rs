//! A channel, in pieces.
#![no_main]

#[path = "../../crates/phalanx-core/tests/any_bytes/entries.rs"]
#[allow(dead_code, reason = "each target has one entry")]
mod entries;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| entries::stream(input.1, usize::from(input.0)));
