//! The primary's state: workers, listeners, ledger. One lock, short and never held across an await;
//! every call in here is non-blocking.
//!
//! INVARIANT: a worker is in `workers` from its fork until its exit was seen, whatever becomes of its
//! channel. Its exit is announced exactly once, after everything it had written was read.

pub(in crate::primary) mod abandoned;
pub(in crate::primary) mod admit;
mod alarms;
pub(in crate::primary) mod answered;
pub(in crate::primary) mod app_metrics;
pub(in crate::primary) mod batch;
pub(in crate::primary) mod dispatch;
pub(in crate::primary) mod drain;
pub(in crate::primary) mod full;
mod handles;
pub(in crate::primary) mod hang;
pub(in crate::primary) mod health;
pub(in crate::primary) mod inbox;
pub(in crate::primary) mod inherited_fds;
pub(in crate::primary) mod intake;
pub(in crate::primary) mod intercept;
pub(in crate::primary) mod listeners;
pub(in crate::primary) mod load;
mod loop_load;
pub(in crate::primary) mod messages;
mod one_socket;
pub(in crate::primary) mod open;
mod options;
pub(in crate::primary) mod policy;
pub(in crate::primary) mod probe;
mod program;
pub(in crate::primary) mod readiness;
pub(in crate::primary) mod rebalance;
pub(in crate::primary) mod recall;
pub(in crate::primary) mod requests;
pub(in crate::primary) mod sd_notify;
mod shared;
pub(in crate::primary) mod slot_events;
pub(in crate::primary) mod spares;
pub(in crate::primary) mod splice;
pub(in crate::primary) mod tally;
pub(in crate::primary) mod unseen;
mod view;
pub(in crate::primary) mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::allow::Allowance;
use phalanx_core::dispatch::any_port::AnyPort;
use phalanx_core::dispatch::complaints::Complaints;
use phalanx_core::dispatch::machine::Machine;
pub(in crate::primary) use phalanx_core::dispatch::machine::{Held, Share};
use phalanx_core::dispatch::readiness::Lack;
use phalanx_core::ids::{ExitStatus, Position, WorkerId};
use phalanx_core::ledger::{Ledger, ListenerId};
use phalanx_core::policy::{PolicyName, Weights};
use phalanx_core::wire::DrainLimits;
use phalanx_sys::connections::Handshake;
use phalanx_sys::scoreboard::Scoreboard;
use phalanx_sys::steering::{Steering, Unavailable};
use tokio::sync::Notify;

use crate::event::Event;
use crate::policy::MakePolicy;
use crate::primary::cell::{Cell, Departure};
use crate::primary::sink::{Fact, Sink};
use crate::primary::sockets::channel::Channel;
use crate::primary::state::abandoned::Abandoned;
use crate::primary::state::answered::Answered;
use crate::primary::state::app_metrics::AppMetrics;
use crate::primary::state::drain::SeenHandshakes;
use crate::primary::state::hang::HangWatch;
use crate::primary::state::health::HealthWatch;
use crate::primary::state::intake::Intake;
use crate::primary::state::intercept::Calls;
use crate::primary::state::listeners::Listener;
use crate::primary::state::load::LoadSource;
use crate::primary::state::loop_load::LoopLoads;
use crate::primary::state::rebalance::Rebalancing;
use crate::primary::state::requests::Awaited;
use crate::primary::state::sd_notify::Acks;
use crate::primary::state::splice::Keeping;
use crate::primary::state::tally::Tally;
use crate::primary::state::watch::{Pulse, Watch};
use crate::primary::tasks::output::LinesSink;
use crate::settings::{DispatchChoice, Settings};

pub(crate) use shared::Shared;

/// Connections in flight to one worker at most: offered, not yet accepted. Node's own primary has one.
/// Measured with two Node 20 workers, four already give most of the throughput and more than sixteen
/// give nothing; a small window keeps connections from waiting behind a busy worker.
pub(in crate::primary) const WINDOW: usize = 16;

