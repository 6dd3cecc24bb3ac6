//! What should happen next: the decisions of phalanx, free of clock, I/O and randomness of their own.
//!
//! Every machine takes an event and the time and answers with actions, so that thousands of
//! histories with faults can be simulated from a seed. The runtime in the `phalanx` crate executes the actions.

pub mod app_metrics;
pub mod backoff;
pub mod clock;
pub mod command;
pub mod dispatch;
pub mod exposition;
pub mod fleet;
pub mod health;
pub mod ids;
pub mod ledger;
pub mod leftovers;
pub mod level;
pub mod notify;
pub mod policy;
pub mod program;
pub mod python_metrics;
pub mod rng;
pub mod time;
pub mod wire;
