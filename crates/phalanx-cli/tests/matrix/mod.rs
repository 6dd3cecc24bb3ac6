//! The servers of `docs/programs.md`.
#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation of a test is a panic"
)]

pub(crate) mod table;
