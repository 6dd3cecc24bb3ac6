//! The primary's side: [`Cluster`] and what stands behind it.

mod abandoned;
mod admit;
mod anew;
mod answered;
mod batch;
mod channel;
mod choice;
pub(crate) mod clock;
mod directory;
mod dispatch;
mod drain;
mod evidence;
mod fork;
mod hang;
mod health;
mod hub;
mod inherited_fds;
mod intake;
mod intercept;
mod launch;
mod listen_pid;
mod listeners;
mod load;
mod messages;
pub(crate) mod node_line;
mod open;
mod output;
mod pinned_release;
mod policy;
pub(crate) mod preload;
mod private;
mod probe;
mod published;
mod readiness;
mod recall;
mod requests;
mod sd_notify;
mod slots;
mod splice;
mod trees;
mod unseen;
mod watch;
mod worker;

use std::ffi::OsString;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::fleet;
use phalanx_core::ids::{Generation, WorkerId};
use phalanx_core::policy::{Policy, PolicyName, Weights};
use phalanx_core::wire::{DrainLimits, outgoing};
use serde::Serialize;
use tokio::sync::mpsc;

pub use directory::working_directory;
pub(crate) use fork::Fork;
pub(crate) use launch::Release;
pub(crate) use output::LastLines;
pub use output::{OutputLine, OutputSink, Stream};
pub(crate) use splice::Guest;
pub(crate) use trees::Options as TreeOptions;
pub use worker::Worker;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::policy::MakePolicy;
use crate::settings::{DispatchChoice, Settings};
use crate::subscribers::Events;
use crate::supervisor::ListenerStatus;
use choice::Dispatch;
use hub::Hub;
pub(crate) use open::from_sys;

/// What all handles of a cluster share.
pub(crate) struct Shared {
    hub: Mutex<Hub>,
    /// Somebody keeps the clock going.
    keeps_time: AtomicBool,
    pub(crate) trees: trees::Trees,
    places: private::Places,
}

