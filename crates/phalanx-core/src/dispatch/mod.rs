//! Decisions on how events, connections and listeners come to workers, one file a concern.

pub mod allow;
pub mod any_port;
pub mod auto_rebalance;
pub mod complaints;
pub mod drain;
pub mod full;
pub mod hang;
pub mod intercept;
pub mod listener;
pub mod liveness;
pub mod machine;
pub mod readiness;
pub mod rebalance;
pub mod slots;
pub mod turn;
pub mod vitals;
pub mod worker;
