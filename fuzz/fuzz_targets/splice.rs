//! What passes between Node's primary and its worker, in pieces.
#![no_main]

#[path = "../../crates/phalanx-core/tests/any_bytes/entries.rs"]
#[allow(dead_code, reason = "each target has one entry")]
mod entries;

use phalanx_core::wire::splice::Serialization;

libfuzzer_sys::fuzz_target!(|input: (u8, bool, &[u8])| {
    let serialization = if input.1 {
        Serialization::Advanced
    } else {
        Serialization::Json
    };
    entries::spliced(input.2, usize::from(input.0), serialization);
});
