//! What the machine decides, carried out: the one place where a worker begins to get connections.

use std::time::Duration;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::dispatch::machine::Effect;
use phalanx_core::fleet;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;

use crate::event::Event;
use crate::primary::clock;
use crate::primary::sink::Fact;
use crate::primary::state::Hub;

impl Hub {
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Serve { worker, listener } => self.serve(worker, listener),
                Effect::HasBegun { worker } => self.has_begun(worker),
                Effect::HasProven { worker } => self.has_proven(worker),
                Effect::Ready {
                    worker,
                    given,
                    is_without,
                } => self.is_ready(worker, &given, is_without),
                Effect::Lacks { worker, lack } => {
                    if self.is_supervised() {
                        self.happened(Fact::Lacks { worker, lack });
                    }
                }
                Effect::LookAt { worker, at } => self.look_at(worker, at),
                Effect::LookAtLeaver { worker, at } => {
                    self.look_at_leaver(worker, self.epoch + at);
                }
                Effect::Exclude { worker } => {
                    self.exclude(worker);
                    self.pump();
                }
                Effect::Tell { worker } => self.tell_to_leave(worker),
            }
        }
    }

    /// The worker gets its share of the listener's connections, by whatever carries them.
    fn serve(&mut self, worker: WorkerId, id: ListenerId) {
        let (Some(state), Some(listener)) =
            (self.workers.get(&worker), self.listeners.get_mut(&id))
        else {
            return;
        };
        let position = state.cell.position();
        match &mut listener.carrier {
            Carrier::Handoff(_) => self.ledger.join(id, worker, position),
            Carrier::Shared(_) => {}
            Carrier::Kernel(slots) => slots.serves(position, worker),
        }
    }

    fn has_begun(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        state.listening = true;
        let speaks = state.channel.is_some();
        self.sink.report(fleet::Event::Serves { worker });
        self.limit_offers(worker);
        if speaks {
            if self.needs_load() {
                self.watch_load_of(worker, true);
            }
            self.watch_newcomer(worker);
        }
        self.pump();
    }

    fn has_proven(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        state.listening = true;
        state.cell.set_ready();
        if let Some(shared) = self.shared.upgrade() {
            shared.trees.has_changed(worker);
        }
    }

    fn is_ready(&mut self, worker: WorkerId, given: &[ListenerId], is_without: bool) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        let speaks = state.channel.is_some();
        self.prepare_next();
        self.warn_of_sharing(worker);
        for id in given {
            if let Some(listener) = self.listeners.get(id) {
                let address = listener.address.clone();
                self.emit(&Event::Listening { worker, address });
            }
        }
        if is_without && !speaks {
            self.emit(&Event::Serves { worker });
        }
        if self.is_supervised() {
            self.happened(Fact::Ready { worker });
        }
    }

    fn look_at(&self, worker: WorkerId, at: Duration) {
        let (shared, at) = (self.shared.clone(), self.epoch + at);
        tokio::spawn(async move {
            clock::sleep_until(at).await;
            if let Some(shared) = shared.upgrade() {
                shared.hub().reconsider(worker);
            }
        });
    }
}
