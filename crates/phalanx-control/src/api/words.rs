//! States and kinds. The other end may be of another version: a word that is not known here is kept as it came.

use std::fmt;

use phalanx_core::fleet::WorkerState as CoreState;
use phalanx_core::policy::PolicyName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Defines an enum whose variants are words of the API.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[$meaning:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$meaning])* $variant,)*
            /// A word of another version.
            Other(String),
        }

        impl $name {
            /// Every word that this version writes.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Ok(Self::from(word.as_str()))
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let about = concat!("Later versions may add words.", $("\n* `", $word, "`",)*);
                schemars::json_schema!({
                    "type": "string",
                    "description": about,
                    "x-extensible-enum": Self::WORDS,
                })
            }
        }
    };
}

words! {
    /// Where a worker is in its life.
    WorkerState {
        /// Its process is being started.
        Starting = "starting",
        /// Its program runs.
        Online = "online",
        /// It could serve, and waits for a position that needs it.
        Spare = "spare",
        /// It serves.
        Ready = "ready",
        /// It gets no new work and finishes what it has.
        Draining = "draining",
        /// It is, or will soon be, told to end.
        Stopping = "stopping",
        /// Its process is gone.
        Gone = "gone",
    }
}

impl From<CoreState> for WorkerState {
    fn from(state: CoreState) -> Self {
        Self::from(state.as_str())
    }
}

words! {
    /// How connections reach the workers.
    Dispatch {
        /// A program in the kernel picks the worker.
        Kernel = "kernel",
        /// The primary accepts and hands over.
        Handoff = "handoff",
        /// All workers accept from one socket.
        Shared = "shared",
        /// Nothing listens yet.
        Auto = "auto",
    }
}

words! {
    /// How the program becomes a worker.
    Adoption {
        /// Over a channel, as Node's workers.
        Channel = "channel",
        /// It is given open listeners.
        Activation = "activation",
        /// Its bind and listen are intercepted.
        Intercept = "intercept",
        /// It has no part in the dispatch.
        None = "none",
    }
}

words! {
    /// What is wrong with a worker that does not answer.
    HealthState {
        /// It does not answer.
        Suspect = "suspect",
        /// Somebody holds it.
        Frozen = "frozen",
        /// It is being replaced.
        Hung = "hung",
    }
}

words! {
    /// The policy in force: a policy's name, or `own`.
    Policy {
        /// The next position in turn.
        RoundRobin = "round-robin",
        /// In proportion to weights.
        Weighted = "weighted",
        /// Fewest open connections.
        LeastConnections = "least-connections",
        /// Lowest expected response time.
        Fastest = "fastest",
        /// The better of two random positions.
        PowerOfTwo = "power-of-two",
        /// By client address.
        SourceHash = "source-hash",
        /// At random.
        Random = "random",
        /// The operating system chooses.
        None = "none",
        /// A policy of the program's own.
        Own = "own",
    }
}

impl From<PolicyName> for Policy {
    fn from(policy: PolicyName) -> Self {
        Self::from(policy.as_str())
    }
}

words! {
    /// What applies a change of the configuration file.
    AppliedBy {
        /// A reload.
        Reload = "reload",
        /// A stop and a start only.
        Restart = "restart",
    }
}

words! {
    /// Why a request failed.
    ErrorKind {
        /// It makes no sense as it was asked.
        Invalid = "invalid",
        /// Its body is too large.
        TooLarge = "too_large",
        /// Its body did not arrive in time.
        TooSlow = "too_slow",
        /// There is no such path.
        NoSuchPath = "no_such_path",
        /// The path has another method.
        NoSuchMethod = "no_such_method",
        /// Without a token the web view answers to this machine's own names only.
        OtherHost = "other_host",
        /// The web view answers no page of another origin.
        OtherOrigin = "other_origin",
        /// Without a token the web view answers to the app's user and root only.
        OtherUser = "other_user",
        /// The web view demands its token here.
        TokenNeeded = "token_needed",
        /// The app has no such worker.
        NoSuchWorker = "no_such_worker",
        /// The app was not started from a file.
        NoFile = "no_file",
        /// None of the workers' output is kept.
        NoLogs = "no_logs",
        /// The description of the app is wrong; nothing was changed.
        DescriptionWrong = "description_wrong",
        /// A listener cannot change to this policy while it is open.
        PolicyNotHere = "policy_not_here",
        /// Connections cannot be rebalanced.
        NotRebalanced = "not_rebalanced",
        /// The message was not sent.
        NotSent = "not_sent",
        /// As many streams are open as may be.
        TooManyStreams = "too_many_streams",
        /// The new release failed; the old one serves.
        RolloutFailed = "rollout_failed",
        /// The added workers did not start.
        ScaleFailed = "scale_failed",
        /// The successor of a worker did not start; that worker serves on.
        RecycleFailed = "recycle_failed",
        /// There is no release before the present one.
        NoEarlierRelease = "no_earlier_release",
        /// A newer command took its place.
        Superseded = "superseded",
        /// The app is being stopped.
        Stopping = "stopping",
        /// The app has ended.
        Ended = "ended",
        /// The primary lost the command.
        Lost = "lost",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_word_of_another_version_is_kept() {
        let state: WorkerState = serde_json::from_value(json!("resting")).unwrap();
        assert_eq!(state, WorkerState::Other("resting".to_owned()));
        assert_eq!(serde_json::to_value(&state).unwrap(), json!("resting"));
        let state: WorkerState = serde_json::from_value(json!("ready")).unwrap();
        assert_eq!(state, WorkerState::Ready);
    }

    #[test]
    fn every_policy_and_state_of_the_machines_has_its_word() {
        for policy in PolicyName::ALL {
            let word = Policy::from(policy);
            assert!(!matches!(word, Policy::Other(_)), "{word}");
        }
        for state in [
            CoreState::Starting,
            CoreState::Online,
            CoreState::Spare,
            CoreState::Ready,
            CoreState::Draining,
            CoreState::Stopping,
            CoreState::Gone,
        ] {
            let word = WorkerState::from(state);
            assert!(!matches!(word, WorkerState::Other(_)), "{word}");
        }
    }
}
