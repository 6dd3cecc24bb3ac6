//! Readiness of workers, carried out: what they are seen to do is told to the roll
//! (`phalanx_core::dispatch::readiness`), which decides; here is the one way on which a worker of whatever
//! adoption begins to serve.
//!
//! INVARIANT: what a worker listens on is its own only when [`Hub::begin_serving`] has given it its share; that
//! asks the roll, whether the worker may have any, and whether it is held back to soak.

mod observe;

use std::time::Duration;

use phalanx_core::dispatch::readiness::{ListenerName, Proof, Verdict, is_debugger};
use phalanx_core::ids::{Generation, Position, WorkerId};

use crate::event::Event;
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::sink::Fact;
use crate::primary::state::choice::Dispatch;
use crate::primary::state::{Hub, Share};
use crate::settings::{Adoption, Readiness, Settings};
pub(in crate::primary) use observe::{own_listeners, start, watch_for_waiting};

/// What proves that a worker with these settings serves.
fn proof(settings: &Settings) -> Proof {
    match (settings.adoption, &settings.readiness) {
        (Adoption::None, _) | (_, Readiness::Exec) => Proof::Running,
        (_, Readiness::Http(_)) => Proof::Answer,
        (_, Readiness::Notify) => Proof::Word,
        (_, Readiness::Auto | Readiness::Listen) => Proof::Listeners,
    }
}

impl Hub {
    /// Whether a supervisor runs the app: in the low-level style there are the events of Node's cluster, and no others.
    fn is_supervised(&self) -> bool {
        self.drain_limits.is_some()
    }

    /// The time, as the roll counts it.
    fn time(&self) -> Duration {
        clock::now() - self.epoch
    }

    /// A worker starts. One of the low-level style has no predecessor that serves at its position, and so serves each
    /// listener as soon as it listens.
    pub(in crate::primary) fn enrol(
        &mut self,
        cell: &Cell,
        generation: Generation,
        settings: &Settings,
    ) {
        let now = self.time();
        self.roll
            .set_quiet(settings.ready_quiet.unwrap_or(Settings::READY_QUIET));
        let place = (cell.position(), generation);
        self.roll.enrol(cell.id, place, proof(settings), now);
    }

    /// The worker listens on the listener that it holds under this key. True when that is news.
    pub(in crate::primary) fn listens(&mut self, worker: WorkerId, key: &str) -> bool {
        let now = self.time();
        let Some(state) = self.workers.get_mut(&worker) else {
            return false;
        };
        if state.cell.departure().is_some() {
            return false;
        }
        let Some(held) = state.held.get_mut(key) else {
            return false;
        };
        let is_news = held.share == Share::None;
        if is_news {
            held.share = Share::Listens;
        }
        let address = self.listeners.get(&held.listener);
        let address = address.and_then(|listener| listener.address.inet());
        let is_debugger = state.cell.adoption == Adoption::Intercept
            && address.is_some_and(|address| is_debugger(address, state.cell.inspector));
        if !is_debugger {
            let name = ListenerName::of_request(&held.request, key);
            self.roll.listens(worker, name, now);
        }
        self.begin_serving(worker);
        is_news
    }

