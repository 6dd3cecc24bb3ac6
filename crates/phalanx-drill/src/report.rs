//! The report of a drill: what the account comes to, in the form that `--json` prints.
//!
//! The schema is stable: fields are added, none is removed or changes its meaning. docs/drill.md describes it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::account::{Account, Action, Fate, Incident, Sum};
use super::cause::Cause;
use super::histogram::Histogram;
use super::mix::Way;
use super::plan::Kind;

/// The result of a drill.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Nothing was lost but what killed workers had in service, nothing had to be retried, every action had
    /// its effect, and the drill was carried out to its end.
    pub(super) passed: bool,
    pub(super) interrupted: bool,
    pub(super) target: String,
    pub(super) took_ms: f64,
    pub(super) clients: usize,
    pub(super) requests: u64,
    #[serde(flatten)]
    pub(super) all: Sum,
    /// Of what was lost.
    pub(super) causes: BTreeMap<Cause, u64>,
    /// Of what was retried.
    pub(super) retry_causes: BTreeMap<Cause, u64>,
    /// Of what was lost or retried because of a kill.
    pub(super) kill_causes: BTreeMap<Cause, u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) reloads: u64,
    pub(super) reloads_failed: u64,
    pub(super) kills: u64,
    pub(super) kills_failed: u64,
    pub(super) scales: u64,
    pub(super) scales_failed: u64,
    pub(super) latency_ms: Latencies,
    /// How long actions took until their effect was complete.
    pub(super) replace_ms: BTreeMap<&'static str, Times>,
    pub(super) shares: Vec<Share>,
    pub(super) ways: BTreeMap<Way, OfWay>,
    pub(super) actions: Vec<Done>,
    pub(super) incidents: Vec<Loss>,
}

/// Latencies by what went on meanwhile.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Latencies {
    pub(super) calm: Option<Quantiles>,
    pub(super) reload: Option<Quantiles>,
    pub(super) kill: Option<Quantiles>,
    pub(super) scale: Option<Quantiles>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Quantiles {
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Times {
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) max: f64,
}

/// The connections that the workers at a position have accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Share {
    pub(super) position: u32,
    pub(super) workers: u64,
    pub(super) connections: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct OfWay {
    pub(super) requests: u64,
    pub(super) lost: u64,
    pub(super) lost_to_kills: u64,
    pub(super) retried: u64,
    pub(super) retried_to_kills: u64,
}

/// An action that was begun.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Done {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) at_ms: f64,
    pub(super) took_ms: Option<f64>,
    pub(super) failure: Option<String>,
}

/// A request that was lost or retried.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Loss {
    pub(super) at_ms: f64,
    pub(super) way: Way,
    /// `lost` or `retried`.
    pub(super) fate: &'static str,
    pub(super) cause: Cause,
    pub(super) detail: String,
    /// The time from sending to the loss.
    pub(super) waited_ms: f64,
    pub(super) moment: Option<Moment>,
    /// The number of the kill that excuses it.
    pub(super) killed_by: Option<u32>,
}

/// Where in the course of the drill something happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Moment {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    /// The action was still under way.
    pub(super) during: bool,
    pub(super) since_ms: f64,
}

/// What a report needs besides the account.
#[derive(Clone, Debug)]
pub(super) struct Circumstances {
    pub(super) target: String,
    pub(super) clients: usize,
    pub(super) took: Duration,
    pub(super) interrupted: bool,
    /// Worker, its position and its connections.
    pub(super) shares: BTreeMap<u32, (u32, u64)>,
}

