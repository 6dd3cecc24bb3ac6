//! The library, proven with real processes: the tests drive `probe` (see `programs/`) and look at what
//! comes out, at `/proc`, and at what clients get.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic, in its helpers too"
)]

mod builder;
mod channel;
mod handles;
mod handoff;
mod listen;
mod loss;
mod parity;
mod probe;
mod role;
mod serve;
mod served;
mod start;
mod worker;
