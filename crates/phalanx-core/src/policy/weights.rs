//! How much of the connections each position gets, relative to the others.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::POSITIONS_MAX;
use crate::ids::Position;

/// A single weight is at most this.
pub const WEIGHT_MAX: u16 = 1000;

/// The weights that are listed add up to at most this, so that one round of
/// [`POSITIONS_MAX`] positions always fits into the kernel program's ring of
/// [`super::ORDER_MAX`] turns.
pub const WEIGHTS_TOTAL_MAX: u32 = 12_288;

/// Weights by position, written `3,1,1`. A position that is not listed has weight 1; one with
/// weight 0 gets nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Weights {
    listed: Vec<u16>,
}

/// Why a list of weights is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWeights {
    /// An entry is no whole number, or above [`WEIGHT_MAX`].
    #[error("weight {0:?} is not a whole number from 0 to {WEIGHT_MAX}: write weights as 3,1,1")]
    Entry(String),
    /// More entries than positions can be.
    #[error("{0} weights are more than the {POSITIONS_MAX} positions there can be")]
    Count(usize),
    /// Their sum is above [`WEIGHTS_TOTAL_MAX`].
    #[error("the weights add up to {0}, more than {WEIGHTS_TOTAL_MAX}: use smaller ones")]
    Total(u32),
    /// Every entry is 0.
    #[error("all weights are 0, so nobody listed would get anything")]
    AllZero,
}

impl Weights {
    /// Weights for positions 0, 1, 2 …; none listed means that all weigh the same.
    ///
    /// # Errors
    /// Entries, number or sum are out of bounds; all are 0.
    pub fn new(listed: Vec<u16>) -> Result<Self, InvalidWeights> {
        if let Some(entry) = listed.iter().find(|&&weight| weight > WEIGHT_MAX) {
            return Err(InvalidWeights::Entry(entry.to_string()));
        }
        if u32::try_from(listed.len()).map_or(true, |count| count > POSITIONS_MAX) {
            return Err(InvalidWeights::Count(listed.len()));
        }
        let total = listed.iter().copied().map(u32::from).sum();
        if total > WEIGHTS_TOTAL_MAX {
            return Err(InvalidWeights::Total(total));
        }
        if total == 0 && !listed.is_empty() {
            return Err(InvalidWeights::AllZero);
        }
        Ok(Self { listed })
    }

    /// The position's weight.
    #[must_use]
    pub fn of(&self, position: Position) -> u16 {
        usize::try_from(position.0)
            .ok()
            .and_then(|index| self.listed.get(index))
            .map_or(1, |&weight| weight)
    }

    /// Do all positions weigh 1?
    #[must_use]
    pub fn are_equal(&self) -> bool {
        self.listed.iter().all(|&weight| weight == 1)
    }
}

impl FromStr for Weights {
    type Err = InvalidWeights;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entry = |entry: &str| {
            let entry = entry.trim();
            // Digits alone: `parse` would take a sign as well.
            let digits = !entry.is_empty() && entry.bytes().all(|byte| byte.is_ascii_digit());
            let weight = entry
                .parse()
                .ok()
                .filter(|&weight| digits && weight <= WEIGHT_MAX);
            weight.ok_or_else(|| InvalidWeights::Entry(entry.to_owned()))
        };
        Self::new(text.split(',').map(entry).collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, weight) in self.listed.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{weight}")?;
        }
        Ok(())
    }
}

impl From<Weights> for String {
    fn from(weights: Weights) -> Self {
        weights.to_string()
    }
}

/// Takes what [`fmt::Display`] gives: unlike [`FromStr`], the empty text too, for no weights.
impl TryFrom<String> for Weights {
    type Error = InvalidWeights;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_by_position_and_missing_ones_are_one() {
        let weights: Weights = "3,1, 0".parse().unwrap();
        let of = |number| weights.of(Position(number));
        assert_eq!([of(0), of(1), of(2), of(3), of(4095)], [3, 1, 0, 1, 1]);
        assert_eq!(weights.to_string(), "3,1,0");
        assert!(!weights.are_equal());
        assert!(Weights::default().are_equal());
        assert!("1,1".parse::<Weights>().unwrap().are_equal());
    }

    #[test]
    fn what_cannot_be_weights_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Weights>().unwrap_err();
        for text in ["", "3,,1", "3,", "-1", "+1", "1.5", "1001", "70000", "a"] {
            assert!(matches!(refused(text), InvalidWeights::Entry(_)), "{text}");
        }
        assert_eq!(refused("0,0"), InvalidWeights::AllZero);
        assert_eq!(
            refused(&["1000"; 13].join(",")),
            InvalidWeights::Total(13_000)
        );
        assert_eq!(
            refused(&vec!["1"; 4097].join(",")),
            InvalidWeights::Count(4097)
        );
        assert!(refused("1001").to_string().contains("from 0 to 1000"));
    }

    #[test]
    fn they_are_stored_as_they_are_written() {
        for weights in [Weights::default(), "3,1,1".parse().unwrap()] {
            let text = serde_json::to_string(&weights).unwrap();
            assert_eq!(serde_json::from_str::<Weights>(&text).unwrap(), weights);
        }
        assert!(serde_json::from_str::<Weights>("\"0\"").is_err());
    }
}
