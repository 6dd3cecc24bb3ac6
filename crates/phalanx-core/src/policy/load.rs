//! What is known of the load of a position.

use super::PositionSet;
use crate::ids::Position;

/// A policy that compares loads looks at this many eligible positions for one connection, the next
/// in turn. Up to so many it finds the best of all; beyond, the best of a group that changes with each
/// connection. The kernel program may only run loops with a bound, and its cost should have one too.
pub const SCAN_MAX: usize = 64;

/// Counts and times beyond these are taken for these: nothing that a worker publishes, torn or
/// absurd, can make a score overflow.
const OUTSTANDING_MAX: u32 = 1 << 20;
const RESPONSE_MAX_US: u32 = 1 << 30;

/// Above every score of a position whose response time is known.
const UNPROVEN: u64 = 1 << 54;

/// The load of one position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Load {
    /// Open connections, those included that wait to be accepted.
    pub open: u32,
    /// What awaits an answer: requests that were read, and connections that were not yet accepted.
    pub outstanding: u32,
    /// Response time in µs: an average that forgets, and that a slow answer raises at once
    /// ("peak EWMA"). 0 while unknown.
    pub response_us: u32,
}

impl Load {
    /// How long a further request can expect to take; lower is better.
    ///
    /// A position without known response time is tried with one request. Until that is answered, it
    /// comes after all others, lest it be flooded just because nothing bad is known of it.
    #[must_use]
    pub fn score(&self) -> u64 {
        let outstanding = u64::from(self.outstanding.min(OUTSTANDING_MAX));
        match (self.response_us.min(RESPONSE_MAX_US), outstanding) {
            (0, 0) => 0,
            (0, _) => UNPROVEN + outstanding,
            (response, _) => u64::from(response) * (outstanding + 1),
        }
    }
}

/// Where loads are looked up.
pub trait Loads {
    /// The position's load now; that of an idle one if nothing is known.
    fn load(&self, position: Position) -> Load;
}

/// Nothing is known of anyone.
impl Loads for () {
    fn load(&self, _position: Position) -> Load {
        Load::default()
    }
}

/// By position.
impl Loads for [Load] {
    fn load(&self, position: Position) -> Load {
        usize::try_from(position.0)
            .ok()
            .and_then(|index| self.get(index))
            .copied()
            .unwrap_or_default()
    }
}

impl Loads for Vec<Load> {
    fn load(&self, position: Position) -> Load {
        self.as_slice().load(position)
    }
}

/// The eligible position with the lowest cost; among several, the next in turn after `last`.
pub(super) fn cheapest(
    eligible: &PositionSet,
    last: Option<Position>,
    mut cost: impl FnMut(Position) -> u64,
) -> Option<Position> {
    let candidates = eligible.iter_after(last).take(SCAN_MAX);
    candidates.min_by_key(|&position| cost(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_values_keep_their_rank_and_never_overflow() {
        let absurd = Load {
            open: u32::MAX,
            outstanding: u32::MAX,
            response_us: u32::MAX,
        };
        let slow = Load {
            outstanding: 1000,
            response_us: 60_000_000,
            ..Load::default()
        };
        assert!(slow.score() < absurd.score());
        assert!(absurd.score() < UNPROVEN);
    }

    #[test]
    fn an_unproven_position_is_tried_once() {
        let busy = Load {
            outstanding: 50,
            response_us: 2_000,
            ..Load::default()
        };
        let unproven = Load::default();
        let tried = Load {
            outstanding: 1,
            ..unproven
        };
        assert!(unproven.score() < busy.score());
        assert!(busy.score() < tried.score());
    }
}
