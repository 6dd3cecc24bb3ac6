//! Workers that serve and get no connections yet: successors of a reload that are to live for a while
//! first (`--soak`).
//!
//! They hold their listeners as all workers do; they only take no part in the choice. Where no choice
//! is made (`shared` dispatch, sockets of their own) nothing can be held back.

use phalanx_core::dispatch::machine::Input;
use phalanx_core::ids::{Generation, WorkerId};

use crate::primary::Cluster;
use crate::primary::state::Hub;

impl Hub {
    /// Gives a worker that was held back its share of the connections.
    pub(crate) fn admit(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        state.cell.let_in();
        self.step(worker, Input::Admitted);
    }
}

impl Cluster {
    pub(crate) fn admit(&self, worker: WorkerId) {
        self.shared.hub().admit(worker);
    }

    pub(crate) fn accept(&self, worker: WorkerId) {
        self.shared.hub().accept(worker);
    }

    pub(crate) fn drop_generation(&self, generation: Generation) {
        self.shared.hub().drop_generation(generation);
    }
}
