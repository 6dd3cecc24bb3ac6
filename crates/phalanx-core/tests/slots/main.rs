//! The slots of a listener, simulated with a kernel that keeps the queues: workers that start, serve, get stuck, leave and
//! die at any moment, with and without queues that move.
//!
//! Four rules hold in every history: nobody is refused and nothing that waits is lost, handshakes that go on included; newcomers go to
//! workers that serve, as long as there is one; where queues move and somebody serves, nobody waits for long where nobody accepts;
//! whatever waits is served in the end. That each of them is looked after is shown by planting a fault (`fault`).
//!
//! `PHALANX_SLOT_HISTORIES` says how many to play, `PHALANX_SLOT_SEED` replays one aloud.

#[cfg(test)]
mod fault;
#[cfg(test)]
#[path = "../simulation/histories.rs"]
mod histories;
#[cfg(test)]
mod kernel;
#[cfg(test)]
#[path = "../simulation/rng.rs"]
#[expect(dead_code, reason = "not every simulation throws every kind of dice")]
mod rng;
#[cfg(test)]
mod run;
#[cfg(test)]
mod world;
