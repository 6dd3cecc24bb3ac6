//! The primary's state: workers, listeners, ledger. One lock, short and never held across an await;
//! every call in here is non-blocking.
//!
//! INVARIANT: a worker is in `workers` from its fork until its exit was seen, whatever becomes of its
//! channel. Its exit is announced exactly once, after everything it had written was read.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::allow::Allowance;
use phalanx_core::dispatch::any_port::AnyPort;
use phalanx_core::dispatch::complaints::Complaints;
use phalanx_core::dispatch::readiness::{Lack, Roll};
use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};
use phalanx_core::ledger::{Ledger, ListenerId};
use phalanx_core::policy::{PolicyName, Weights};
use phalanx_core::wire::{DrainLimits, ListenRequest};
use phalanx_sys::scoreboard::Scoreboard;
use phalanx_sys::steering::{Steering, Unavailable};
use tokio::sync::Notify;

use super::Shared;
use super::abandoned::Abandoned;
use super::answered::Answered;
use super::channel::Channel;
use super::drain::SeenHandshakes;
use super::hang::HangWatch;
use super::health::HealthWatch;
use super::intake::Intake;
use super::intercept::Calls;
use super::listeners::Listener;
use super::load::LoadSource;
use super::output::OutputSink;
use super::sd_notify::Acks;
use super::watch::Pulse;
use super::worker::{Cell, Departure};
use crate::event::Event;
use crate::policy::MakePolicy;
use crate::settings::{DispatchChoice, Settings};
use crate::subscribers::Subscribers;

/// Connections in flight to one worker at most: offered, not yet accepted. Node's own primary has one.
/// Measured with two Node 20 workers, four already give most of the throughput and more than sixteen
/// give nothing; a small window keeps connections from waiting behind a busy worker.
pub(super) const WINDOW: usize = 16;

/// What a worker has of a listener that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share {
    /// Nothing: it has asked for it, or was given it.
    None,
    /// It listens, and gets no connections yet.
    Listens,
    /// It gets its share of the connections.
    Serves,
}

/// A server of a worker, under the key that its `queryServer` was answered with.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) listener: ListenerId,
    pub(super) request: ListenRequest,
    pub(super) share: Share,
}

#[derive(Debug)]
pub(super) struct WorkerState {
    pub(super) cell: Arc<Cell>,
    pub(super) channel: Option<Channel>,
    pub(super) held: BTreeMap<String, Held>,
    pub(super) online: bool,
    pub(super) listening: bool,
    pub(super) last_handoff: Option<Moment>,
    /// What it says it is doing (`STATUS=`).
    pub(super) says: Option<String>,
    pub(super) load_source: LoadSource,
    pub(super) pulse: Pulse,
    /// What is known of its calls, where they are intercepted.
    pub(super) calls: Calls,
    /// How often it was complained of.
    pub(super) complaints: Complaints,
    /// How many listeners it told of that it had not asked for.
    pub(super) unknown_listeners: u32,
}

/// The words for complaints that were left out.
fn complained_before(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        count => format!(" ({count} complaints about it were left out)"),
    }
}

