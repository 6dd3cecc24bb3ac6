//! Who holds which listener.

use std::collections::BTreeSet;

use super::{Held, Machine, Share};
use crate::ids::WorkerId;
use crate::ledger::ListenerId;

impl<Handshake> Machine<Handshake> {
    /// What the worker holds, by key.
    pub fn held(&self, worker: WorkerId) -> impl Iterator<Item = (&String, &Held)> {
        let member = self.members.get(&worker);
        member.into_iter().flat_map(|member| &member.held)
    }

    /// What the worker holds under this key.
    #[must_use]
    pub fn held_as(&self, worker: WorkerId, key: &str) -> Option<&Held> {
        self.members.get(&worker)?.held.get(key)
    }

    /// Whether the worker holds this listener.
    #[must_use]
    pub fn holds(&self, worker: WorkerId, listener: ListenerId) -> bool {
        self.held(worker).any(|(_, held)| held.listener == listener)
    }

    /// Who holds this listener.
    pub fn holders(&self, listener: ListenerId) -> impl Iterator<Item = WorkerId> {
        let members = self.members.iter();
        let holds = move |held: &Held| held.listener == listener;
        let holders = members.filter(move |(_, member)| member.held.values().any(holds));
        holders.map(|(&worker, _)| worker)
    }

    /// All listeners that somebody holds.
    #[must_use]
    pub fn all_held(&self) -> BTreeSet<ListenerId> {
        let held = self
            .members
            .values()
            .flat_map(|member| member.held.values());
        held.map(|held| held.listener).collect()
    }

    /// Whether the worker gets connections of any listener.
    #[must_use]
    pub fn serves(&self, worker: WorkerId) -> bool {
        self.held(worker)
            .any(|(_, held)| held.share == Share::Serves)
    }
}
