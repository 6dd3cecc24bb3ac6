//! Decisions on how connections and listeners come to workers, one file a concern.

pub mod any_port;
pub mod intercept;
pub mod liveness;
