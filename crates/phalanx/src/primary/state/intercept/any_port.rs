//! Listeners on port 0: shared or private (`phalanx_core::dispatch::any_port` decides).

use phalanx_core::dispatch::any_port::{Asks, Owner};
use phalanx_core::dispatch::intercept::is_any_port;
use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::Target;

use crate::primary::mailbox::Question;
use crate::primary::state::Hub;
use crate::primary::tasks::trial;

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
            trial::watch(self.mailbox(), worker, pid);
        }
        owner
    }

    pub(in crate::primary::state) fn end_trial(&mut self, worker: WorkerId) {
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
        let Some(listener) = self.listeners.get_mut(&id) else {
            return;
        };
        if let Some(slots) = listener.carrier.slots_mut() {
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