impl Report {
    pub(super) fn of(account: &Account, around: &Circumstances) -> Self {
        let all = account.all();
        let [reloads, kills, scales] = Kind::ALL.map(|kind| account.done(kind));
        let is_lossless = all.lost == 0 && all.retried == 0;
        let has_failed = reloads.1 + kills.1 + scales.1 > 0;
        let during = |kind| account.during.get(&kind).and_then(Quantiles::of);
        Self {
            passed: is_lossless && all.answered > 0 && !has_failed && !around.interrupted,
            interrupted: around.interrupted,
            target: around.target.clone(),
            took_ms: millis(around.took),
            clients: around.clients,
            requests: all.requests(),
            all,
            causes: account.causes.clone(),
            retry_causes: account.retry_causes.clone(),
            kill_causes: account.kill_causes.clone(),
            statuses: account.statuses.clone(),
            reloads: reloads.0,
            reloads_failed: reloads.1,
            kills: kills.0,
            kills_failed: kills.1,
            scales: scales.0,
            scales_failed: scales.1,
            latency_ms: Latencies {
                calm: Quantiles::of(&account.calm),
                reload: during(Kind::Reload),
                kill: during(Kind::Kill),
                scale: during(Kind::Scale),
            },
            replace_ms: times(&account.actions),
            shares: shares(&around.shares),
            ways: ways(account),
            actions: account.actions.iter().map(Done::of).collect(),
            incidents: account
                .incidents
                .iter()
                .map(|incident| Loss::of(incident, account))
                .collect(),
        }
    }
}

impl Quantiles {
    fn of(histogram: &Histogram) -> Option<Self> {
        let quantile = |thousandths| histogram.quantile(thousandths).map(millis);
        Some(Self {
            count: histogram.count(),
            p50: quantile(500)?,
            p90: quantile(900)?,
            p99: quantile(990)?,
            p999: quantile(999)?,
            max: millis(histogram.longest()),
        })
    }
}

impl Done {
    fn of(action: &Action) -> Self {
        Self {
            kind: action.kind.as_str(),
            number: action.number,
            at_ms: millis(action.began_at),
            took_ms: took(action).map(millis),
            failure: action.failure.clone(),
        }
    }
}

impl Loss {
    fn of(incident: &Incident, account: &Account) -> Self {
        Self {
            at_ms: millis(incident.at),
            way: incident.way,
            fate: match incident.fate {
                Fate::Lost => "lost",
                Fate::Retried => "retried",
            },
            cause: incident.trouble.cause,
            detail: incident.trouble.detail.clone(),
            waited_ms: millis(incident.at.saturating_sub(incident.trouble.sent_at)),
            moment: account
                .action_before(incident.at)
                .map(|action| Moment::of(action, incident.at)),
            killed_by: incident.killed_by,
        }
    }
}

impl Moment {
    fn of(action: &Action, at: Duration) -> Self {
        Self {
            kind: action.kind.as_str(),
            number: action.number,
            during: action.ended_at.is_none_or(|ended_at| at <= ended_at),
            since_ms: millis(at.saturating_sub(action.began_at)),
        }
    }
}

fn took(action: &Action) -> Option<Duration> {
    action
        .ended_at
        .map(|ended_at| ended_at.saturating_sub(action.began_at))
}

fn times(actions: &[Action]) -> BTreeMap<&'static str, Times> {
    let mut times = BTreeMap::new();
    for kind in Kind::ALL {
        let mut histogram = Histogram::default();
        let done = actions
            .iter()
            .filter(|action| action.kind == kind && action.failure.is_none());
        done.filter_map(took).for_each(|took| histogram.add(took));
        if let Some(median) = histogram.quantile(500) {
            let max = millis(histogram.longest());
            times.insert(
                kind.as_str(),
                Times {
                    count: histogram.count(),
                    p50: millis(median),
                    max,
                },
            );
        }
    }
    times
}

fn shares(by_worker: &BTreeMap<u32, (u32, u64)>) -> Vec<Share> {
    let mut by_position: BTreeMap<u32, Share> = BTreeMap::new();
    for (position, connections) in by_worker.values() {
        let share = by_position.entry(*position).or_insert(Share {
            position: *position,
            workers: 0,
            connections: 0,
        });
        share.workers += 1;
        share.connections += connections;
    }
    by_position.into_values().collect()
}

fn ways(account: &Account) -> BTreeMap<Way, OfWay> {
    let ways = account.ways.iter().map(|(way, sum)| {
        let of_way = OfWay {
            requests: sum.requests(),
            lost: sum.lost,
            lost_to_kills: sum.lost_to_kills,
            retried: sum.retried,
            retried_to_kills: sum.retried_to_kills,
        };
        (*way, of_way)
    });
    ways.collect()
}

/// Milliseconds with three digits after the point, so that JSON has no noise.
fn millis(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros())
        .map_or_else(|_| (duration.as_secs_f64() * 1e6).round(), f64::from);
    micros / 1e3
}

#[cfg(test)]
mod tests;
