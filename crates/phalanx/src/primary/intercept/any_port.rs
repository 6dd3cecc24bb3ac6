//! Listeners on port 0: shared or private (`phalanx_core::dispatch::any_port` decides).

use std::sync::Weak;
use std::time::Duration;

use phalanx_core::dispatch::any_port::{Asks, Owner};
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::Target;

use super::Question;
use crate::primary::Shared;
use crate::primary::hub::Hub;

/// For how long the first worker that listens on port 0 may open another listener, which makes the one on
/// port 0 private.
const TRIAL: Duration = Duration::from_secs(1);

/// Begins the keys of listeners on port 0.
pub(super) const PREFIX: &str = "intercept:any:";

impl Hub {
    /// Whose this socket is to be, which listens on port 0.
    pub(super) fn owner_of(&mut self, worker: WorkerId, key: &str, question: &Question) -> Owner {
        let ip = question.asked_ip();
        let asks = Asks {
            worker,
            is_named: self.settings.share.iter().any(|one| one.names(ip)),
            is_known: self.listeners.values().any(|one| one.key == key),
            has_other: self.listeners.values().any(|one| !is_any_port(&one.key)),
        };
        let before = self.any_port;
        let owner = self.any_port.decide(asks);
        if before != self.any_port {
            let shared = self.shared.clone();
            let until = phalanx_sys::clock::now() + TRIAL;
            tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                if let Some(shared) = shared.upgrade() {
                    shared.hub().end_trial(worker);
                }
            });
        }
        owner
    }

    fn end_trial(&mut self, worker: WorkerId) {
        if !self.any_port.stays_quiet(worker) {
            return;
        }
        for listener in self.listeners.values().filter(|one| is_any_port(&one.key)) {
            tracing::info!(
                "{} is shared by all workers: the app listens nowhere else",
                listener.address
            );
        }
        self.any_port_decided.notify_waiters();
    }

    /// A worker opens a listener that is not on port 0.
    pub(super) fn opens_another(&mut self) {
        if !self.any_port.other_opens() {
            return;
        }
        let named = |target: &Target| {
            let Target::Tcp {
                address: Some(ip), ..
            } = target
            else {
                return false;
            };
            self.settings.share.iter().any(|one| one.names(*ip))
        };
        let held = self.workers.values().flat_map(|state| &state.held);
        let private: Vec<_> = held
            .filter(|(key, held)| is_any_port(key) && !named(&held.request.target))
            .map(|(key, held)| (key.clone(), held.listener))
            .collect();
        for (key, id) in private {
            self.make_private(&key, id);
        }
        self.any_port_decided.notify_waiters();
    }

    /// The worker keeps its socket, and nobody else is given another of the listener.
    fn make_private(&mut self, key: &str, id: ListenerId) {
        let Some(listener) = self.listeners.get(&id) else {
            return;
        };
        if let Some(slots) = &listener.slots {
            slots.set_free();
        }
        tracing::info!(
            "{} stays private: the app has another listener; --share shares it",
            listener.address
        );
        for state in self.workers.values_mut() {
            state.held.remove(key);
        }
        self.close_listener(id);
    }

    /// The worker is gone, and its trial with it.
    pub(in crate::primary) fn trier_gone(&mut self, worker: WorkerId) {
        if self.any_port.gone(worker) {
            self.any_port_decided.notify_waiters();
        }
    }
}

fn is_any_port(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// Waits until it may be known whose a socket on port 0 is.
pub(super) async fn wait(shared: &Weak<Shared>) {
    let Some(decided) = shared
        .upgrade()
        .map(|shared| shared.hub().any_port_decided.clone())
    else {
        return;
    };
    // What was decided since the question is found out at the end of the trial.
    let limit = phalanx_sys::clock::now() + TRIAL;
    drop(tokio::time::timeout_at(limit.into(), decided.notified()).await);
}
