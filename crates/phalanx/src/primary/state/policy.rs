//! Another policy for a running cluster: all its listeners change, or none.

use phalanx_core::dispatch::listener::{Carrier, Dispatch};
use phalanx_core::ids::WorkerId;
use phalanx_core::policy::{PolicyName, Weights};

use crate::error::{Error, Result};
use crate::primary::Cluster;
use crate::primary::state::Hub;

impl Cluster {
    pub(crate) fn policy_text(&self) -> String {
        let hub = self.shared.hub();
        match &hub.custom_policy {
            Some(_) => "own".to_owned(),
            None => hub.policy.to_string(),
        }
    }

    pub(crate) fn weights_text(&self) -> Option<String> {
        let hub = self.shared.hub();
        (hub.policy == PolicyName::Weighted).then(|| hub.weights.to_string())
    }
}

impl Hub {
    /// Puts the policy in force for all listeners, from the next connection on.
    ///
    /// # Errors
    /// [`Error::PolicyNotHere`] when a listener's dispatch cannot carry it out; then nothing has changed.
    pub(in crate::primary) fn change_policy(
        &mut self,
        policy: PolicyName,
        weights: Weights,
    ) -> Result<()> {
        for listener in self.listeners.values() {
            let refused = match listener.carrier.dispatch() {
                Dispatch::Shared if !listener.udp && policy != PolicyName::None => {
                    Some("its workers share one socket, and the operating system chooses")
                }
                Dispatch::Handoff if policy == PolicyName::None => {
                    Some("the primary hands its connections over, and has to choose")
                }
                Dispatch::Kernel | Dispatch::Shared | Dispatch::Handoff => None,
            };
            if let Some(why) = refused {
                return Err(Error::PolicyNotHere {
                    policy,
                    address: listener.address.clone(),
                    why,
                });
            }
        }
        self.policy = policy;
        self.weights = weights;
        self.custom_policy = None;
        if policy.needs_load() {
            // Memory is short, or it is there already.
            if let Err(error) = self.board() {
                tracing::warn!(%error, "no scoreboard: all workers look idle to the policy");
            }
        }
        self.apply_policy();
        Ok(())
    }

    fn apply_policy(&mut self) {
        let ids: Vec<_> = self.listeners.keys().copied().collect();
        for id in ids {
            let made = self.make_policy(id);
            let Some(listener) = self.listeners.get_mut(&id) else {
                continue;
            };
            match &mut listener.carrier {
                Carrier::Handoff(_) => self.ledger.set_policy(id, made),
                Carrier::Shared(_) => {}
                Carrier::Kernel(slots) => {
                    slots.set_policy(self.policy, self.weights.clone());
                    // What full workers return is handed over.
                    self.ledger.set_policy(id, made);
                }
            }
        }
        let wanted = self.needs_load();
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        for worker in workers {
            self.watch_load_of(worker, wanted);
        }
        self.pump();
    }
}