pub(crate) struct Hub {
    pub(super) shared: Weak<Shared>,
    pub(super) settings: Settings,
    pub(super) policy: PolicyName,
    pub(super) weights: Weights,
    /// Makes the policy for each listener, where the program brings its own.
    pub(super) custom_policy: Option<MakePolicy>,
    pub(super) dispatch: DispatchChoice,
    /// The means to dispatch in the kernel, or why there are none; nothing before it was asked for.
    pub(super) steering: Option<Result<Arc<Steering>, Unavailable>>,
    /// Where loads are kept; nothing before somebody counts.
    pub(super) board: Option<Arc<Scoreboard>>,
    /// What canaries are watched by.
    pub(super) health: HealthWatch,
    pub(super) answered: Answered,
    /// Who hangs.
    pub(super) hang: HangWatch,
    pub(super) intake: Intake,
    pub(super) abandoned: Abandoned,
    pub(super) seen_handshakes: SeenHandshakes,
    /// Somebody looks after the slots.
    pub(super) watching: bool,
    /// Takes what workers of the low-level style print.
    pub(super) output: Option<OutputSink>,
    pub(super) workers: BTreeMap<WorkerId, WorkerState>,
    pub(super) listeners: BTreeMap<ListenerId, Listener>,
    pub(super) ledger: Ledger<OwnedFd>,
    /// Who is ready, and who owes what.
    pub(super) roll: Roll,
    /// Intercepted workers that were seen to listen on sockets of their own.
    pub(super) unseen: BTreeSet<WorkerId>,
    /// When the roll's time began.
    pub(super) epoch: Moment,
    /// What workers that start were last said to lack.
    pub(super) lacks: BTreeMap<WorkerId, Lack>,
    /// What people were told that workers lack.
    pub(super) told_lacks: Vec<Lack>,
    pub(super) subscribers: Subscribers,
    pub(super) next_worker: u32,
    pub(super) next_listener: u32,
    /// How often the opening of a listener is told.
    pub(super) openings: Complaints,
    pub(super) inspectors: u16,
    /// Lent to whichever channel is read: most have nothing left over from one read to the next.
    pub(super) scratch: Vec<u8>,
    /// Where einhorn's acknowledgements are taken.
    pub(super) acks: Option<Acks>,
    /// Where workers may listen.
    pub(super) allowance: Allowance,
    /// The limits of those who keep any.
    pub(super) drain_limits: Option<DrainLimits>,
    /// Whose listeners on port 0 are, and what rings when that was decided.
    pub(super) any_port: AnyPort,
    pub(super) any_port_decided: Arc<Notify>,
    /// A timer that lets returned connections be offered to everyone again is running.
    pub(super) forgiving: bool,
    /// A timer after which a turn is awaited no more is running.
    pub(super) waiting_for_turn: bool,
}

impl Hub {
    pub(super) fn new(
        shared: Weak<Shared>,
        settings: Settings,
        policy: PolicyName,
        dispatch: DispatchChoice,
    ) -> Self {
        Self {
            shared,
            settings,
            policy,
            weights: Weights::default(),
            custom_policy: None,
            dispatch,
            steering: None,
            board: None,
            health: HealthWatch::default(),
            answered: Answered::default(),
            hang: HangWatch::default(),
            intake: Intake::default(),
            abandoned: Abandoned::default(),
            seen_handshakes: SeenHandshakes::default(),
            watching: false,
            output: None,
            workers: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ledger: Ledger::new(WINDOW),
            roll: Roll::new(Settings::READY_QUIET),
            unseen: BTreeSet::new(),
            epoch: super::clock::now(),
            lacks: BTreeMap::new(),
            told_lacks: Vec::new(),
            subscribers: Subscribers::default(),
            next_worker: 1,
            next_listener: 1,
            openings: Complaints::default(),
            inspectors: 0,
            scratch: Vec::new(),
            acks: None,
            allowance: Allowance::default(),
            drain_limits: None,
            any_port: AnyPort::default(),
            any_port_decided: Arc::default(),
            forgiving: false,
            waiting_for_turn: false,
        }
    }

    pub(crate) fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// The worker's channel, while it is open.
    pub(super) fn channel_mut(&mut self, worker: WorkerId) -> Option<&mut Channel> {
        self.workers.get_mut(&worker)?.channel.as_mut()
    }

    pub(super) fn emit(&mut self, event: &Event) {
        self.subscribers.emit(event);
    }

    /// Something went wrong with a worker. The event is the one to log.
    pub(super) fn error(&mut self, worker: WorkerId, message: String) {
        self.emit(&Event::Error { worker, message });
    }

