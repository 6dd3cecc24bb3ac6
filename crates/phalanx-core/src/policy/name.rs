//! The policies by name, as flags, files and status write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    Fastest, LeastConnections, Policy, PowerOfTwo, Random, RoundRobin, SourceHash, Weighted,
    Weights,
};

/// The policies by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PolicyName {
    /// The next position in turn (alias `rr`; Node.js's `SCHED_RR`).
    #[default]
    RoundRobin,
    /// In proportion to weights, smoothly interleaved (alias `wrr`).
    Weighted,
    /// Fewest open connections, ties in turn (alias `least`).
    LeastConnections,
    /// Lowest response time × (outstanding + 1) (alias `ewma`).
    Fastest,
    /// The better of two random positions (alias `p2c`).
    PowerOfTwo,
    /// By client address (alias `sticky`).
    SourceHash,
    /// At random (alias `rand`).
    Random,
    /// Leaves it to the operating system (alias `os`; Node.js's `SCHED_NONE`).
    None,
}

impl PolicyName {
    /// Every policy, in the order in which help lists them.
    pub const ALL: [Self; 8] = [
        Self::RoundRobin,
        Self::Weighted,
        Self::LeastConnections,
        Self::Fastest,
        Self::PowerOfTwo,
        Self::SourceHash,
        Self::Random,
        Self::None,
    ];

    /// The name as flags and status write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Weighted => "weighted",
            Self::LeastConnections => "least-connections",
            Self::Fastest => "fastest",
            Self::PowerOfTwo => "power-of-two",
            Self::SourceHash => "source-hash",
            Self::Random => "random",
            Self::None => "none",
        }
    }

    /// The short name, accepted wherever the name is.
    #[must_use]
    pub fn alias(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::Weighted => "wrr",
            Self::LeastConnections => "least",
            Self::Fastest => "ewma",
            Self::PowerOfTwo => "p2c",
            Self::SourceHash => "sticky",
            Self::Random => "rand",
            Self::None => "os",
        }
    }

    /// Does it choose by what workers publish about their load?
    #[must_use]
    pub fn needs_load(self) -> bool {
        match self {
            Self::LeastConnections | Self::Fastest | Self::PowerOfTwo => true,
            Self::RoundRobin | Self::Weighted | Self::SourceHash | Self::Random | Self::None => {
                false
            }
        }
    }

    /// A fresh policy of this name with equal weights: see [`PolicyName::create_with`].
    #[must_use]
    pub fn create(self) -> Box<dyn Policy> {
        self.create_with(&Weights::default(), 0)
    }

    /// A fresh policy of this name. `weights` matter to `weighted` alone, `seed` to those that draw
    /// at random. `None` is carried out by the operating system; where the primary has to choose
    /// all the same (it owns the accepting socket), it falls back to taking turns.
    #[must_use]
    pub fn create_with(self, weights: &Weights, seed: u64) -> Box<dyn Policy> {
        match self {
            Self::RoundRobin | Self::None => Box::new(RoundRobin::default()),
            Self::Weighted => Box::new(Weighted::new(weights.clone())),
            Self::LeastConnections => Box::new(LeastConnections::default()),
            Self::Fastest => Box::new(Fastest::default()),
            Self::PowerOfTwo => Box::new(PowerOfTwo::new(seed)),
            Self::SourceHash => Box::new(SourceHash),
            Self::Random => Box::new(Random::new(seed)),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A policy name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPolicy(String);

impl std::error::Error for UnknownPolicy {}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown policy {:?}: use one of ", self.0)?;
        for (index, policy) in PolicyName::ALL.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{policy} ({})", policy.alias())?;
        }
        Ok(())
    }
}

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.as_str() == text || policy.alias() == text)
            .ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_known_by_name_and_alias_and_no_two_share_one() {
        let mut names = std::collections::BTreeSet::new();
        for policy in PolicyName::ALL {
            for name in [policy.as_str(), policy.alias()] {
                assert_eq!(name.parse(), Ok(policy));
                assert!(names.insert(name), "{name} stands for two policies");
            }
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(json, format!("\"{policy}\""));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_that_exist() {
        let error = "fair".parse::<PolicyName>().unwrap_err().to_string();
        for policy in PolicyName::ALL {
            assert!(error.contains(policy.as_str()), "{error}");
            assert!(error.contains(policy.alias()), "{error}");
        }
        assert!("".parse::<PolicyName>().is_err());
        assert!("RR".parse::<PolicyName>().is_err());
    }
}
