//! The system calls of phalanx behind safe functions: processes, fd passing, sockets, limits, steering.
//!
//! This crate is the only one of the workspace with unsafe code. It knows system calls, not
//! clusters: no policy, no retry beyond `EINTR`, no logging, no runtime. Every function is
//! synchronous and, but for [`process::spawn`], returns at once; whoever needs to wait registers
//! the descriptor (all of them are non-blocking) with an event loop.
//!
//! # Invariants
//!
//! * Every descriptor made here is close-on-exec from its creation. A worker inherits what its
//!   [`process::SpawnPlan`] lists, and nothing else.
//! * A descriptor *without* the close-on-exec flag is therefore one that this process inherited:
//!   that is how [`socket::inherited_socket`] and [`channel::take_over`] know what they may take.
//! * Between fork and exec the new process makes async-signal-safe calls only, and it never
//!   returns into the supervisor.
//! * A process is addressed through its pidfd. Its number is used only while it is unreaped.
//!
//! Linux only. The kernel must be 5.4 or newer (`waitid` on a pidfd).

pub mod accounts;
pub mod allocator;
pub mod cgroup;
pub mod channel;
pub mod clock;
pub mod connections;
pub mod cpu;
pub mod delay;
pub mod directory;
pub mod env;
mod fd;
pub mod identity;
pub mod intercept;
pub mod limits;
pub mod listening;
pub mod lock;
mod mapping;
pub mod marker;
pub mod memory;
pub mod notify;
pub mod pipe;
pub mod pressure;
pub mod process;
mod procfs;
pub mod random;
pub mod scoreboard;
pub mod signal;
pub mod socket;
pub mod steering;
pub mod terminal;
pub mod waiting;
