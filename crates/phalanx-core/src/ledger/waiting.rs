//! The queue of connections that wait to be offered again.

use super::{Ledger, ListenerId, Offer, Waiting};
use crate::policy::Loads;

impl<C> Ledger<C> {
    /// The first connection that waits and can go somewhere, with its worker. The runtime takes it
    /// out, passes it on and calls [`Ledger::place`], or [`Ledger::put_back`] when that failed.
    pub fn next_waiting(&mut self, loads: &dyn Loads) -> Option<Waiting> {
        for (index, offer) in self.waiting.iter().enumerate() {
            let Some(group) = self.groups.get_mut(&offer.listener) else {
                continue;
            };
            let mut willing = group.eligible.clone();
            for &worker in &offer.refused_by {
                let position = self.members.get(&worker).map(|member| member.position);
                if let Some(position) = position.filter(|&at| group.newest(at) == Some(worker)) {
                    willing.remove(position);
                }
            }
            let chosen = group.choose_among(&willing, loads, offer.client);
            if let Some(worker) = chosen.and_then(|position| group.newest(position)) {
                return Some(Waiting {
                    index,
                    worker,
                    listener: offer.listener,
                });
            }
        }
        None
    }

    /// Takes a waiting connection out; the caller owns it until it places it or puts it back.
    pub fn take_waiting(&mut self, index: usize) -> Option<Offer<C>> {
        self.waiting.remove(index)
    }

    /// It could not be passed on: it waits again, before all others.
    pub fn put_back(&mut self, offer: Offer<C>) {
        self.wait_first(offer);
    }

    /// Connections that wait to be offered again.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Do connections of this listener wait to be offered again? Then it accepts nothing new.
    #[must_use]
    pub fn has_waiting(&self, listener: ListenerId) -> bool {
        self.waiting.iter().any(|offer| offer.listener == listener)
    }

    /// Is there a connection that every worker with room has returned? Then only time can help.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        self.waiting
            .iter()
            .any(|offer| !offer.refused_by.is_empty())
    }

    /// Forgets who returned what, so that everything waiting may be offered to everyone again.
    pub fn forgive(&mut self) {
        for offer in &mut self.waiting {
            offer.refused_by.clear();
        }
    }

    pub(super) fn wait_last(&mut self, offer: Offer<C>) {
        if self.groups.contains_key(&offer.listener) {
            self.waiting.push_back(offer);
        }
    }

    pub(super) fn wait_first(&mut self, offer: Offer<C>) {
        if self.groups.contains_key(&offer.listener) {
            self.waiting.push_front(offer);
        }
    }
}
