//! Listeners that their last worker has closed of its own accord. It may be about to leave (`server.close()` and then
//! `cluster.worker.disconnect()` or an exit, as Node's documentation teaches it), and its successor asks for the
//! listener again: so nobody is refused meanwhile. When it is given up is decided in `phalanx-core`
//! (`dispatch/drain.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::drain::{Stance, is_given_up};
use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;

use super::clock;
use super::hub::{Hub, WorkerState};
use super::intake::PATIENCE;
use super::worker::Departure;

/// So many are kept at most: a worker that opens and closes one port after the other must not fill the primary's table.
const KEPT_MAX: usize = 8;

/// Where workers have no time to leave, they have this long to do so after they closed their server.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Listeners whose last worker has closed them of its own accord.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    /// Since when they have none.
    since: BTreeMap<ListenerId, Moment>,
    /// A timer after which they are looked at is running.
    is_watched: bool,
}

impl Hub {
    /// A worker closed a server of its own accord. It leaves, or it has given the listener up: then it closes if the
    /// others do without as well, after a while.
    pub(super) fn release(&mut self, worker: WorkerId, key: &str) {
        let Some(held) = self
            .workers
            .get_mut(&worker)
            .and_then(|state| state.held.remove(key))
        else {
            return;
        };
        self.ledger.leave(held.listener, worker);
        self.closes(worker, &ListenerName::of_request(&held.request, key));
        self.slot_lost(held.listener, worker);
        if self.users(held.listener) == 0 && !self.is_bound(held.listener) {
            self.abandon(held.listener);
        }
        self.pump();
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
        let until = clock::now() + time;
        let shared = self.shared.clone();
        tokio::spawn(async move {
            clock::sleep_until(until).await;
            if let Some(shared) = shared.upgrade() {
                shared.hub().look_at_abandoned();
            }
        });
    }

    /// Closes what the app has given up, and forgets what somebody holds again.
    fn look_at_abandoned(&mut self) {
        self.abandoned.is_watched = false;
        let now = clock::now();
        let patience = self.patience_with_leavers();
        for (id, since) in std::mem::take(&mut self.abandoned.since) {
            if !self.listeners.contains_key(&id) || self.users(id) > 0 {
                continue;
            }
            let stances = self.workers.values().map(|state| stance(state, id));
            if is_given_up(stances, now.since(since), patience) {
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

    fn patience_with_leavers(&self) -> Duration {
        self.leave_limit().max(PATIENCE_MIN)
    }

    /// How long a worker may take to leave.
    pub(super) fn leave_limit(&self) -> Duration {
        let limits = self.drain_limits.as_ref();
        limits.map_or(PATIENCE, |limits| limits.drain)
    }
}

fn stance(state: &WorkerState, listener: ListenerId) -> Stance {
    if state.cell.departure() != Departure::None || !state.cell.is_connected() {
        Stance::Leaving
    } else if !state.listening {
        Stance::Starting
    } else {
        let mut held = state.held.values();
        let holds = held.any(|held| held.listener == listener);
        Stance::Serving { holds }
    }
}
