//! Fleet and dispatch simulated together: connections with owners, crashes, drains, reloads, scaling, stuck workers,
//! lost messages. The fleet machine, the dispatch machine, the ledger and the drains are the product's own; what lies
//! between them is short, and stands here as it stands in the primary.
//!
//! Four rules hold in every history (`judge`): a connection has one owner, or is answered; nothing goes to who must not
//! have it; no listener closes while its app lives; every drain ends. That each of them is looked after is shown by
//! planting a fault (`fault`) that breaks it.
//!
//! `PHALANX_JOINT_HISTORIES` says how many to play, `PHALANX_JOINT_SEED` replays one aloud. What is not simulated here:
//! shared sockets, whose queue is the kernel's, and slots, which `tests/slots` simulates.

#[cfg(test)]
mod dispatch;
#[cfg(test)]
mod fault;
#[cfg(test)]
#[path = "../simulation/histories.rs"]
mod histories;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod offers;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod process;
#[cfg(test)]
#[path = "../simulation/rng.rs"]
mod rng;
#[cfg(test)]
mod run;
#[cfg(test)]
mod world;
