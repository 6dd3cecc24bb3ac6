//! The primary's side: [`Cluster`] and what stands behind it.

mod cell;
pub(crate) mod clock;
mod fork;
mod mailbox;
pub(crate) mod release;
mod sink;
mod sockets;
mod state;
mod tasks;
mod worker;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use phalanx_core::ids::{Generation, WorkerId};
use phalanx_core::policy::{Policy, PolicyName, Weights};
use phalanx_core::wire::{DrainLimits, outgoing};
use serde::Serialize;
use tokio::sync::mpsc;

pub(crate) use fork::Fork;
pub use release::directory::working_directory;
pub(crate) use release::launch::Release;
pub(crate) use release::metrics_directory::MetricsDirectory;
pub use state::rebalance::{RebalanceError, Rebalanced, Streams};
pub(crate) use state::splice::{Estate, Guest};
pub(crate) use tasks::last_lines::LastLines;
pub use tasks::output::{LinesSink, OutputLine, OutputLines, OutputSink, Stream};
pub(crate) use tasks::trees::{CgroupPlace, Options as TreeOptions};
pub use worker::Worker;

use crate::error::{ListenError, MessageError, Result};
use crate::event::Event;
use crate::policy::MakePolicy;
use crate::settings::{DispatchChoice, Settings};
use crate::subscribers::Events;
use crate::supervisor::ListenerStatus;
pub(crate) use cell::Admission;
use cell::Cell;
use mailbox::Mailbox;
use release::launch;
pub(crate) use sink::Reports;
pub(crate) use sockets::listening::from_sys;
pub(crate) use state::Shared;
pub(crate) use state::app_metrics::AppAnswer;
pub(crate) use state::tally::{Figures, ListenerFigures};

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
        let shared = Shared::new(scheduling_from_environment());
        Self { shared }
    }

    /// Changes how workers are started from now on (`cluster.setupPrimary`); running ones keep what
    /// they have. Emits [`Event::Setup`].
    pub fn setup(&self, settings: Settings) {
        self.shared.hub().setup(settings);
    }

    /// How workers are started (`cluster.settings`).
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.shared.hub().settings().clone()
    }

    /// Takes the output of workers that are started from now on with piped streams, line by line
    /// (`worker.process.stdout`). It is called on the event loop and must not block.
    pub fn on_output(&self, sink: OutputSink) {
        let sink = tasks::output::line_by_line(sink);
        self.shared.hub().set_output(sink);
    }

    /// The policy (`cluster.schedulingPolicy`): round robin (`SCHED_RR`) unless the environment's
    /// `NODE_CLUSTER_SCHED_POLICY` is `none`, or it was set.
    #[must_use]
    pub fn scheduling_policy(&self) -> PolicyName {
        self.shared.hub().policy()
    }

    /// Sets the policy for listeners that are opened from now on. Best called before the first fork.
    pub fn set_scheduling_policy(&self, policy: PolicyName) {
        self.shared.hub().set_policy(policy);
    }

    /// Sets the weights by position for the policy `weighted`, for listeners that are opened from now on.
    pub fn set_weights(&self, weights: Weights) {
        self.shared.hub().set_weights(weights);
    }

    /// Has a policy of this program's own choose, for listeners that are opened from now on: `make` is
    /// called for each. Connections are handed over then, because the kernel cannot ask it.
    pub fn set_custom_policy(&self, make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static) {
        self.take_custom_policy(Some(Arc::new(make)));
    }

    /// The former name of [`Cluster::set_custom_policy`].
    #[deprecated(note = "it is called `set_custom_policy` now")]
    pub fn set_own_policy(&self, make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static) {
        self.set_custom_policy(make);
    }

    pub(crate) fn take_custom_policy(&self, own: Option<MakePolicy>) {
        self.shared.hub().set_custom_policy(own);
    }

    /// Changes the policy of all listeners, from the next connection on; `weights` matter to `weighted`
    /// alone. No connection is lost by it.
    ///
    /// # Errors
    /// [`Error::PolicyNotHere`](crate::Error::PolicyNotHere) when the dispatch of a listener cannot carry the policy out; then
    /// nothing has changed.
    pub fn change_policy(&self, policy: PolicyName, weights: Weights) -> Result<()> {
        self.shared.hub().change_policy(policy, weights)
    }

    /// How long workers may take to leave, told to them when they are asked to.
    pub(crate) fn set_drain_limits(&self, limits: DrainLimits) {
        self.shared.hub().set_drain_limits(limits);
    }

    /// Sets the dispatch for listeners that are opened from now on. Best called before the first fork.
    pub fn set_dispatch(&self, dispatch: DispatchChoice) {
        self.shared.hub().set_dispatch(dispatch);
    }

    /// Starts a worker (`cluster.fork`) at the lowest free position. It is this program again, unless
    /// [`Cluster::setup`] said otherwise.
    ///
    /// # Errors
    /// [`Error::Start`](crate::Error::Start).
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
            let release = Release::resolve(hub.settings())?;
            (
                release,
                hub.next_worker(),
                hub.free_position(),
                hub.output(),
            )
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
            admission: Admission::Open,
        })
    }

    /// The live workers, by id (`cluster.workers`).
    #[must_use]
    pub fn workers(&self) -> Vec<Worker> {
        let cells = self.shared.hub().cells();
        cells.into_iter().map(|cell| self.handle(cell)).collect()
    }

    /// The live worker with this id.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<Worker> {
        let cell = self.shared.hub().cell(id);
        cell.map(|cell| self.handle(cell))
    }

    /// Opens the listeners of [`Settings::bind`], before any worker has them.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn open_bound(&self) -> Result<(), ListenError> {
        for bind in self.settings().bind {
            self.prepare_steering();
            let opened = self.shared.hub().open_bound(&bind);
            opened.map_err(|source| ListenError::Refused {
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

    /// A directory for the metrics that a worker with these settings writes.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(crate) fn make_metrics_directory(
        &self,
        settings: &Settings,
    ) -> io::Result<MetricsDirectory> {
        let places = &self.shared.places;
        places.metrics_directory(settings.uid, settings.gid)
    }

    /// What the worker says it is doing, if it says so.
    pub(crate) fn says(&self, worker: WorkerId) -> Option<String> {
        self.shared.hub().says(worker)
    }

    fn handle(&self, cell: Arc<Cell>) -> Worker {
        Worker {
            cell,
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Every event from now on (`cluster.on(…)`). May be called often; each gets all of them.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.hub().subscribe()
    }

    /// Everything but messages, never cut off: for the product's own needs.
    pub(crate) fn life_events(&self) -> Events {
        self.shared.hub().subscribe_to_life()
    }

    /// Sends a message to every connected worker. Returns how many there were.
    ///
    /// # Errors
    /// [`MessageError::Encode`]. A worker that cannot take it is skipped, with an [`Event::Error`].
    pub fn broadcast<M: Serialize + ?Sized>(&self, message: &M) -> Result<usize, MessageError> {
        let value = serde_json::to_value(message).map_err(MessageError::Encode)?;
        Ok(self.shared.hub().broadcast(&outgoing::user(&value)))
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
        self.shared.hub().close_listeners();
    }

    /// Tells all subscribers.
    pub(crate) fn announce(&self, event: &Event) {
        self.shared.hub().emit(event);
    }

    /// Where the supervisor hears what it decides on.
    pub(crate) fn reports(&self) -> Reports {
        self.shared.hub().reports()
    }

    /// Asks workers for their figures, and whether they hang, or leaves that off.
    pub(crate) fn watch_health(&self, wanted: bool) {
        self.shared.hub().watch_health(wanted);
    }

    pub(crate) fn count_answers(&self, wanted: bool) {
        self.shared.hub().count_answers(wanted);
    }

    /// Workers count what they answer, from now on.
    pub(crate) fn count_answers_for_metrics(&self) {
        self.shared.hub().count_answers_always();
    }

    /// Workers tell the application's own metrics when they are asked, and when they leave.
    pub(crate) fn want_app_metrics(&self, answers: mpsc::UnboundedSender<AppAnswer>) {
        self.shared.hub().want_app_metrics(answers);
    }

    /// Asks for them. Returns the workers that owe an answer.
    pub(crate) fn ask_app_metrics(&self, number: u64) -> BTreeSet<WorkerId> {
        self.shared.hub().ask_app_metrics(number)
    }

    /// What has been counted until now.
    pub(crate) fn figures(&self) -> Figures {
        self.shared.hub().figures()
    }

    pub(crate) fn answered(&self, worker: WorkerId) -> Option<u64> {
        self.shared.hub().answered(worker)
    }

    pub(crate) fn waiting(&self, worker: WorkerId) -> u32 {
        self.shared.hub().waiting_of(worker)
    }

    /// Has a look at the workers' process trees from now on, and starts the keeper.
    pub(crate) fn watch_trees(&self, options: TreeOptions) {
        let trees = Arc::clone(&self.shared.trees);
        trees.watch(options, self.mailbox());
    }

    /// All workers are gone: ends what nobody could be told to belong to them.
    pub(crate) async fn clear_trees(&self) {
        self.shared.trees.clear().await;
    }

    pub(in crate::primary) fn mailbox(&self) -> Mailbox {
        state::inbox::mailbox(&Arc::downgrade(&self.shared))
    }

    pub(crate) fn close_orphans(&self, workers: u32) {
        self.shared.hub().close_orphans(workers);
    }

    pub(crate) fn unseen_count(&self) -> usize {
        self.shared.hub().unseen_count()
    }

    pub(crate) fn listener_status(&self) -> Vec<ListenerStatus> {
        self.shared.hub().listener_status()
    }

    /// The load of the worker's position, as policies see it; nothing where nobody tells it.
    pub(crate) fn load(&self, worker: WorkerId) -> Option<phalanx_sys::scoreboard::Load> {
        self.shared.hub().load_of(worker)
    }

    /// Connections the worker has accepted; nothing where it accepts from a shared socket only.
    pub(crate) fn connections(&self, worker: WorkerId) -> Option<u64> {
        self.shared.hub().connections_of(worker)
    }
}

/// `NODE_CLUSTER_SCHED_POLICY`, as Node reads it: `none`, anything else is round robin.
pub(crate) fn scheduling_from_environment() -> PolicyName {
    match std::env::var("NODE_CLUSTER_SCHED_POLICY").as_deref() {
        Ok("none") => PolicyName::None,
        Ok(_) | Err(_) => PolicyName::RoundRobin,
    }
}
