//! The order of turns of one round, in which every position comes as often as it weighs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{PositionSet, Weights};
use crate::ids::Position;

/// One round of turns over all positions, and whose turn was last.
///
/// It covers ineligible positions too: they are passed over, so that the others keep their
/// proportion and the place in the round survives every change of eligibility.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    weights: Weights,
    /// How many positions it covers.
    size: u32,
    turns: Vec<Position>,
    last: Option<usize>,
}

impl Order {
    pub(super) fn new(weights: Weights) -> Self {
        Self {
            weights,
            ..Self::default()
        }
    }

    /// Covers all of `eligible`. It grows at once but shrinks late, so that a position that comes
    /// and goes does not have it made anew each time.
    pub(super) fn cover(&mut self, eligible: &PositionSet) {
        let span = eligible.span();
        if span > self.size || span < self.size / 2 {
            self.size = span;
            self.turns = one_round(span, &self.weights);
            // With equal weights, turns are positions, and the place in the round keeps its meaning.
            self.last = self.last.filter(|_| self.weights.are_equal());
        }
    }

    /// Takes the next turn of an eligible position.
    pub(super) fn step(&mut self, eligible: &PositionSet) -> Option<Position> {
        let turn = self.following(eligible).next()?;
        self.last = Some(turn);
        self.turns.get(turn).copied()
    }

    /// The turns of eligible positions from the next one on, one round of them.
    pub(super) fn following(&self, eligible: &PositionSet) -> impl Iterator<Item = usize> {
        let count = self.turns.len();
        let next = self.last.map_or(0, |last| last + 1);
        let next = if next < count { next } else { 0 };
        (0..count)
            .map(move |step| (next + step) % count)
            .filter(|&turn| eligible.contains(self.turns[turn]))
    }

    /// Whose turn it is.
    pub(super) fn position(&self, turn: usize) -> Option<Position> {
        self.turns.get(turn).copied()
    }

    /// The place in the round is now behind this turn.
    pub(super) fn set_last(&mut self, turn: usize) {
        self.last = Some(turn);
    }
}

/// The turns of positions `0..size`, as many for each as it weighs, evenly spaced.
///
/// Turn number `k` of a position with weight `w`, in a round of `total`, has the window from
/// `k × total / w` to `(k + 1) × total / w`. At each step, of those whose window has begun, the one
/// whose window ends first takes its turn, the shortest window first. With these windows, none is ever missed (Baruah et al.,
/// "Proportionate progress", 1996), so no position is ever a whole turn ahead or behind.
fn one_round(size: u32, weights: &Weights) -> Vec<Position> {
    let weight = |number: u32| u64::from(weights.of(Position(number)));
    let total: u64 = (0..size).map(weight).sum();
    let mut ahead: BinaryHeap<_> = (0..size)
        .filter(|&number| weight(number) > 0)
        .map(|number| Reverse((0_u64, number, 0_u64)))
        .collect();
    let mut open = BinaryHeap::new();
    let mut turns = Vec::new();
    for step in 0..total {
        while let Some(&Reverse((begin, number, turn))) = ahead.peek() {
            if begin > step {
                break;
            }
            ahead.pop();
            let end = ((turn + 1) * total).div_ceil(weight(number));
            open.push(Reverse((end, end - begin, number, turn)));
        }
        let Some(Reverse((_, _, number, turn))) = open.pop() else {
            break;
        };
        turns.push(Position(number));
        if turn + 1 < weight(number) {
            let begin = (turn + 1) * total / weight(number);
            ahead.push(Reverse((begin, number, turn + 1)));
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(weights: &str) -> Vec<u32> {
        let size = u32::try_from(weights.split(',').count()).unwrap();
        let turns = one_round(size, &weights.parse().unwrap());
        turns.into_iter().map(|position| position.0).collect()
    }

    #[test]
    fn turns_are_interleaved() {
        assert_eq!(round("1,1,1,1"), [0, 1, 2, 3]);
        assert_eq!(round("3,1"), [0, 0, 0, 1]);
        assert_eq!(round("3,1,1"), [0, 0, 1, 0, 2]);
        assert_eq!(round("1,1,3"), [2, 2, 0, 2, 1]);
        assert_eq!(round("2,0,2"), [0, 2, 0, 2]);
        assert_eq!(round("5,1,1"), [0, 0, 0, 1, 0, 0, 2]);
    }

    proptest! {
        #[test]
        fn nobody_is_ever_a_whole_turn_ahead_or_behind(
            weights in proptest::collection::vec(0_u16..40, 1..24)
        ) {
            let size = u32::try_from(weights.len()).unwrap();
            let total: usize = weights.iter().copied().map(usize::from).sum();
            prop_assume!(total > 0);
            let turns = one_round(size, &Weights::new(weights.clone()).unwrap());
            prop_assert_eq!(turns.len(), total);
            let mut had = vec![0_usize; weights.len()];
            for (step, position) in turns.into_iter().enumerate() {
                had[usize::try_from(position.0).unwrap()] += 1;
                for (&had, &weight) in had.iter().zip(&weights) {
                    // had = (step + 1) × weight / total, give or take less than one
                    let due = (step + 1) * usize::from(weight);
                    prop_assert!((had * total).abs_diff(due) < total);
                }
            }
            prop_assert!(had.iter().zip(&weights).all(|(&had, &weight)| had == usize::from(weight)));
        }
    }
}
