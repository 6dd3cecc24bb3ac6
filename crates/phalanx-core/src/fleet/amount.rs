//! A number of workers, absolute or as a share of the fleet: `1`, `25%`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// How many workers, absolute or in percent of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a count or a share; there is no third"
)]
pub enum Amount {
    /// This many workers.
    Count(u32),
    /// This share of the target, from 0 to 100 percent.
    Percent(u8),
}

/// Why a text is no [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AmountError {
    /// It is neither a number nor a percentage.
    #[error("expected a number of workers such as 1, or a share such as 25%")]
    NotANumber,
    /// The share is above the whole.
    #[error("a share of the workers is at most 100%")]
    AboveWhole,
}

impl Amount {
    /// The number of workers, rounded up: how many may be added.
    #[must_use]
    pub fn rounded_up(self, target: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => share(target, percent, 99),
        }
    }

    /// The number of workers, rounded down: how many may be missing.
    #[must_use]
    pub fn rounded_down(self, target: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => share(target, percent, 0),
        }
    }

    /// True for nought of anything.
    #[must_use]
    pub fn is_zero(self) -> bool {
        match self {
            Self::Count(count) => count == 0,
            Self::Percent(percent) => percent == 0,
        }
    }
}

/// `percent` of `target`, rounded down after adding `round_up` hundredths.
fn share(target: u32, percent: u8, round_up: u64) -> u32 {
    let hundredths = u64::from(target) * u64::from(percent) + round_up;
    u32::try_from(hundredths / 100).unwrap_or(u32::MAX)
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let Some(share) = text.strip_suffix('%') else {
            return digits(text).map(Self::Count);
        };
        match u8::try_from(digits(share)?) {
            Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
            Ok(_) | Err(_) => Err(AmountError::AboveWhole),
        }
    }
}

/// Digits and nothing else: `u32::from_str` would take a sign too.
fn digits(text: &str) -> Result<u32, AmountError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| AmountError::NotANumber)
    } else {
        Err(AmountError::NotANumber)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn surge_rounds_up_and_unavailable_rounds_down() {
        let quarter = Amount::Percent(25);
        assert_eq!((quarter.rounded_up(10), quarter.rounded_down(10)), (3, 2));
        assert_eq!((quarter.rounded_up(1), quarter.rounded_down(1)), (1, 0));
        assert_eq!((quarter.rounded_up(0), quarter.rounded_down(0)), (0, 0));
        assert_eq!(Amount::Percent(100).rounded_down(u32::MAX), u32::MAX);
    }

    #[test]
    fn text_that_is_no_amount_is_refused() {
        for text in [
            "",
            "%",
            "+1",
            "-1",
            "1.5",
            "25 %",
            "%25",
            "ten",
            "4294967296",
        ] {
            assert_eq!(
                text.parse::<Amount>(),
                Err(AmountError::NotANumber),
                "{text:?}"
            );
        }
        for text in ["101%", "256%", "1000%"] {
            assert_eq!(
                text.parse::<Amount>(),
                Err(AmountError::AboveWhole),
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_back(count: u32, percent in 0_u8..=100) {
            for amount in [Amount::Count(count), Amount::Percent(percent)] {
                prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            }
        }

        #[test]
        fn parsing_never_panics(text in ".{0,12}") {
            let _either_way = text.parse::<Amount>();
        }

        #[test]
        fn rounding_differs_by_at_most_one(percent in 0_u8..=100, target: u32) {
            let amount = Amount::Percent(percent);
            let (up, down) = (amount.rounded_up(target), amount.rounded_down(target));
            prop_assert!(down <= up && up - down <= 1 && up <= target);
        }
    }
}
