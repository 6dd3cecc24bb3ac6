//! What the drill has seen: every request, every action, and every loss with its cause and its moment.
//!
//! Knows neither clock nor sockets; the moments it is given are times since the start of the drill.
//!
//! INVARIANT: every request that was begun and not abandoned at the end is counted once: answered, lost, or
//! lost to a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::cause::Cause;
use super::histogram::Histogram;
use super::mix::Way;
use super::plan::Kind;
use super::timeline::Timeline;

/// Losses and repetitions that are kept one by one; all of them are counted.
const MOST_INCIDENTS: usize = 10_000;

/// Something done to the app.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) kind: Kind,
    pub(super) number: u32,
    pub(super) began_at: Duration,
    /// When its effect was complete. Nothing while it is under way.
    pub(super) ended_at: Option<Duration>,
    /// Why it did not have its effect.
    pub(super) failure: Option<String>,
}

/// The connections that a killed worker had in service.
#[derive(Clone, Debug)]
struct Killed {
    number: u32,
    at: Duration,
    ports: BTreeSet<u16>,
}

/// What is known of a request that came to no good end.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) cause: Cause,
    /// The client's port, which with the time of connecting tells whose connection it was. Nothing when
    /// there was none.
    pub(super) port: Option<u16>,
    pub(super) connected_at: Duration,
    /// When the request was sent.
    pub(super) sent_at: Duration,
    pub(super) detail: String,
}

/// What became of a request in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was not answered, and no client may send it again by itself.
    Lost,
    /// It was sent again, as HTTP allows.
    Retried,
}

/// A request in trouble, as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Incident {
    pub(super) at: Duration,
    pub(super) way: Way,
    pub(super) fate: Fate,
    pub(super) trouble: Trouble,
    /// The kill whose victim had this connection in service.
    pub(super) killed_by: Option<u32>,
}

/// What one way of asking has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sum {
    pub(super) answered: u64,
    pub(super) lost: u64,
    pub(super) lost_to_kills: u64,
    pub(super) retried: u64,
    pub(super) retried_to_kills: u64,
    /// Sent again after a response that had announced the close, as pipelining clients have to.
    pub(super) repeated_after_close: u64,
    /// Kept connections that were closed while no request was on the way.
    pub(super) idle_closes: u64,
    pub(super) connections: u64,
}

impl Sum {
    pub(super) fn requests(&self) -> u64 {
        self.answered + self.lost + self.lost_to_kills
    }

    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.lost_to_kills += other.lost_to_kills;
        self.retried += other.retried;
        self.retried_to_kills += other.retried_to_kills;
        self.repeated_after_close += other.repeated_after_close;
        self.idle_closes += other.idle_closes;
        self.connections += other.connections;
    }
}

/// The account of a drill.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) ways: BTreeMap<Way, Sum>,
    pub(super) causes: BTreeMap<Cause, u64>,
    pub(super) retry_causes: BTreeMap<Cause, u64>,
    pub(super) kill_causes: BTreeMap<Cause, u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) actions: Vec<Action>,
    pub(super) incidents: Vec<Incident>,
    pub(super) timeline: Timeline,
    pub(super) calm: Histogram,
    pub(super) during: BTreeMap<Kind, Histogram>,
    killed: Vec<Killed>,
    /// The 5xx statuses that were seen before the first action.
    errors_in_calm: BTreeSet<(Way, u16)>,
}

impl Account {
    /// A connection was made.
    pub(super) fn connected(&mut self, way: Way) {
        self.sum_of(way).connections += 1;
    }

    /// A kept connection was found closed before a request was sent, which every client must expect.
    pub(super) fn closed_while_idle(&mut self, way: Way) {
        self.sum_of(way).idle_closes += 1;
    }

    /// Requests have to be sent again behind a response that announced the close.
    pub(super) fn repeated_after_close(&mut self, way: Way, requests: u64) {
        self.sum_of(way).repeated_after_close += requests;
    }

    /// A response has come in full. False if it counts as a loss: a 5xx that calm did not show.
    pub(super) fn answered(
        &mut self,
        way: Way,
        status: u16,
        sent_at: Duration,
        at: Duration,
    ) -> bool {
        *self.statuses.entry(status).or_default() += 1;
        if (500..600).contains(&status) {
            if self.actions.is_empty() {
                self.errors_in_calm.insert((way, status));
            } else if !self.errors_in_calm.contains(&(way, status)) {
                return false;
            }
        }
        self.sum_of(way).answered += 1;
        let latency = way.is_measured().then(|| at.saturating_sub(sent_at));
        self.timeline.answered(at, latency);
        if let Some(latency) = latency {
            match self.kind_during(sent_at, at) {
                Some(kind) => self.during.entry(kind).or_default().add(latency),
                None => self.calm.add(latency),
            }
        }
        true
    }

