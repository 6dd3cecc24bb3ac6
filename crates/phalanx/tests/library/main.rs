//! The library, proven with real processes: the tests drive `probe` (see `programs/`) and look at what
//! comes out, at `/proc`, and at what clients get.

mod builder;
mod channel;
mod handoff;
mod listen;
mod loss;
mod parity;
mod probe;
mod role;
mod serve;
mod worker;
