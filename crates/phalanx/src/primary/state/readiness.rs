//! Readiness of workers: what they are seen to do is told to the machine (`phalanx_core::dispatch::machine`), which
//! decides who is ready and who gets connections; what it answers is carried out here. Nowhere else does a worker begin to get
//! connections.

mod observe;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::dispatch::complaints::Complaints;
use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::dispatch::machine::{Comes, Effect, Input, Newcomer};
use phalanx_core::dispatch::readiness::{ListenerName, Proof, is_debugger};
use phalanx_core::fleet;
use phalanx_core::ids::{Generation, WorkerId};
use phalanx_core::ledger::ListenerId;

use crate::event::Event;
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::{Alarm, Until};
use crate::primary::sink::Fact;
use crate::primary::sockets::channel::Channel;
use crate::primary::state::intercept::Calls;
use crate::primary::state::load::LoadSource;
use crate::primary::state::requests::Awaited;
use crate::primary::state::watch::Pulse;
use crate::primary::state::{Held, Hub, Share, WorkerState};
use crate::primary::tasks::timer;
use crate::settings::{Adoption, Readiness, Settings};

/// What proves that a worker with these settings serves.
fn proof(settings: &Settings) -> Proof {
    match (settings.adoption, &settings.readiness) {
        (Adoption::None, _) | (_, Readiness::Exec) => Proof::Running,
        (_, Readiness::Http(_)) => Proof::Answer,
        (_, Readiness::Notify) => Proof::Word,
        (_, Readiness::Auto | Readiness::Listen) => Proof::Listeners,
    }
}

fn comes(adoption: Adoption) -> Comes {
    match adoption {
        Adoption::Activation => Comes::Given,
        Adoption::Channel | Adoption::Intercept | Adoption::None => Comes::Asking,
    }
}

impl Hub {
    /// Whether a supervisor runs the app: in the low-level style there are the events of Node's cluster, and no others.
    pub(super) fn is_supervised(&self) -> bool {
        self.drain_limits.is_some()
    }

    /// The time, as the machine counts it.
    pub(super) fn time(&self) -> Duration {
        clock::now() - self.epoch
    }

    /// A worker's process was started.
    pub(in crate::primary) fn adopt(
        &mut self,
        cell: Arc<Cell>,
        generation: Generation,
        channel: Option<Channel>,
        held: BTreeMap<String, Held>,
    ) {
        let event = Event::Fork {
            worker: cell.id,
            position: cell.position(),
            generation,
            pid: cell.pid.as_u32(),
        };
        self.tally.has_position(cell.position());
        let worker = cell.id;
        let mut older = self.workers.values().rev();
        let predecessor = older.find(|state| state.cell.position() == cell.position());
        let load_source = LoadSource::new(predecessor.map(|state| &state.load_source));
        self.workers.insert(
            cell.id,
            WorkerState {
                cell,
                channel,
                online: false,
                listening: false,
                last_handoff: None,
                says: None,
                load_source,
                pulse: Pulse::default(),
                calls: Calls::default(),
                complaints: Complaints::default(),
                awaited: Awaited::default(),
                unknown_listeners: 0,
            },
        );
        for (key, held) in held {
            self.machine.hold(worker, &key, held);
        }
        self.emit(&event);
    }

    /// Tells the machine what was seen of a worker, and does what it says.
    pub(super) fn step(&mut self, worker: WorkerId, input: Input) {
        let now = self.time();
        let workers = &self.workers;
        let standing = |worker| workers.get(&worker).map(|state| state.cell.stands());
        let effects = self.machine.step(worker, input, now, &standing);
        self.carry_out(effects);
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
        self.machine
            .set_quiet(settings.ready_quiet.unwrap_or(Settings::READY_QUIET));
        let newcomer = Newcomer {
            position: cell.position(),
            generation,
            proof: proof(settings),
            comes: comes(cell.adoption),
        };
        self.machine.enrol(cell.id, newcomer, now);
    }

    /// The worker listens on the listener that it holds under this key. True when that is news.
    pub(in crate::primary) fn listens(&mut self, worker: WorkerId, key: &str) -> bool {
        let Some(state) = self.workers.get(&worker) else {
            return false;
        };
        let Some(held) = self.machine.held_as(worker, key) else {
            return false;
        };
        if state.cell.departure().is_some() {
            return false;
        }
        let is_news = held.share == Share::None;
        let listener = self.listeners.get(&held.listener);
        let address = listener.and_then(|listener| listener.address.inet());
        let is_debugger = state.cell.adoption == Adoption::Intercept
            && address.is_some_and(|address| is_debugger(address, state.cell.inspector));
        let key = key.to_owned();
        let counts = !is_debugger;
        self.step(worker, Input::Listens { key, counts });
        is_news
    }

