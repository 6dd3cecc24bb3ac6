//! Readiness of workers that listen without telling: `exclusive` servers, `reusePort`, listeners in
//! worker threads, Bun's `http`. Node says nothing of them on the channel, so the kernel is asked.

use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::ids::WorkerId;

use super::Shared;
use super::hub::Hub;
use super::worker::Cell;
use crate::event::Event;

/// How often a worker that is online and has not said that it listens is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn start(shared: Weak<Shared>, cell: Arc<Cell>) {
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
        if state.listening || state.channel.is_none() {
            return None;
        }
        Some(state.online && state.held.is_empty())
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
