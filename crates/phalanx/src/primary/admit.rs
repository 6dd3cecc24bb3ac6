//! Workers that serve and get no connections yet: successors of a reload that are to live for a while
//! first (`--soak`).
//!
//! They hold their listeners as all workers do; they only take no part in the choice. Where no choice
//! is made (`shared` dispatch, sockets of their own) nothing can be held back.

use phalanx_core::ids::WorkerId;

use super::choice::Dispatch;
use super::hub::Hub;
use super::worker::Departure;

impl Hub {
    /// Gives a worker that was held back its share of the connections.
    pub(crate) fn admit(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        state.cell.let_in();
        if state.cell.departure() != Departure::None {
            return;
        }
        let position = state.cell.position;
        for held in state.held.values().filter(|held| held.announced) {
            let Some(listener) = self.listeners.get_mut(&held.listener) else {
                continue;
            };
            match (listener.choice.dispatch, listener.slots.as_mut()) {
                (_, Some(slots)) => slots.serves(position, worker),
                (Dispatch::Handoff, None) => self.ledger.join(held.listener, worker, position),
                (Dispatch::Shared | Dispatch::Kernel, None) => {}
            }
        }
        self.limit_offers(worker);
        self.pump();
    }
}
