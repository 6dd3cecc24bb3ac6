//! Requests that change something. A field that is left out has its default.

use std::time::Duration;

use phalanx_core::fleet::{Amount, Canary, RecycleTarget, ReloadPlan};
use phalanx_core::ids::{Position, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::{Done, PolicyChanged, Rebalanced, Sent};
use super::routes;
use super::{Method, Request};

/// How long canaries are watched unless the request says so.
const WATCH: Duration = Duration::from_mins(1);

/// Gives each verb its place.
macro_rules! verbs {
    ($($verb:ty: $path:ident -> $answer:ty;)*) => {
        $(impl Request for $verb {
            type Answer = $answer;
            const METHOD: Method = Method::Post;
            const PATH: &'static str = routes::$path;
        })*
    };
}

verbs! {
    Reload: RELOAD -> Done;
    Rollback: ROLLBACK -> Done;
    Scale: SCALE -> Done;
    Recycle: RECYCLE -> Done;
    Rebalance: REBALANCE -> Rebalanced;
    ChangePolicy: POLICY -> PolicyChanged;
    Stop: STOP -> Done;
    SendMessage: MESSAGES -> Sent;
}

/// Replaces all workers, one after the other.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// Workers to replace first and to watch: a number, or a percentage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<NumberOrText>,
    /// How long to watch them, in milliseconds. A minute unless it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch_ms: Option<u64>,
    /// Extra workers during this reload: a number, or a percentage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<NumberOrText>,
    /// Missing workers during this reload: a number, or a percentage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<NumberOrText>,
    /// Accepts new workers that lack listeners of the old ones.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_fewer_listeners: bool,
    /// Reloads workers that listen where the primary has no part in it.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_unseen: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Reload {
    /// What the fleet is told.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub fn plan(self) -> Result<ReloadPlan, String> {
        let canary = amount("canary", self.canary)?;
        if canary.is_some_and(Amount::is_zero) {
            return Err("canary: it must be more than zero".to_owned());
        }
        if canary.is_none() && self.watch_ms.is_some() {
            return Err("watch_ms: there is no canary to watch".to_owned());
        }
        Ok(ReloadPlan {
            canary: canary.map(|workers| Canary {
                workers,
                watch: self.watch_ms.map_or(WATCH, Duration::from_millis),
            }),
            max_surge: amount("max_surge", self.max_surge)?,
            max_unavailable: amount("max_unavailable", self.max_unavailable)?,
            allow_fewer_listeners: self.allow_fewer_listeners,
            allow_unseen: self.allow_unseen,
        })
    }
}

fn amount(name: &str, value: Option<NumberOrText>) -> Result<Option<Amount>, String> {
    let parse = |value: NumberOrText| {
        let amount = value.into_text().parse::<Amount>();
        amount.map_err(|error| format!("{name}: {error}"))
    };
    value.map(parse).transpose()
}

/// `4`, `"+1"`, `"25%"`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
#[expect(clippy::exhaustive_enums, reason = "there is no third")]
pub enum NumberOrText {
    /// A plain number.
    Number(u32),
    /// A number with a sign or a unit.
    Text(String),
}

impl NumberOrText {
    /// The same as text.
    #[must_use]
    pub fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl From<Amount> for NumberOrText {
    fn from(amount: Amount) -> Self {
        Self::Text(amount.to_string())
    }
}

/// Returns to the release before; a reload under way is undone instead.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rollback {}

/// Changes the number of workers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The number of workers, or how many more or fewer: `4`, `"+1"`, `"-1"`.
    pub workers: NumberOrText,
}

/// Replaces workers by others of their release. Without any named, all are meant.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Recycle {
    /// Positions whose workers to replace.
    pub positions: Vec<u32>,
    /// Ids of workers to replace.
    pub workers: Vec<u32>,
}

impl Recycle {
    /// The request for these targets.
    pub fn these(targets: impl IntoIterator<Item = RecycleTarget>) -> Self {
        let mut request = Self::default();
        for target in targets {
            match target {
                RecycleTarget::All => {}
                RecycleTarget::Position(position) => request.positions.push(position.0),
                RecycleTarget::Worker(worker) => request.workers.push(worker.0),
            }
        }
        request
    }

    /// Who is meant.
    #[must_use]
    pub fn targets(self) -> Vec<RecycleTarget> {
        let positions = self.positions.into_iter().map(Position);
        let workers = self.workers.into_iter().map(WorkerId);
        let targets: Vec<RecycleTarget> = positions
            .map(RecycleTarget::Position)
            .chain(workers.map(RecycleTarget::Worker))
            .collect();
        if targets.is_empty() {
            vec![RecycleTarget::All]
        } else {
            targets
        }
    }
}

/// Spreads the connections that are kept open evenly over the workers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Rebalance {
    /// Ends streams above the shares, too: upgraded connections, and server-sent events.
    pub streams: bool,
}

/// Changes the policy, from the next connection on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangePolicy {
    /// Its name, or an alias of it.
    pub policy: String,
    /// Weights by position, `3,1,1`, for the policy `weighted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// Stops the app.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// Without waiting for requests in service.
    pub fast: bool,
}

/// Sends a message to workers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Any JSON.
    pub message: Value,
    /// The id of the worker; all workers unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
}