    /// Requests of a connection in trouble.
    pub(super) fn trouble(&mut self, incident: Incident, requests: u64) {
        let killed_by = self.killer_of(&incident.trouble, incident.at);
        let sum = self.ways.entry(incident.way).or_default();
        let (count, causes) = match (incident.fate, killed_by) {
            (Fate::Lost, None) => (&mut sum.lost, &mut self.causes),
            (Fate::Lost, Some(_)) => (&mut sum.lost_to_kills, &mut self.kill_causes),
            (Fate::Retried, None) => (&mut sum.retried, &mut self.retry_causes),
            (Fate::Retried, Some(_)) => (&mut sum.retried_to_kills, &mut self.kill_causes),
        };
        *count += requests;
        *causes.entry(incident.trouble.cause).or_default() += requests;
        if incident.fate == Fate::Lost && killed_by.is_none() {
            for _ in 0..requests {
                self.timeline.lost(incident.at);
            }
        }
        let incident = Incident {
            killed_by,
            ..incident
        };
        for _ in 0..requests {
            if self.incidents.len() < MOST_INCIDENTS {
                self.incidents.push(incident.clone());
            }
        }
    }

    pub(super) fn began(&mut self, kind: Kind, number: u32, at: Duration) {
        self.actions.push(Action {
            kind,
            number,
            began_at: at,
            ended_at: None,
            failure: None,
        });
    }

    /// The action that began last is over.
    pub(super) fn ended(&mut self, at: Duration, failure: Option<String>) {
        if let Some(action) = self.actions.last_mut() {
            action.ended_at = Some(at);
            action.failure = failure;
        }
    }

    /// A worker is about to be killed, and has these connections, by their clients' ports.
    pub(super) fn will_kill(&mut self, number: u32, at: Duration, ports: BTreeSet<u16>) {
        self.killed.push(Killed { number, at, ports });
    }

    /// Everything together.
    pub(super) fn all(&self) -> Sum {
        let mut all = Sum::default();
        for sum in self.ways.values() {
            all.add(sum);
        }
        all
    }

    /// The last action that had begun at this moment.
    pub(super) fn action_before(&self, at: Duration) -> Option<&Action> {
        self.actions
            .iter()
            .rev()
            .find(|action| action.began_at <= at)
    }

    /// How many actions of a kind had their effect, and how many did not.
    pub(super) fn done(&self, kind: Kind) -> (u64, u64) {
        let of_kind = self.actions.iter().filter(|action| action.kind == kind);
        of_kind.fold((0, 0), |(done, failed), action| {
            match (action.ended_at, &action.failure) {
                (Some(_), None) => (done + 1, failed),
                (Some(_), Some(_)) => (done, failed + 1),
                (None, _) => (done, failed),
            }
        })
    }

    fn sum_of(&mut self, way: Way) -> &mut Sum {
        self.ways.entry(way).or_default()
    }

    /// The kind of action that went on at any time of this request.
    fn kind_during(&self, sent_at: Duration, at: Duration) -> Option<Kind> {
        let touches = |action: &&Action| {
            action.began_at <= at && action.ended_at.is_none_or(|ended_at| ended_at >= sent_at)
        };
        // Actions follow each other: whatever ended before the request was sent ends the search.
        let recent = self.actions.iter().rev().take_while(|action| {
            action.began_at > at || action.ended_at.is_none_or(|ended_at| ended_at >= sent_at)
        });
        recent.filter(touches).map(|action| action.kind).min()
    }

    fn killer_of(&self, trouble: &Trouble, at: Duration) -> Option<u32> {
        let port = trouble
            .port
            .filter(|_| trouble.cause.may_come_of_a_kill())?;
        let is_victims = |killed: &&Killed| {
            killed.ports.contains(&port) && trouble.connected_at <= killed.at && killed.at <= at
        };
        self.killed
            .iter()
            .rev()
            .find(is_victims)
            .map(|killed| killed.number)
    }
}

#[cfg(test)]
mod tests;