    /// A worker misbehaves, perhaps without end: that is told as often as is of use.
    pub(super) fn complain(&mut self, worker: WorkerId, what: &str) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if let Some(left_out) = state.complaints.another(phalanx_sys::clock::coarse()) {
            let more = complained_before(left_out);
            self.error(worker, format!("{what}{more}"));
        }
    }

    /// The lowest position that no live worker holds.
    pub(super) fn free_position(&self) -> Position {
        let mut taken: Vec<u32> = self
            .workers
            .values()
            .map(|worker| worker.cell.position().0)
            .collect();
        taken.sort_unstable();
        taken.dedup();
        let free = (0..).zip(&taken).find(|(index, taken)| index != *taken);
        Position(free.map_or_else(
            || u32::try_from(taken.len()).unwrap_or(u32::MAX),
            |(index, _)| index,
        ))
    }

    /// A worker's process was started.
    pub(super) fn adopt(
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
        let mut older = self.workers.values().rev();
        let predecessor = older.find(|state| state.cell.position() == cell.position());
        let load_source = LoadSource::new(predecessor.map(|state| &state.load_source));
        self.workers.insert(
            cell.id,
            WorkerState {
                cell,
                channel,
                held,
                online: false,
                listening: false,
                last_handoff: None,
                says: None,
                load_source,
                pulse: Pulse::default(),
                calls: Calls::default(),
                complaints: Complaints::default(),
                unknown_listeners: 0,
            },
        );
        self.emit(&event);
    }

    /// The channel ended: the worker drained, or lost it. What it had not accepted goes to others.
    pub(super) fn channel_closed(&mut self, worker: WorkerId) {
        let state = self.workers.get(&worker);
        if state.is_some_and(|state| state.channel.is_some()) {
            self.detach(worker);
        }
    }

    /// The worker serves nothing any more: its channel ended, or it had none and is gone.
    fn detach(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if !state.cell.connected.swap(false, Ordering::AcqRel) {
            return;
        }
        let had_channel = state.channel.take().is_some();
        state.held.clear();
        state.cell.changed.notify_waiters();
        let position = state.cell.position();
        self.trier_gone(worker);
        self.left(worker, position);
        self.forget_load(worker);
        self.answered.forget(worker);
        self.gone_from_slots(worker);
        let returned = self.ledger.worker_gone(worker);
        self.count_returned(worker, returned);
        if had_channel {
            self.emit(&Event::Disconnect { worker });
        }
        self.pump();
    }

    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        let workers = self.workers.values();
        workers.map(|state| Arc::clone(&state.cell)).collect()
    }

    /// The process has ended, though others of its tree may live: it gets nothing new.
    pub(super) fn ended(&mut self, worker: WorkerId) {
        let state = self.workers.get(&worker);
        if state.is_some_and(|state| state.channel.is_none()) {
            self.detach(worker);
        }
    }

    /// The process is gone; whatever it wrote has been read.
    pub(super) fn exited(&mut self, worker: WorkerId, status: ExitStatus) {
        self.detach(worker);
        self.strike_off(worker);
        let Some(mut state) = self.workers.remove(&worker) else {
            return;
        };
        let left_out = state.complaints.take_left_out();
        if left_out > 0 {
            self.error(
                worker,
                format!("{left_out} complaints about it were left out"),
            );
        }
        let voluntary = state.cell.end(status);
        state.cell.changed.notify_waiters();
        self.emit(&Event::exit(worker, status, voluntary));
    }

    /// The worker is given no new connections from now on.
    pub(super) fn exclude(&mut self, worker: WorkerId) {
        self.ledger.exclude(worker);
        let now = super::clock::now();
        if self.exclude_from_slots(worker)
            && let Some(state) = self.workers.get_mut(&worker)
        {
            // The last one that the kernel gave it may have come just now.
            state.last_handoff = Some(now);
        }
        if let Some(state) = self.workers.get(&worker) {
            let position = state.cell.position();
            self.left(worker, position);
        }
    }

    /// Asks a worker to leave: no new connections from now on, or, when all leave, from when none waits any more; when
    /// those in flight are settled it is told to disconnect, or sent its stop signal, once. False when it is leaving already.
    pub(super) fn disconnect(&mut self, worker: WorkerId) -> bool {
        let Some(state) = self.workers.get_mut(&worker) else {
            return false;
        };
        if !state.cell.is_connected() || !state.cell.depart(Departure::Asked) {
            return false;
        }
        let cell = Arc::clone(&state.cell);
        if let Some(drain) = self.begin_drain(worker) {
            super::drain::start(self.shared.clone(), cell, drain);
        }
        true
    }
}
