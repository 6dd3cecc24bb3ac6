//! Round robin: the next position in turn.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Policy;
use crate::ids::Position;

/// Takes turns in the order of positions. A position that may have nothing now is passed over and
/// keeps no claim to the turns it missed, so one that was slow gets no burst afterwards.
#[derive(Debug, Default)]
pub struct RoundRobin {
    last: Option<Position>,
}

impl Policy for RoundRobin {
    fn choose(&mut self, eligible: &BTreeSet<Position>) -> Option<Position> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let chosen = eligible
            .range((after, Bound::Unbounded))
            .next()
            .or_else(|| eligible.first())
            .copied()?;
        self.last = Some(chosen);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn positions(numbers: &[u32]) -> BTreeSet<Position> {
        numbers.iter().copied().map(Position).collect()
    }

    #[test]
    fn takes_turns_in_order_and_wraps() {
        let mut policy = RoundRobin::default();
        let all = positions(&[0, 1, 2]);
        let chosen: Vec<_> = (0..7)
            .filter_map(|_| policy.choose(&all))
            .map(|p| p.0)
            .collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn passes_over_a_position_that_is_missing_without_repaying_it() {
        let mut policy = RoundRobin::default();
        let all = positions(&[0, 1, 2]);
        assert_eq!(policy.choose(&all), Some(Position(0)));
        assert_eq!(policy.choose(&positions(&[0, 2])), Some(Position(2)));
        assert_eq!(policy.choose(&all), Some(Position(0)));
        assert_eq!(policy.choose(&all), Some(Position(1)));
    }

    #[test]
    fn nothing_eligible_means_no_choice() {
        assert_eq!(RoundRobin::default().choose(&BTreeSet::new()), None);
    }

    proptest! {
        #[test]
        fn k_times_n_choices_put_exactly_k_on_each(n in 1_u32..64, k in 1_u32..20) {
            let all: BTreeSet<_> = (0..n).map(Position).collect();
            let mut policy = RoundRobin::default();
            let mut counts = BTreeMap::new();
            for _ in 0..n * k {
                *counts.entry(policy.choose(&all)).or_insert(0) += 1;
            }
            prop_assert!(counts.values().all(|&count| count == k));
        }

        #[test]
        fn only_eligible_positions_are_chosen(rounds in proptest::collection::vec(
            proptest::collection::btree_set(0_u32..32, 1..8), 1..50)) {
            let mut policy = RoundRobin::default();
            for eligible in rounds {
                let eligible: BTreeSet<_> = eligible.into_iter().map(Position).collect();
                let chosen = policy.choose(&eligible);
                prop_assert!(chosen.is_some_and(|position| eligible.contains(&position)));
            }
        }
    }
}
