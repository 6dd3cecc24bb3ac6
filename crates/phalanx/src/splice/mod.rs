//! phalanx for programs that use Node's own `cluster`: the engine beside Node's primary, and the shim that each worker
//! is started by. Both are verbs of the command that nobody types; the npm package `phalanx-cluster` starts them.
//! docs/node-dropin.md says what it is for.
//!
//! A third process holds what the engine cannot be replaced without, and replaces it when it is killed (`holder.rs`).
//!
//! The engine ends with Node's primary: it holds the other end of a pair of sockets that the engine has as
//! descriptor [`CONTROL_NUMBER`].

mod engine;
mod hello;
mod holder;
pub(crate) mod record;
mod shim;

pub use engine::{Engine, EngineOptions};
pub(crate) use hello::line;
pub use hello::{SOCKET_VARIABLE, TOKEN_VARIABLE};
pub use holder::{HELD_VARIABLE, hold};
pub use shim::shim;

/// Where the engine finds the socket to the program that has started it.
pub const CONTROL_NUMBER: i32 = 3;