    /// The worker was seen to wait for connections on a listener that it was given.
    pub(super) fn waits_on(&mut self, worker: WorkerId, key: &str) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        if state.cell.adoption == Adoption::Intercept {
            self.step(
                worker,
                Input::Accepts {
                    key: key.to_owned(),
                },
            );
            return self.serves_on(worker, key);
        }
        self.note_takers();
        let key = key.to_owned();
        self.step(worker, Input::Waits { key });
    }

    /// Who has taken connections from a listener that it was given serves it, and is perhaps too busy to be seen waiting
    /// for more: its successor shall have it too.
    fn note_takers(&mut self) {
        let now = self.time();
        let mut takers = Vec::new();
        for (&worker, state) in &self.workers {
            if state.cell.adoption != Adoption::Activation || !state.cell.is_ready() {
                continue;
            }
            let position = state.cell.position();
            let taken = self.machine.held(worker).filter(|(_, held)| {
                let listener = self.listeners.get(&held.listener);
                let slots = listener.and_then(|listener| listener.carrier.slots());
                slots.is_some_and(|slots| slots.has_taken(position, worker))
            });
            takers.extend(taken.map(|(key, _)| (worker, key.clone())));
        }
        for (worker, key) in takers {
            self.machine.takes(worker, &key, now);
        }
    }

    /// The worker was seen to accept connections on a listener that it has asked for.
    pub(super) fn accepts(&mut self, worker: WorkerId, key: &str) {
        self.step(
            worker,
            Input::Accepts {
                key: key.to_owned(),
            },
        );
    }

    /// The worker cannot be seen to accept connections: of one that was given its listeners, its word is enough.
    pub(super) fn hides(&mut self, worker: WorkerId) {
        let state = self.workers.get(&worker);
        if state.is_some_and(|state| state.cell.adoption == Adoption::Activation) {
            return self.proves(worker);
        }
        self.step(worker, Input::Hides);
    }

    /// The worker has given its word, or a good answer.
    pub(in crate::primary) fn proves(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.step(worker, Input::Proves);
        }
    }

    /// The worker listens on sockets of its own, of which it has told nobody.
    pub(super) fn listens_by_itself(&mut self, worker: WorkerId, names: Vec<ListenerName>) {
        if let Some(state) = self.workers.get_mut(&worker)
            && !std::mem::replace(&mut state.listening, true)
        {
            if state.cell.adoption == Adoption::Intercept {
                self.unseen.insert(worker);
            }
            self.emit(&Event::ListeningUnseen { worker });
        }
        self.step(worker, Input::ListensByItself { names });
    }

    /// The worker has closed a listener of its own accord.
    pub(in crate::primary) fn closes(&mut self, worker: WorkerId, name: ListenerName) {
        self.step(worker, Input::Closes { name });
    }

    /// The listener is one worker's own: whoever starts need not have it.
    pub(in crate::primary) fn disown(&mut self, name: &ListenerName) {
        let now = self.time();
        let workers = &self.workers;
        let standing = |worker| workers.get(&worker).map(|state| state.cell.stands());
        let effects = self.machine.disown(name, now, &standing);
        self.carry_out(effects);
    }

    /// The worker leaves, or is gone: who follows it may serve what it has.
    pub(in crate::primary) fn left(&mut self, worker: WorkerId) {
        self.step(worker, Input::Leaves);
    }

    /// Forgets a worker whose process is gone.
    pub(in crate::primary) fn strike_off(&mut self, worker: WorkerId) {
        let now = self.time();
        self.machine.gone(worker, now);
        self.unseen.remove(&worker);
    }

    pub(in crate::primary) fn drop_generation(&mut self, generation: Generation) {
        self.machine.drop_generation(generation);
    }

    /// Looks whether the worker is ready by now, and whether others are because it is.
    pub(in crate::primary) fn reconsider(&mut self, worker: WorkerId) {
        self.step(worker, Input::Look);
    }

    /// The worker is waited for no longer: it is ready with what it has.
    pub(in crate::primary) fn accept(&mut self, worker: WorkerId) {
        self.step(worker, Input::Accepted);
    }

    /// Asks a worker to leave that serves and is not ready. False when it is neither.
    pub(in crate::primary) fn leaves_before_ready(&mut self, worker: WorkerId) -> bool {
        let state = self.workers.get(&worker);
        let is_ready = state.is_none_or(|state| state.cell.is_ready());
        !is_ready && self.machine.serves(worker) && self.disconnect(worker)
    }
}

/// What the machine decides, carried out: the one place where a worker begins to get connections.
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
        self.settle_slots_later(id);
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
        let at = Until::At(self.epoch + at);
        timer::ring(self.mailbox(), at, Alarm::Reconsider(worker));
    }
}
