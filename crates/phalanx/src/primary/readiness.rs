//! Readiness of workers that listen without telling: `exclusive` servers, `reusePort`, listeners in
//! worker threads, Bun's `http`. Node says nothing of them on the channel, so the kernel is asked.
//!
//! And readiness of workers that have no channel: what proves it depends on their adoption.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::ids::WorkerId;
use phalanx_sys::waiting::waits_on;

use super::Shared;
use super::hub::Hub;
use super::worker::{Cell, Departure};
use crate::event::Event;
use crate::settings::{Adoption, Readiness};

/// How often a worker that is online and has not said that it listens is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// How often a worker that was given its listeners is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Watches for the worker's readiness as its adoption demands; `sockets` are those that it was given.
pub(super) fn start(shared: &Weak<Shared>, cell: &Arc<Cell>, sockets: Vec<Weak<OwnedFd>>) {
    match cell.adoption {
        Adoption::Channel | Adoption::Intercept => {
            watch_the_silent(Weak::clone(shared), Arc::clone(cell));
        }
        Adoption::Activation => match cell.readiness {
            Readiness::Auto | Readiness::Listen => watch_for_waiting(shared, cell, sockets),
            Readiness::Http(_) => super::probe::start(Weak::clone(shared), Arc::clone(cell)),
            Readiness::Notify => {}
            Readiness::Exec => running_is_enough(shared, cell),
        },
        Adoption::None => running_is_enough(shared, cell),
    }
}

fn running_is_enough(shared: &Weak<Shared>, cell: &Cell) {
    if let Some(shared) = shared.upgrade() {
        shared.hub().serves(cell.id);
    }
}

/// Waits until the worker is seen to wait for connections on one of its sockets.
pub(super) fn watch_for_waiting(
    shared: &Weak<Shared>,
    cell: &Arc<Cell>,
    sockets: Vec<Weak<OwnedFd>>,
) {
    let (shared, cell) = (Weak::clone(shared), Arc::clone(cell));
    tokio::spawn(async move {
        loop {
            let next = phalanx_sys::clock::now() + LOOK_INTERVAL;
            tokio::time::sleep_until(next.into()).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let will_say = cell.readiness == Readiness::Auto && cell.speaks();
            if will_say || cell.is_ready() || !cell.is_connected() {
                return;
            }
            let mut held = sockets.iter().filter_map(Weak::upgrade);
            let waits = |socket: Arc<OwnedFd>| waits_on(cell.pid, socket.as_fd()).unwrap_or(false);
            if held.any(waits) {
                return shared.hub().serves(cell.id);
            }
        }
    });
}

fn watch_the_silent(shared: Weak<Shared>, cell: Arc<Cell>) {
    tokio::spawn(async move {
        loop {
            let next = phalanx_sys::clock::now() + INTERVAL;
            tokio::time::sleep_until(next.into()).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let silent = shared.hub().is_silent(cell.id);
            match silent {
                None => return,
                Some(false) => {}
                Some(true) => {
                    // Seen twice in a row would not prove more: a listening socket is a fact.
                    if phalanx_sys::listening::listens(cell.pid).unwrap_or(false) {
                        shared.hub().listens_by_itself(cell.id);
                        return;
                    }
                }
            }
        }
    });
}

impl Hub {
    /// Is the worker online and has asked for no listener? Nothing once that question is settled.
    fn is_silent(&self, worker: WorkerId) -> Option<bool> {
        let state = self.workers.get(&worker)?;
        let can_tell = state.channel.is_some() || state.cell.adoption == Adoption::Intercept;
        if state.listening || !can_tell {
            return None;
        }
        Some(state.online && state.held.is_empty())
    }

    /// A worker without a channel is ready: what it listens on is its own from now on.
    pub(super) fn serves(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if state.listening || state.cell.departure() != Departure::None {
            return;
        }
        state.listening = true;
        state.cell.set_ready();
        if let Some(shared) = self.shared.upgrade() {
            shared.trees.has_changed(worker);
        }
        let takes_part = state.cell.takes_part();
        let position = state.cell.position;
        let mut addresses = Vec::new();
        for held in state.held.values_mut() {
            held.announced = true;
            let Some(listener) = self.listeners.get_mut(&held.listener) else {
                continue;
            };
            if let Some(slots) = listener.slots.as_mut().filter(|_| takes_part) {
                slots.serves(position, worker);
            }
            addresses.push(listener.address.clone());
        }
        if addresses.is_empty() {
            return self.emit(&Event::Serves { worker });
        }
        for address in addresses {
            self.emit(&Event::Listening { worker, address });
        }
    }

    fn listens_by_itself(&mut self, worker: WorkerId) {
        if let Some(state) = self
            .workers
            .get_mut(&worker)
            .filter(|state| !state.listening)
        {
            state.listening = true;
            self.emit(&Event::ListeningUnseen { worker });
        }
    }
}
