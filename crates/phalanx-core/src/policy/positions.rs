//! A set of positions: one bit each, so that membership, the next in turn and the n-th are a few
//! word operations, whatever the size.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Position;

/// Positions are numbered below this: as many as a fleet may have workers.
pub const POSITIONS_MAX: u32 = 4096;

/// Positions below [`POSITIONS_MAX`].
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PositionSet {
    /// Bit `n % 64` of word `n / 64` is position `n`. The last word, if any, is not zero.
    words: Vec<u64>,
    count: u32,
}

impl PositionSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The positions `0..count`, up to the bound.
    #[must_use]
    pub fn first_of(count: u32) -> Self {
        (0..count.min(POSITIONS_MAX)).map(Position).collect()
    }

    /// Adds a position; false if it was there, or is not below [`POSITIONS_MAX`].
    pub fn insert(&mut self, position: Position) -> bool {
        if position.0 >= POSITIONS_MAX || self.contains(position) {
            return false;
        }
        let (word, bit) = place(position);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
        self.count += 1;
        true
    }

    /// Removes a position; false if it was not there.
    pub fn remove(&mut self, position: Position) -> bool {
        if !self.contains(position) {
            return false;
        }
        let (word, bit) = place(position);
        self.words[word] &= !bit;
        self.count -= 1;
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
        true
    }

    /// Is it in the set?
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        let (word, bit) = place(position);
        self.words.get(word).is_some_and(|&bits| bits & bit != 0)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The lowest.
    #[must_use]
    pub fn first(&self) -> Option<Position> {
        self.at_or_after(0)
    }

    /// The highest.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        let (word, bits) = self.words.iter().enumerate().next_back()?;
        let highest = bits.checked_ilog2()?;
        Some(Position(in_word(word) + highest))
    }

    /// One more than the highest; 0 if there are none.
    #[must_use]
    pub fn span(&self) -> u32 {
        self.last().map_or(0, |position| position.0 + 1)
    }

    /// The next in turn: the lowest above `last`, else the lowest of all.
    #[must_use]
    pub fn after(&self, last: Option<Position>) -> Option<Position> {
        last.and_then(|last| self.at_or_after(last.0.saturating_add(1)))
            .or_else(|| self.first())
    }

    /// The one that has `index` others below it.
    #[must_use]
    pub fn nth(&self, index: u32) -> Option<Position> {
        let mut before = index;
        for (word, &bits) in self.words.iter().enumerate() {
            let here = bits.count_ones();
            if before < here {
                let mut rest = bits;
                for _ in 0..before {
                    rest &= rest - 1;
                }
                return Some(Position(in_word(word) + rest.trailing_zeros()));
            }
            before -= here;
        }
        None
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        let mut next = self.first();
        std::iter::from_fn(move || {
            let now = next?;
            next = self.at_or_after(now.0 + 1);
            Some(now)
        })
    }

    /// All of them, in turn: those above `last` first.
    pub fn iter_after(&self, last: Option<Position>) -> impl Iterator<Item = Position> + '_ {
        let mut next = self.after(last);
        (0..self.count).map_while(move |_| {
            let now = next?;
            next = self.after(Some(now));
            Some(now)
        })
    }

    /// The bits: bit `n % 64` of word `n / 64` is position `n`. Words that are missing are zero.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn at_or_after(&self, lowest: u32) -> Option<Position> {
        let (first_word, bit) = place(Position(lowest));
        let mut mask = !(bit - 1);
        for (word, &bits) in self.words.iter().enumerate().skip(first_word) {
            let rest = bits & mask;
            if rest != 0 {
                return Some(Position(in_word(word) + rest.trailing_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }
}

/// Its word, and its bit there.
fn place(position: Position) -> (usize, u64) {
    let word = usize::try_from(position.0 / 64).unwrap_or(usize::MAX);
    (word, 1 << (position.0 % 64))
}

/// The position of the word's lowest bit.
fn in_word(word: usize) -> u32 {
    u32::try_from(word * 64).unwrap_or(POSITIONS_MAX)
}

impl fmt::Debug for PositionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|p| p.0)).finish()
    }
}

impl Extend<Position> for PositionSet {
    fn extend<I: IntoIterator<Item = Position>>(&mut self, positions: I) {
        for position in positions {
            self.insert(position);
        }
    }
}

impl FromIterator<Position> for PositionSet {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        let mut set = Self::new();
        set.extend(positions);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_beyond_the_bound_is_never_a_member() {
        let mut set = PositionSet::new();
        assert!(!set.insert(Position(POSITIONS_MAX)));
        assert!(!set.contains(Position(u32::MAX)));
        assert!(!set.remove(Position(u32::MAX)));
        assert!(set.insert(Position(POSITIONS_MAX - 1)));
        assert_eq!(set.span(), POSITIONS_MAX);
        assert_eq!(
            set.after(Some(Position(u32::MAX))),
            Some(Position(POSITIONS_MAX - 1))
        );
    }

    proptest! {
        #[test]
        fn it_answers_as_an_ordered_set_does(
            changes in proptest::collection::vec((any::<bool>(), 0..POSITIONS_MAX), 0..200),
            last in proptest::option::of(0..POSITIONS_MAX + 2),
        ) {
            let (mut set, mut model) = (PositionSet::new(), BTreeSet::new());
            for (add, number) in changes {
                if add {
                    prop_assert_eq!(set.insert(Position(number)), model.insert(number));
                } else {
                    prop_assert_eq!(set.remove(Position(number)), model.remove(&number));
                }
            }
            let last = last.map(Position);
            let next = last
                .and_then(|last| model.range(last.0 + 1..).next())
                .or_else(|| model.first());
            let turned = model
                .iter()
                .skip_while(|&number| Some(number) != next)
                .chain(model.iter().take_while(|&number| Some(number) != next));
            prop_assert!(set.iter_after(last).map(|p| p.0).eq(turned.copied()));
            prop_assert!(set.iter().map(|p| p.0).eq(model.iter().copied()));
            prop_assert_eq!(set.after(last).map(|p| p.0), next.copied());
            prop_assert_eq!(set.last().map(|p| p.0), model.last().copied());
            prop_assert_eq!(set.first().map(|p| p.0), model.first().copied());
            prop_assert_eq!(usize::try_from(set.len()).unwrap(), model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            for (index, number) in (0..).zip(&model) {
                prop_assert_eq!(set.nth(index), Some(Position(*number)));
            }
            prop_assert_eq!(set.nth(set.len()), None);
            let again: PositionSet = model.iter().copied().map(Position).collect();
            prop_assert_eq!(again, set, "equal whatever the history");
        }
    }
}
