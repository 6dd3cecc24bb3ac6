//! Listeners that their last worker has closed of its own accord. It may be about to leave (`server.close()` and then
//! `cluster.worker.disconnect()` or an exit, as Node's documentation teaches it), and its successor asks for the
//! listener again: so nobody is refused meanwhile. When it is given up is decided in `phalanx-core`
//! (`dispatch/listener.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::listener::{Stance, Unheld, is_given_up};
use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::Target;

use crate::primary::clock;
use crate::primary::mailbox::{Alarm, Until};
use crate::primary::state::Hub;
use crate::primary::state::intake::PATIENCE;
use crate::primary::tasks::timer;
use crate::splice::record::{Key, Of};

/// So many are kept at most: a worker that opens and closes one port after the other must not fill the primary's table.
const KEPT_MAX: usize = 8;

/// Where workers have no time to leave, or nobody limits it (a [`Cluster`](crate::primary::Cluster) without a supervisor),
/// they have this long to say that they leave after they closed their server.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Listeners whose last worker has closed them of its own accord.
#[derive(Debug, Default)]
pub(in crate::primary) struct Abandoned {
    /// Since when they have none.
    since: BTreeMap<ListenerId, Moment>,
    /// A timer after which they are looked at is running.
    is_watched: bool,
}

impl Hub {
    /// A worker closed a server of its own accord. It leaves, or it has given the listener up: then it closes if the
    /// others do without as well, after a while.
    pub(in crate::primary) fn release(&mut self, worker: WorkerId, key: &str) {
        let Some(held) = self.machine.let_go(worker, key) else {
            return;
        };
        self.keeping
            .drop(Key::Worker(worker.0, Of::Query(key.to_owned())));
        self.keeping
            .drop(Key::Worker(worker.0, Of::Serves(key.to_owned())));
        self.ledger.leave(held.listener, worker);
        self.closes(worker, ListenerName::of_request(&held.request, key));
        self.slot_lost(held.listener, worker);
        if self.users(held.listener) == 0 && !self.is_bound(held.listener) {
            self.abandon(held.listener);
        }
        self.pump();
    }

    /// The fleet has settled with so many workers: closes what the app serves without. Somebody may still ask for the rest.
    pub(in crate::primary) fn close_orphans(&mut self, workers: u32) {
        self.allowance.started();
        for id in self.unserved() {
            if is_given_up(self.stances(id), Unheld::Settled { workers }) {
                self.close_listener(id);
            } else {
                self.abandoned.since.entry(id).or_insert_with(clock::now);
                self.look_at_abandoned_after(self.patience_with_leavers());
            }
        }
    }

    fn abandon(&mut self, id: ListenerId) {
        let now = clock::now();
        self.abandoned.since.insert(id, now);
        while self.abandoned.since.len() > KEPT_MAX {
            let oldest = self.abandoned.since.iter().min_by_key(|(_, since)| **since);
            let Some((&oldest, _)) = oldest else { break };
            self.abandoned.since.remove(&oldest);
            self.close_listener(oldest);
        }
        self.look_at_abandoned_after(self.patience_with_leavers());
    }

    fn look_at_abandoned_after(&mut self, time: Duration) {
        if std::mem::replace(&mut self.abandoned.is_watched, true) {
            return;
        }
        let until = Until::At(clock::now() + time);
        timer::ring(self.mailbox(), until, Alarm::Abandoned);
    }

    /// A listener cannot be opened at this port. One that was abandoned may stand in its way: a worker that closed its
    /// server on a free port and listens again names the port, which is another request. Closes those; true if there was one.
    pub(in crate::primary) fn make_way(&mut self, target: &Target) -> bool {
        let (Target::Tcp { port, .. } | Target::Udp { port, .. }) = *target else {
            return false;
        };
        let stands_there = |id: &ListenerId| {
            let listener = self.listeners.get(id);
            let address = listener.and_then(|listener| listener.address.inet());
            address.is_some_and(|address| address.port() == port) && self.users(*id) == 0
        };
        let abandoned = self.abandoned.since.keys().copied();
        let in_the_way: Vec<_> = abandoned.filter(stands_there).collect();
        for &id in &in_the_way {
            self.abandoned.since.remove(&id);
            self.close_listener(id);
        }
        !in_the_way.is_empty()
    }

    /// Closes what the app has given up, and forgets what somebody holds again.
    pub(super) fn look_at_abandoned(&mut self) {
        self.abandoned.is_watched = false;
        let now = clock::now();
        let patience = self.patience_with_leavers();
        for (id, since) in std::mem::take(&mut self.abandoned.since) {
            if !self.listeners.contains_key(&id) || self.users(id) > 0 {
                continue;
            }
            let time = now.since(since);
            if is_given_up(self.stances(id), Unheld::For { time, patience }) {
                self.close_listener(id);
            } else {
                self.abandoned.since.insert(id, since);
            }
        }
        if let Some(&since) = self.abandoned.since.values().min() {
            // What is overdue already waits for workers that start.
            self.look_at_abandoned_after(
                patience.saturating_sub(now.since(since)).max(patience / 2),
            );
        }
    }

    /// What the workers are about, as far as this listener is concerned.
    fn stances(&self, id: ListenerId) -> impl Iterator<Item = Stance> {
        self.workers.iter().map(move |(&worker, state)| {
            let holds = self.machine.holds(worker, id);
            if state.cell.departure().is_some() || !state.cell.is_connected() {
                Stance::Leaving
            } else if !state.listening {
                Stance::Starting
            } else if self.machine.is_late(worker) {
                Stance::Late { holds }
            } else {
                Stance::Serving { holds }
            }
        })
    }

    fn patience_with_leavers(&self) -> Duration {
        let limits = self.drain_limits.as_ref();
        limits.map_or(PATIENCE_MIN, |limits| limits.drain.max(PATIENCE_MIN))
    }

    /// How long a worker may take to leave.
    pub(in crate::primary) fn leave_limit(&self) -> Duration {
        let limits = self.drain_limits.as_ref();
        limits.map_or(PATIENCE, |limits| limits.drain)
    }
}