impl Shared {
    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        // The state stays consistent at every point where code could panic: no half-done transitions.
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The cluster, as its primary sees it: the counterpart of Node's `cluster` module.
///
/// Cheap to clone; all clones are the same cluster. When the last one is dropped the channels close
/// and workers are cut off, so keep one while workers live. Its calls do not block. Those that start
/// something ([`Cluster::fork`]) need a tokio runtime with I/O and time enabled around them.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) shared: Arc<Shared>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        launch::remember_own_program();
        phalanx_sys::signal::heed_children();
        let policy = scheduling_from_environment();
        let shared = Arc::new_cyclic(|shared| Shared {
            hub: Mutex::new(Hub::new(
                shared.clone(),
                Settings::default(),
                policy,
                DispatchChoice::Auto,
            )),
            keeps_time: AtomicBool::new(false),
            trees: trees::Trees::new(),
            places: private::Places::default(),
        });
        Self { shared }
    }

    /// Changes how workers are started from now on (`cluster.setupPrimary`); running ones keep what
    /// they have. Emits [`Event::Setup`].
    pub fn setup(&self, settings: Settings) {
        let mut hub = self.shared.hub();
        let have_fewer_rights = settings.uid.is_some() || settings.gid.is_some();
        hub.allowance
            .change(settings.allow_listen.clone(), have_fewer_rights);
        hub.settings = settings;
        hub.emit(&Event::Setup);
    }

    /// How workers are started (`cluster.settings`).
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.shared.hub().settings.clone()
    }

    /// Takes the output of workers that are started from now on with piped streams, line by line
    /// (`worker.process.stdout`). It is called on the event loop and must not block.
    pub fn on_output(&self, sink: OutputSink) {
        self.shared.hub().output = Some(sink);
    }

    /// The policy (`cluster.schedulingPolicy`): round robin (`SCHED_RR`) unless the environment's
    /// `NODE_CLUSTER_SCHED_POLICY` is `none`, or it was set.
    #[must_use]
    pub fn scheduling_policy(&self) -> PolicyName {
        self.shared.hub().policy
    }

    /// Sets the policy for listeners that are opened from now on. Best called before the first fork.
    pub fn set_scheduling_policy(&self, policy: PolicyName) {
        self.shared.hub().policy = policy;
    }

    /// Sets the weights by position for the policy `weighted`, for listeners that are opened from now on.
    pub fn set_weights(&self, weights: Weights) {
        self.shared.hub().weights = weights;
    }

    /// Has a policy of this program's own choose, for listeners that are opened from now on: `make` is
    /// called for each. Connections are handed over then, because the kernel cannot ask it.
    pub fn set_custom_policy(&self, make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static) {
        self.shared.hub().custom_policy = Some(Arc::new(make));
    }

    /// The former name of [`Cluster::set_custom_policy`].
    #[deprecated(note = "it is called `set_custom_policy` now")]
    pub fn set_own_policy(&self, make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static) {
        self.set_custom_policy(make);
    }

    pub(crate) fn take_custom_policy(&self, own: Option<MakePolicy>) {
        self.shared.hub().custom_policy = own;
    }

    /// Changes the policy of all listeners, from the next connection on; `weights` matter to `weighted`
    /// alone. No connection is lost by it.
    ///
    /// # Errors
    /// [`Error::PolicyNotHere`] when the dispatch of a listener cannot carry the policy out; then
    /// nothing has changed.
    pub fn change_policy(&self, policy: PolicyName, weights: Weights) -> Result<()> {
        self.shared.hub().change_policy(policy, weights)
    }

    /// How long workers may take to leave, told to them when they are asked to.
    pub(crate) fn set_drain_limits(&self, limits: DrainLimits) {
        self.shared.hub().drain_limits = Some(limits);
    }

    /// Sets the dispatch for listeners that are opened from now on. Best called before the first fork.
    pub fn set_dispatch(&self, dispatch: DispatchChoice) {
        self.shared.hub().dispatch = dispatch;
    }

    /// Starts a worker (`cluster.fork`) at the lowest free position. It is this program again, unless
    /// [`Cluster::setup`] said otherwise.
    ///
    /// # Errors
    /// [`Error::Program`] and [`Error::Start`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn fork(&self) -> Result<Worker> {
        self.fork_with(std::iter::empty::<(OsString, OsString)>())
    }

    /// Starts a worker with variables of its own (`cluster.fork(env)`).
    ///
    /// # Errors
    /// As [`Cluster::fork`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn fork_with<K, V>(&self, env: impl IntoIterator<Item = (K, V)>) -> Result<Worker>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let (release, worker, position, sink) = {
            let mut hub = self.shared.hub();
            let release = Release::resolve(&hub.settings)?;
            let worker = WorkerId(hub.next_worker);
            hub.next_worker += 1;
            (release, worker, hub.free_position(), hub.output.clone())
        };
        self.start(&Fork {
            worker,
            position,
            generation: Generation(1),
            release: &release,
            env: env
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            sink,
            last: LastLines::default(),
            held_back: false,
        })
    }

    /// The live workers, by id (`cluster.workers`).
    #[must_use]
    pub fn workers(&self) -> Vec<Worker> {
        let hub = self.shared.hub();
        hub.workers
            .values()
            .map(|state| self.handle(state))
            .collect()
    }

    /// The live worker with this id.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<Worker> {
        let hub = self.shared.hub();
        hub.workers.get(&id).map(|state| self.handle(state))
    }

    /// Opens the listeners of [`Settings::bind`], before any worker has them.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub(crate) fn open_bound(&self) -> Result<()> {
        if !self.settings().bind.is_empty() {
            self.prepare_steering();
        }
        let mut hub = self.shared.hub();
        for bind in hub.settings.bind.clone() {
            hub.open_bound(&bind).map_err(|source| Error::Listen {
                address: bind.address.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Writes the script that workers of this release load, before anybody waits for the hub.
    pub(crate) fn make_place_for(&self, release: &Release) {
        if release.preloads() {
            // Workers run without where there is no place; that has been told.
            drop(self.shared.places.preload_script());
        }
    }

    /// What the worker says it is doing, if it says so.
    pub(crate) fn says(&self, worker: WorkerId) -> Option<String> {
        let hub = self.shared.hub();
        hub.workers.get(&worker)?.says.clone()
    }

    fn handle(&self, state: &hub::WorkerState) -> Worker {
        Worker {
            cell: Arc::clone(&state.cell),
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Every event from now on (`cluster.on(…)`). May be called often; each gets all of them.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.hub().subscribers.subscribe()
    }

    /// Everything but messages, never cut off: for the product's own needs.
    pub(crate) fn life_events(&self) -> Events {
        self.shared.hub().subscribers.subscribe_to_life()
    }

    /// Sends a message to every connected worker. Returns how many there were.
    ///
    /// # Errors
    /// [`Error::Encode`]. A worker that cannot take it is skipped, with an [`Event::Error`].
    pub fn broadcast<M: Serialize + ?Sized>(&self, message: &M) -> Result<usize> {
        let value = serde_json::to_value(message).map_err(Error::Encode)?;
        let line = outgoing::user(&value);
        let mut hub = self.shared.hub();
        let workers: Vec<_> = hub
            .workers
            .iter()
            .filter(|(_, state)| state.channel.is_some())
            .map(|(&id, _)| id)
            .collect();
        let mut reached = 0;
        for worker in workers {
            match hub.send(worker, line.clone()) {
                Ok(()) => reached += 1,
                Err(error) => hub.complain(worker, &format!("missed a broadcast: {error}")),
            }
        }
        Ok(reached)
    }

    /// Asks all workers to leave, waits until their channels are closed and closes the listeners
    /// (`cluster.disconnect`). Whoever connects meanwhile is refused; who had connected before is served. There is
    /// no time limit.
    pub async fn disconnect(&self) {
        self.refuse_newcomers();
        let workers = self.workers();
        for worker in &workers {
            worker.disconnect();
        }
        for worker in workers {
            loop {
                let changed = worker.cell.changed.notified();
                if !worker.is_connected() {
                    break;
                }
                changed.await;
            }
        }
        self.close_listeners();
    }

    /// Whoever connects from now on is refused.
    pub(crate) fn refuse_newcomers(&self) {
        self.shared.hub().refuse_newcomers();
    }

    pub(crate) fn close_listeners(&self) {
        let mut hub = self.shared.hub();
        hub.intake = intake::Intake::Open;
        let all: Vec<_> = hub.listeners.keys().copied().collect();
        for id in all {
            hub.close_listener(id);
        }
    }

    /// Tells all subscribers.
    pub(crate) fn announce(&self, event: &Event) {
        self.shared.hub().emit(event);
    }

    /// Where the figures of workers and the news of those that hang go while they are asked for.
    pub(crate) fn health_reports(&self) -> mpsc::UnboundedReceiver<fleet::Event> {
        self.shared.hub().health_reports()
    }

    /// Asks workers for their figures, and whether they hang, or leaves that off.
    pub(crate) fn watch_health(&self, wanted: bool) {
        self.shared.hub().watch_health(wanted);
    }

    pub(crate) fn count_answers(&self, wanted: bool) {
        self.shared.hub().count_answers(wanted);
    }

    pub(crate) fn answered(&self, worker: WorkerId) -> Option<u64> {
        self.shared.hub().answered(worker)
    }

    pub(crate) fn waiting(&self, worker: WorkerId) -> u32 {
        self.shared.hub().waiting_of(worker)
    }

    pub(crate) fn close_orphans(&self) {
        self.shared.hub().close_orphans();
    }

    pub(crate) fn unseen_count(&self) -> usize {
        self.shared.hub().unseen_count()
    }

    pub(crate) fn listener_status(&self) -> Vec<ListenerStatus> {
        let hub = self.shared.hub();
        let status = |(&id, listener): (_, &listeners::Listener)| ListenerStatus {
            address: listener.display(),
            dispatch: listener.choice.dispatch.as_str().into(),
            because: listener.choice.because.clone(),
            policy: listener
                .slots
                .as_ref()
                .and_then(slots::Slots::drawn_by)
                .map(str::to_owned),
            workers: hub.users(id),
        };
        hub.listeners.iter().map(status).collect()
    }

    /// The load of the worker's position, as policies see it; nothing where nobody tells it.
    pub(crate) fn load(&self, worker: WorkerId) -> Option<phalanx_sys::scoreboard::Load> {
        let hub = self.shared.hub();
        let state = hub.workers.get(&worker)?;
        if state.load_source.source == load::Source::Unknown {
            return None;
        }
        Some(hub.board.as_ref()?.load(state.cell.position().0))
    }

    /// Connections the worker has accepted; nothing where it accepts from a shared socket only.
    pub(crate) fn connections(&self, worker: WorkerId) -> Option<u64> {
        let hub = self.shared.hub();
        let state = hub.workers.get(&worker)?;
        let by_handoff = |held: &hub::Held| {
            let listener = hub.listeners.get(&held.listener);
            listener.is_some_and(|listener| listener.choice.dispatch == Dispatch::Handoff)
        };
        let position = state.cell.position();
        let by_kernel = state.held.values().filter_map(|held| {
            let slots = hub.listeners.get(&held.listener)?.slots.as_ref()?;
            slots.connections(position, worker)
        });
        let steered = by_kernel.fold(None, |sum, count| Some(sum.unwrap_or(0) + count));
        let handed = state
            .held
            .values()
            .any(by_handoff)
            .then(|| hub.ledger.accepted_count(worker));
        steered.or(handed)
    }
}

/// `NODE_CLUSTER_SCHED_POLICY`, as Node reads it: `none`, anything else is round robin.
pub(crate) fn scheduling_from_environment() -> PolicyName {
    match std::env::var("NODE_CLUSTER_SCHED_POLICY").as_deref() {
        Ok("none") => PolicyName::None,
        Ok(_) | Err(_) => PolicyName::RoundRobin,
    }
}
