//! Decisions on how connections and listeners come to workers, one file a concern.

pub mod intercept;
