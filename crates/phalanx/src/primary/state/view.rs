//! What there is to see of workers and listeners, for status and for handles.

use std::sync::Arc;

use phalanx_core::dispatch::listener::Dispatch;
use phalanx_core::ids::WorkerId;
use phalanx_sys::scoreboard::Load;

use super::listeners::Listener;
use super::{Held, Hub, load};
use crate::primary::cell::Cell;
use crate::primary::sink::Reports;
use crate::primary::sockets::slots::Slots;
use crate::subscribers::Events;
use crate::supervisor::ListenerStatus;

impl Hub {
    /// Where the supervisor hears from now on what it decides on.
    pub(in crate::primary) fn reports(&mut self) -> Reports {
        self.sink.reports()
    }

    pub(in crate::primary) fn subscribe(&mut self) -> Events {
        self.sink.subscribe()
    }

    pub(in crate::primary) fn subscribe_to_life(&mut self) -> Events {
        self.sink.subscribe_to_life()
    }

    pub(in crate::primary) fn subscribe_to(&mut self, worker: WorkerId) -> Events {
        self.sink.subscribe_to(worker)
    }

    /// All live workers.
    pub(in crate::primary) fn cells(&self) -> Vec<Arc<Cell>> {
        let workers = self.workers.values();
        workers.map(|state| Arc::clone(&state.cell)).collect()
    }

    pub(in crate::primary) fn cell(&self, worker: WorkerId) -> Option<Arc<Cell>> {
        let state = self.workers.get(&worker)?;
        Some(Arc::clone(&state.cell))
    }

    /// What the worker says it is doing, if it says so.
    pub(in crate::primary) fn says(&self, worker: WorkerId) -> Option<String> {
        self.workers.get(&worker)?.says.clone()
    }

    /// Whether it has been seen to listen.
    pub(in crate::primary) fn is_listening(&self, worker: WorkerId) -> bool {
        let state = self.workers.get(&worker);
        state.is_some_and(|state| state.listening)
    }

    pub(in crate::primary) fn listener_status(&self) -> Vec<ListenerStatus> {
        let status = |(&id, listener): (_, &Listener)| ListenerStatus {
            address: listener.display(),
            dispatch: listener.carrier.dispatch().as_str().into(),
            because: listener.because.clone(),
            policy: listener
                .carrier
                .slots()
                .and_then(Slots::drawn_by)
                .map(str::to_owned),
            workers: self.users(id),
        };
        self.listeners.iter().map(status).collect()
    }

    /// The load of the worker's position; nothing where nobody tells it.
    pub(in crate::primary) fn load_of(&self, worker: WorkerId) -> Option<Load> {
        let state = self.workers.get(&worker)?;
        if state.load_source.source == load::Source::Unknown {
            return None;
        }
        Some(self.board.as_ref()?.load(state.cell.position().0))
    }

    /// Connections the worker has accepted; nothing where it accepts from a shared socket only.
    pub(in crate::primary) fn connections_of(&self, worker: WorkerId) -> Option<u64> {
        let state = self.workers.get(&worker)?;
        let by_handoff = |held: &Held| {
            let listener = self.listeners.get(&held.listener);
            listener.is_some_and(|listener| listener.carrier.dispatch() == Dispatch::Handoff)
        };
        let position = state.cell.position();
        let by_kernel = self.machine.held(worker).filter_map(|(_, held)| {
            let slots = self.listeners.get(&held.listener)?.carrier.slots()?;
            slots.connections(position, worker)
        });
        let steered = by_kernel.fold(None, |sum, count| Some(sum.unwrap_or(0) + count));
        let mut held = self.machine.held(worker).map(|(_, held)| held);
        let handed = held
            .any(by_handoff)
            .then(|| self.ledger.accepted_count(worker));
        steered.or(handed)
    }
}
