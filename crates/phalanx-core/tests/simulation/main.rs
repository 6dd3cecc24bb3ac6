//! The seeded simulation of the fleet: thousands of histories with faults, each from a seed, each
//! judged after every step.
//!
//! `PHALANX_SIM_HISTORIES` says how many to play (2,000 unless told, 256 in a debug build),
//! `PHALANX_SIM_FIRST_SEED` where to begin (1), and `PHALANX_SIM_SEED` replays the history of one
//! seed, printing every event and action.
//!
//! The parts: `plan` draws what a history is made of, `process`, `world` and `around` play it,
//! `known`, `model`, `reports`, `counts`, `judge`, `replies`, `turns` and `spares` watch it from outside, `coverage` counts what it reached, and `history` tells its story.

#[cfg(test)]
mod around;
#[cfg(test)]
mod counts;
#[cfg(test)]
mod coverage;
#[cfg(test)]
#[expect(dead_code, reason = "this simulation plays its histories on all cores")]
mod histories;
#[cfg(test)]
mod history;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod known;
#[cfg(test)]
mod model;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod process;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod reports;
#[cfg(test)]
mod rng;
#[cfg(test)]
mod run;
#[cfg(test)]
mod spares;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod world;