    /// The worker was seen to wait for connections on a listener that it was given.
    fn waits_on(&mut self, worker: WorkerId, key: &str) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        if state.cell.adoption == Adoption::Intercept {
            return self.serves_on(worker, key);
        }
        if let Some(held) = state.held.get(key) {
            let (name, now) = (ListenerName::of_request(&held.request, key), self.time());
            self.note_takers();
            self.roll.listens(worker, name, now);
            self.reconsider(worker);
        }
    }

    /// Who has taken connections from a listener that it was given serves it, and is perhaps too busy to be seen waiting
    /// for more: its successor shall have it too.
    fn note_takers(&mut self) {
        let now = self.time();
        for (&worker, state) in &self.workers {
            if state.cell.adoption != Adoption::Activation || !state.cell.is_ready() {
                continue;
            }
            let position = state.cell.position();
            for (key, held) in &state.held {
                let listener = self.listeners.get(&held.listener);
                let slots = listener.and_then(|listener| listener.slots.as_ref());
                if slots.is_some_and(|slots| slots.has_taken(position, worker)) {
                    let name = ListenerName::of_request(&held.request, key);
                    self.roll.listens(worker, name, now);
                }
            }
        }
    }

    /// The worker has given its word, or a good answer.
    pub(in crate::primary) fn proves(&mut self, worker: WorkerId) {
        let now = self.time();
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        if state.cell.adoption == Adoption::Activation {
            for (key, held) in &state.held {
                let name = ListenerName::of_request(&held.request, key);
                self.roll.listens(worker, name, now);
            }
        }
        self.roll.proves(worker);
        self.reconsider(worker);
        self.begin_serving(worker);
    }

    /// The worker listens on sockets of its own, of which it has told nobody.
    fn listens_by_itself(&mut self, worker: WorkerId, names: Vec<ListenerName>) {
        if let Some(state) = self.workers.get_mut(&worker)
            && !std::mem::replace(&mut state.listening, true)
        {
            if state.cell.adoption == Adoption::Intercept {
                self.unseen.insert(worker);
            }
            self.emit(&Event::ListeningUnseen { worker });
        }
        let now = self.time();
        for name in names {
            self.roll.listens(worker, name, now);
        }
        self.reconsider(worker);
    }

    /// The worker has closed a listener of its own accord.
    pub(in crate::primary) fn closes(&mut self, worker: WorkerId, name: &ListenerName) {
        let now = self.time();
        self.roll.closes(worker, name, now);
        self.reconsider(worker);
    }

    /// The listener is one worker's own: whoever starts need not have it.
    pub(in crate::primary) fn disown(&mut self, name: &ListenerName) {
        self.roll.disown(name);
        for worker in self.roll.starting() {
            self.reconsider(worker);
        }
    }

    /// The worker leaves, or is gone: who follows it may serve what it has.
    pub(in crate::primary) fn left(&mut self, worker: WorkerId, position: Position) {
        let now = self.time();
        self.roll.leaves(worker, now);
        for successor in self.roll.starting_at(position) {
            self.begin_serving(successor);
        }
    }

    /// Forgets a worker whose process is gone.
    pub(in crate::primary) fn strike_off(&mut self, worker: WorkerId) {
        let now = self.time();
        self.roll.gone(worker, now);
        self.unseen.remove(&worker);
    }

    pub(crate) fn drop_generation(&mut self, generation: Generation) {
        self.roll.drop_generation(generation);
    }

    /// Looks whether the worker is ready by now, and whether others are because it is.
    pub(in crate::primary) fn reconsider(&mut self, worker: WorkerId) {
        let mut open = vec![worker];
        while let Some(worker) = open.pop() {
            if self.is_ready_now(worker) && self.becomes_ready(worker) {
                open = self.roll.starting();
            }
        }
    }

    fn is_ready_now(&mut self, worker: WorkerId) -> bool {
        let Some(state) = self.workers.get(&worker) else {
            return false;
        };
        if !self.roll.knows(worker) || state.cell.departure().is_some() {
            return false;
        }
        match self.roll.verdict(worker, self.time()) {
            Verdict::Ready => return true,
            Verdict::ReadyAt(at) => self.reconsider_at(worker, at),
            Verdict::Lacks(lack) => {
                if self.lacks.get(&worker) != Some(&lack) {
                    self.lacks.insert(worker, lack.clone());
                    if self.is_supervised() {
                        self.happened(Fact::Lacks { worker, lack });
                    }
                }
            }
        }
        false
    }

    fn reconsider_at(&self, worker: WorkerId, at: Duration) {
        let (shared, at) = (self.shared.clone(), self.epoch + at);
        tokio::spawn(async move {
            clock::sleep_until(at).await;
            if let Some(shared) = shared.upgrade() {
                shared.hub().reconsider(worker);
            }
        });
    }

    /// The worker is waited for no longer: it is ready with what it has.
    pub(crate) fn accept(&mut self, worker: WorkerId) {
        self.becomes_ready(worker);
    }

    /// Asks a worker to leave that serves and is not ready. False when it is neither.
    pub(in crate::primary) fn leaves_before_ready(&mut self, worker: WorkerId) -> bool {
        let Some(state) = self.workers.get(&worker) else {
            return false;
        };
        let serves = state.held.values().any(|held| held.share == Share::Serves);
        serves && !state.cell.is_ready() && self.disconnect(worker)
    }

    /// False when it was ready before.
    fn becomes_ready(&mut self, worker: WorkerId) -> bool {
        if !self.roll.settle(worker) {
            return false;
        }
        self.lacks.remove(&worker);
        let Some(state) = self.workers.get_mut(&worker) else {
            return false;
        };
        state.listening = true;
        state.cell.set_ready();
        if let Some(shared) = self.shared.upgrade() {
            shared.trees.has_changed(worker);
        }
        let mut given = Vec::new();
        if state.cell.adoption == Adoption::Activation {
            for held in state.held.values_mut() {
                held.share = held.share.max(Share::Listens);
                given.push(held.listener);
            }
        }
        let is_without = state.held.is_empty() && state.channel.is_none();
        self.begin_serving(worker);
        self.warn_of_sharing(worker);
        for id in given {
            if let Some(listener) = self.listeners.get(&id) {
                let address = listener.address.clone();
                self.emit(&Event::Listening { worker, address });
            }
        }
        if is_without {
            self.emit(&Event::Serves { worker });
        }
        if self.is_supervised() {
            self.happened(Fact::Ready { worker });
        }
        true
    }

    /// Gives the worker its share of the connections to what it listens on, if it may have one.
    pub(in crate::primary) fn begin_serving(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if !state.cell.takes_part() || self.roll.is_shut(worker) {
            return;
        }
        let position = state.cell.position();
        let mut has_begun = false;
        for held in state.held.values_mut() {
            if held.share != Share::Listens {
                continue;
            }
            let Some(listener) = self.listeners.get_mut(&held.listener) else {
                continue;
            };
            held.share = Share::Serves;
            has_begun = true;
            match (listener.choice.dispatch, listener.slots.as_mut()) {
                (_, Some(slots)) => {
                    slots.serves(position, worker);
                    if self.ledger.has_listener(held.listener) && state.channel.is_some() {
                        self.ledger.join(held.listener, worker, position);
                    }
                }
                (Dispatch::Handoff, None) => self.ledger.join(held.listener, worker, position),
                (Dispatch::Shared | Dispatch::Kernel, None) => {}
            }
        }
        if !has_begun {
            return;
        }
        state.listening = true;
        let speaks = state.channel.is_some();
        self.limit_offers(worker);
        if speaks {
            if self.needs_load() {
                self.watch_load_of(worker, true);
            }
            self.watch_newcomer(worker);
        }
        self.pump();
    }
}