#[derive(Debug)]
pub(in crate::primary) struct WorkerState {
    pub(in crate::primary) cell: Arc<Cell>,
    pub(in crate::primary) channel: Option<Channel>,
    pub(in crate::primary) online: bool,
    pub(in crate::primary) listening: bool,
    pub(in crate::primary) last_handoff: Option<Moment>,
    /// What it says it is doing (`STATUS=`).
    pub(in crate::primary) says: Option<String>,
    pub(in crate::primary) load_source: LoadSource,
    pub(in crate::primary) pulse: Pulse,
    /// What is known of its calls, where they are intercepted.
    pub(in crate::primary) calls: Calls,
    /// How often it was complained of.
    pub(in crate::primary) complaints: Complaints,
    /// What it has asked for and is not answered yet.
    awaited: Awaited,
    /// How many listeners it told of that it had not asked for.
    pub(in crate::primary) unknown_listeners: u32,
}

/// The words for complaints that were left out.
fn complained_before(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        count => format!(" ({count} complaints about it were left out)"),
    }
}

pub(crate) struct Hub {
    shared: Weak<Shared>,
    settings: Settings,
    policy: PolicyName,
    weights: Weights,
    /// Makes the policy for each listener, where the program brings its own.
    custom_policy: Option<MakePolicy>,
    dispatch: DispatchChoice,
    /// Node's own primary opens what its workers ask for.
    leaves_listeners: bool,
    /// The means to dispatch in the kernel, or why there are none; nothing before it was asked for.
    steering: Option<Result<Arc<Steering>, Unavailable>>,
    /// Where loads are kept; nothing before somebody counts.
    board: Option<Arc<Scoreboard>>,
    /// Whether those answer that are watched while there are canaries.
    health: HealthWatch,
    answered: Answered,
    app_metrics: AppMetrics,
    /// What was counted of listeners that are closed.
    tally: Tally,
    /// Who hangs.
    hang: HangWatch,
    rebalancing: Rebalancing,
    /// How busy event loops are.
    loops: LoopLoads,
    intake: Intake,
    abandoned: Abandoned,
    seen_handshakes: SeenHandshakes,
    /// What is looked after.
    watch: Watch,
    /// Takes what workers of the low-level style print.
    output: Option<LinesSink>,
    workers: BTreeMap<WorkerId, WorkerState>,
    listeners: BTreeMap<ListenerId, Listener>,
    ledger: Ledger<OwnedFd>,
    /// Who holds what, who is ready, and who gets connections.
    machine: Machine<Handshake>,
    /// Intercepted workers that were seen to listen on sockets of their own.
    unseen: BTreeSet<WorkerId>,
    /// When the machine's time began.
    epoch: Moment,
    /// What people were told that workers lack.
    told_lacks: Vec<Lack>,
    sink: Sink,
    /// What an engine after this one needs, where there may be one.
    keeping: Keeping,
    next_worker: u32,
    next_listener: u32,
    /// How often the opening of a listener is told.
    openings: Complaints,
    inspectors: u16,
    /// Lent to whichever channel is read: most have nothing left over from one read to the next.
    scratch: Vec<u8>,
    /// Where einhorn's acknowledgements are taken.
    acks: Option<Acks>,
    /// Where workers may listen.
    allowance: Allowance,
    /// The limits of those who keep any.
    drain_limits: Option<DrainLimits>,
    /// Whose listeners on port 0 are, and what rings when that was decided.
    any_port: AnyPort,
    any_port_decided: Arc<Notify>,
    /// A timer that lets returned connections be offered to everyone again is running.
    forgiving: bool,
    /// A timer after which a turn is awaited no more is running.
    waiting_for_turn: bool,
}

