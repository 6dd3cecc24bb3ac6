//! Full workers: those whose servers take no more connections for now (Node's `server.maxConnections`).
//!
//! A connection that reaches a full worker is closed by it. So a full one gets nothing while another has room. When all
//! are full somebody has to close what comes: then all get their share again, as if none were.

use std::collections::BTreeSet;

use crate::ids::Position;
use crate::policy::PositionSet;

/// Who of those that could take connections gets them.
#[must_use]
pub fn with_room(serving: &PositionSet, full: &BTreeSet<Position>) -> PositionSet {
    let mut room = serving.clone();
    for &position in full {
        room.remove(position);
    }
    if room.is_empty() {
        serving.clone()
    } else {
        room
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(positions: &[u32]) -> PositionSet {
        positions.iter().copied().map(Position).collect()
    }

    fn full(positions: &[u32]) -> BTreeSet<Position> {
        positions.iter().copied().map(Position).collect()
    }

    #[test]
    fn a_full_one_gets_nothing_while_another_has_room() {
        assert_eq!(with_room(&set(&[0, 1, 2]), &full(&[1])), set(&[0, 2]));
        assert_eq!(with_room(&set(&[0, 1]), &full(&[])), set(&[0, 1]));
    }

    #[test]
    fn when_all_are_full_all_have_their_share() {
        assert_eq!(with_room(&set(&[0, 1]), &full(&[0, 1])), set(&[0, 1]));
        assert_eq!(with_room(&set(&[0]), &full(&[0, 3])), set(&[0]));
    }

    proptest! {
        #[test]
        fn nobody_is_invented_and_somebody_is_left(
            serving in prop::collection::btree_set(0_u32..64, 0..20),
            full in prop::collection::btree_set(0_u32..64, 0..20),
        ) {
            let serving: PositionSet = serving.into_iter().map(Position).collect();
            let full = full.into_iter().map(Position).collect();
            let room = with_room(&serving, &full);
            prop_assert_eq!(room.is_empty(), serving.is_empty());
            prop_assert!(room.iter().all(|position| serving.contains(position)));
        }
    }
}
