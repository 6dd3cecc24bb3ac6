//! Spares: workers that hold their listeners as all workers do, and take no part in the choice until they move to a position.
//!
//! A spare is held back ([`Admission`](crate::primary::cell::Admission)) at a place beyond all positions. Its slots wait among
//! those of workers that do not serve yet, so the kernel's plan does not name them, and the ledger offers it nothing. Where no
//! choice is made (`shared` dispatch: datagrams, Unix sockets of programs without a channel) it cannot be kept apart; that is said.

use phalanx_core::dispatch::listener::Dispatch;
use phalanx_core::dispatch::machine::Input;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::wire::outgoing;

use crate::primary::Cluster;
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;
use crate::primary::state::listeners::Listener;
use crate::primary::state::load::LoadSource;

impl Cluster {
    /// The spare holds that position from now on, and has its share of the connections.
    pub(crate) fn promote(&self, worker: WorkerId, position: Position) {
        self.shared.hub().promote(worker, position);
    }
}

impl Hub {
    fn promote(&mut self, worker: WorkerId, position: Position) {
        let mut older = self.workers.values().rev();
        let is_before = |id: WorkerId, at: Position| at == position && id != worker;
        let predecessor = older.find(|state| is_before(state.cell.id, state.cell.position()));
        let lane = LoadSource::moved(predecessor.map(|state| &state.load_source));
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        state.cell.move_to(position);
        let lane = state.load_source.move_to(lane);
        let channel = state.channel.as_mut();
        if let Some(channel) = channel.filter(|channel| channel.has_room_for_answers()) {
            let number = channel.next_seq();
            channel.queue(Outgoing {
                bytes: outgoing::position(position.0, lane, number),
                handle: None,
            });
        }
        state.cell.let_in();
        self.step(worker, Input::Moves { position });
    }

    /// Says where a spare that is ready serves all the same, because nobody chooses who gets a connection.
    pub(in crate::primary) fn warn_of_sharing(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        if !state.cell.position().is_spare() {
            return;
        }
        let held = self.machine.held(worker);
        let listeners = held.filter_map(|(_, held)| self.listeners.get(&held.listener));
        let shared = listeners.filter(|one| one.carrier.dispatch() == Dispatch::Shared);
        let addresses: Vec<String> = shared.map(Listener::display).collect();
        if !addresses.is_empty() {
            let addresses = addresses.join(" and ");
            let text = format!(
                "is a spare, and serves {addresses} all the same: all workers share one socket there"
            );
            self.complain(worker, &text);
        }
    }
}
