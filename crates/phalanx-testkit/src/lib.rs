//! Starts real clusters, drives load, injects faults.
