//! Chooses the position for a connection. One policy a file, one trait, no clock and no I/O.
//!
//! Policies use whole numbers only and bounded loops: the kernel program in `bpf/` runs the same
//! functions, and tests hold the two against each other. What the program is given, the order of turns
//! among the eligible positions, is prepared here as well ([`Plan`]).

mod client;
mod fastest;
mod least_connections;
mod load;
mod name;
mod order;
mod plan;
mod positions;
mod power_of_two;
mod random;
mod round_robin;
mod source_hash;
mod weighted;
mod weights;

use std::fmt;

pub use client::ClientHash;
pub use fastest::Fastest;
pub use least_connections::LeastConnections;
pub use load::{Load, Loads, SCAN_MAX};
pub use name::{PolicyName, UnknownPolicy};
pub use plan::{ORDER_MAX, Plan};
pub use positions::{POSITIONS_MAX, PositionSet};
pub use power_of_two::PowerOfTwo;
pub use random::Random;
pub use round_robin::RoundRobin;
pub use source_hash::SourceHash;
pub use weighted::Weighted;
pub use weights::{InvalidWeights, WEIGHT_MAX, WEIGHTS_TOTAL_MAX, Weights};

use crate::ids::Position;

/// What a policy sees when a connection has arrived.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Field<'a> {
    /// The positions that may have a connection now: ready, not draining, with room.
    pub eligible: &'a PositionSet,
    /// The load of each position.
    pub loads: &'a dyn Loads,
    /// Who connects.
    pub client: ClientHash,
}

impl<'a> Field<'a> {
    /// The field for a connection of this client.
    #[must_use]
    pub fn new(eligible: &'a PositionSet, loads: &'a dyn Loads, client: ClientHash) -> Self {
        Self {
            eligible,
            loads,
            client,
        }
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("eligible", self.eligible)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Chooses where a connection goes.
///
/// Policies are deterministic: the same calls in the same order give the same answers.
pub trait Policy: fmt::Debug + Send {
    /// Picks one of the eligible positions. Nothing when there is none, or none that the policy
    /// gives anything to (all have weight 0): the connection waits.
    fn choose(&mut self, field: &Field<'_>) -> Option<Position>;

    /// Does a position keep its claim to a turn while it has no room, so that the others wait for it? Where
    /// connections are handed over, proportions hold only then. Such a policy goes by neither load nor client.
    fn keeps_turns(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
