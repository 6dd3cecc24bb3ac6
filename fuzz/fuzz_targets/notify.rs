//! Datagrams of sd_notify(3).
#![no_main]

#[path = "../../crates/phalanx-core/tests/any_bytes/entries.rs"]
#[allow(dead_code, reason = "each target has one entry")]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::notification(bytes));