impl Hub {
    pub(in crate::primary) fn new(
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
            leaves_listeners: false,
            steering: None,
            board: None,
            health: HealthWatch::default(),
            answered: Answered::default(),
            app_metrics: AppMetrics::default(),
            tally: Tally::default(),
            hang: HangWatch::default(),
            rebalancing: Rebalancing::default(),
            loops: LoopLoads::default(),
            intake: Intake::default(),
            abandoned: Abandoned::default(),
            seen_handshakes: SeenHandshakes::default(),
            watch: Watch::default(),
            output: None,
            workers: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ledger: Ledger::new(WINDOW),
            machine: Machine::new(Settings::READY_QUIET),
            unseen: BTreeSet::new(),
            epoch: crate::primary::clock::now(),
            told_lacks: Vec::new(),
            sink: Sink::default(),
            keeping: Keeping::default(),
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
    pub(in crate::primary) fn channel_mut(&mut self, worker: WorkerId) -> Option<&mut Channel> {
        self.workers.get_mut(&worker)?.channel.as_mut()
    }

    pub(in crate::primary) fn emit(&mut self, event: &Event) {
        self.sink.tell(event);
    }

    /// Something happened on which the supervisor decides.
    fn happened(&mut self, fact: Fact) {
        self.sink.happened(fact);
    }

    /// Something went wrong with a worker. The event is the one to log.
    pub(in crate::primary) fn error(&mut self, worker: WorkerId, message: String) {
        self.emit(&Event::Error { worker, message });
    }

    /// A worker misbehaves, perhaps without end: that is told as often as is of use.
    pub(in crate::primary) fn complain(&mut self, worker: WorkerId, what: &str) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if let Some(left_out) = state.complaints.another(phalanx_sys::clock::coarse()) {
            let more = complained_before(left_out);
            self.error(worker, format!("{what}{more}"));
        }
    }

    /// An id that no worker has had.
    pub(in crate::primary) fn next_worker(&mut self) -> WorkerId {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        worker
    }

    /// Counts the workers with an inspector.
    pub(in crate::primary) fn next_inspector(&mut self) -> u16 {
        self.inspectors = self.inspectors.wrapping_add(1);
        self.inspectors
    }

    /// The lowest position that no live worker holds.
    pub(in crate::primary) fn free_position(&self) -> Position {
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

    /// The channel ended: the worker drained, or lost it. What it had not accepted goes to others.
    pub(in crate::primary) fn channel_closed(&mut self, worker: WorkerId) {
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
        if !state.cell.cut_off() {
            return;
        }
        let had_channel = state.channel.take().is_some();
        self.keeping.forget(worker);
        self.machine.clear(worker);
        state.cell.changed.notify_waiters();
        let position = state.cell.position();
        self.trier_gone(worker);
        self.left(worker);
        self.forget_load(worker);
        self.answered.forget(worker, position);
        self.gone_from_slots(worker);
        let returned = self.ledger.worker_gone(worker);
        self.count_returned(worker, returned);
        if had_channel {
            self.happened(Fact::Disconnected { worker });
        }
        self.pump();
    }

    /// The process has ended, though others of its tree may live: it gets nothing new.
    pub(in crate::primary) fn ended(&mut self, worker: WorkerId) {
        let state = self.workers.get(&worker);
        if state.is_some_and(|state| state.channel.is_none()) {
            self.detach(worker);
        }
    }

    /// The process is gone; whatever it wrote has been read.
    pub(in crate::primary) fn exited(&mut self, worker: WorkerId, status: ExitStatus) {
        self.detach(worker);
        self.strike_off(worker);
        self.forget_app_metrics(worker);
        let Some(mut state) = self.workers.remove(&worker) else {
            return;
        };
        // A spare has got it since it was started.
        self.tally.has_position(state.cell.position());
        let left_out = state.complaints.take_left_out();
        if left_out > 0 {
            self.error(
                worker,
                format!("{left_out} complaints about it were left out"),
            );
        }
        let voluntary = state.cell.end(status);
        state.cell.changed.notify_waiters();
        self.happened(Fact::Exited {
            worker,
            status,
            voluntary,
        });
    }

    /// The worker is given no new connections from now on.
    pub(in crate::primary) fn exclude(&mut self, worker: WorkerId) {
        self.ledger.exclude(worker);
        let now = crate::primary::clock::now();
        if self.exclude_from_slots(worker)
            && let Some(state) = self.workers.get_mut(&worker)
        {
            // The last one that the kernel gave it may have come just now.
            state.last_handoff = Some(now);
        }
        self.left(worker);
    }

    /// Asks a worker to leave: no new connections from now on, or, when all leave, from when none waits any more; when
    /// those in flight are settled it is told to disconnect, or sent its stop signal, once. False when it is leaving already.
    pub(in crate::primary) fn disconnect(&mut self, worker: WorkerId) -> bool {
        let Some(state) = self.workers.get_mut(&worker) else {
            return false;
        };
        if !state.cell.is_connected() || !state.cell.depart(Departure::Asked) {
            return false;
        }
        self.depart(worker);
        true
    }
}
