//! Listeners on port 0: shared or private (`phalanx_core::dispatch::any_port` decides).

use std::sync::Weak;
use std::time::Duration;

use phalanx_core::dispatch::any_port::{Asks, Owner};
use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::Target;
use phalanx_sys::process::{Pid, is_busy};

use super::Question;
use crate::primary::Shared;
use crate::primary::state::Hub;

/// For how long the first worker that listens on port 0 may open another listener, which makes the one on
/// port 0 private.
const TRIAL: Duration = Duration::from_secs(1);
/// After that it has to be seen to do nothing in so many looks, that are so far apart: a program that the machine
/// lets wait for a processor is not quiet.
const QUIET_LOOKS: u32 = 3;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A program that is busy all the time serves by then.
const TRIAL_MAX: Duration = Duration::from_secs(10);

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
            let pid = self.workers.get(&worker).map(|state| state.cell.pid);
            let shared = self.shared.clone();
            tokio::spawn(async move {
                if let Some(pid) = pid {
                    wait_for_quiet(pid).await;
                }
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
        let workers = self.workers.keys();
        let held = workers.flat_map(|&worker| self.machine.held(worker));
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
        if let Some(slots) = listener.carrier.slots() {
            slots.set_free();
        }
        tracing::info!(
            "{} stays private: the app has another listener; --share shares it",
            listener.address
        );
        let mut name = None;
        for &worker in self.workers.keys() {
            if let Some(held) = self.machine.let_go(worker, key) {
                name = Some(ListenerName::of_request(&held.request, key));
            }
        }
        if let Some(name) = name {
            self.disown(&name);
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

async fn wait_for_quiet(pid: Pid) {
    let begun = phalanx_sys::clock::now();
    let mut next = begun + TRIAL;
    let mut quiet_looks = 0;
    while quiet_looks < QUIET_LOOKS && next < begun + TRIAL_MAX {
        tokio::time::sleep_until(next.into()).await;
        let busy = tokio::task::spawn_blocking(move || is_busy(pid)).await;
        quiet_looks = if busy.unwrap_or(false) {
            0
        } else {
            quiet_looks + 1
        };
        next = phalanx_sys::clock::now() + LOOK_INTERVAL;
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
