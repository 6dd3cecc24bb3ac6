//! Keeps an app of N workers alive: runs the fleet machine of `phalanx-core` over a
//! [`Cluster`]. The machine decides; this module carries out and reports back.
//!
//! [`Supervisor::start`] begins, [`Control`] is the handle for commands and questions, and
//! [`Supervisor::finished`] waits for the end. The builder and the `phalanx` command both stand on it.

mod app_metrics;
mod auto_rebalance;
mod control;
mod cores;
mod elastic;
mod guests;
mod identity;
mod metrics;
mod process_families;
mod pulse;
mod python_metrics;
mod revision;
mod runner;
#[cfg(feature = "control")]
pub(crate) mod serve;
mod signals;
mod status;
mod totals;
mod vitals;
mod wear;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::fleet::{ElasticRange, Fleet, FleetConfig, WearLimits};
use phalanx_core::policy::{PolicyName, Weights};
use phalanx_core::wire::DrainLimits;
use tokio::sync::{mpsc, oneshot};

pub(crate) use guests::{Order, Orders};

pub use control::Control;
pub use phalanx_control::api::{
    ListenerPosition, ListenerSnapshot, ListenerStatus, OutputStatus, PositionFigures,
    PositionTotals, PrimaryFigures, PrimaryStatus, RecycledStatus, ReloadFigures, Snapshot, Status,
    Totals, VacancyStatus, WorkerStatus,
};
pub use phalanx_core::command::{CommandError, CommandErrorKind};
pub use revision::{Revise, Revision};
pub use signals::ReopenLog;

use crate::error::{Error, Result};
use crate::policy::MakePolicy;
use crate::primary::{Cluster, Release, TreeOptions, scheduling_from_environment};
pub use crate::primary::{LinesSink, OutputLine, OutputLines, OutputSink, Stream};
use crate::role::raise_open_files;
use crate::settings::{Adoption, DispatchChoice, Settings};

/// Workers that may start at the same moment, for each core, and at least.
const STARTS_A_CORE: u32 = 8;
const LEAST_STARTS: u32 = 16;
/// As long again as the drain limit: clients of streams reconnect by themselves, and a reload should end.
const STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells how those do that the workers' output is written to.
pub type OutputStates = Arc<dyn Fn() -> Vec<OutputStatus> + Send + Sync>;

/// What an app is.
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct SupervisorOptions {
    /// Its name, for status.
    pub name: String,
    /// How its workers are started.
    pub settings: Settings,
    /// How many, and every limit.
    pub fleet: FleetConfig,
    /// When workers are replaced although nothing is wrong with them. Default: never.
    pub wear: WearLimits,
    /// The number of workers follows their load, between these. [`FleetConfig::workers`] is what it begins with.
    /// Default: it is changed by command only.
    pub elastic: Option<ElasticRange>,
    /// There is one worker for each processor that this process may use: the number of workers follows when that changes, as the CPU quota
    /// of a container can, unless a command sets another. Default: no.
    pub follows_cores: bool,
    /// Connections that clients keep are spread anew when workers have come and it has become uneven. Default: on demand only.
    pub auto_rebalance: bool,
    /// How long the streams of a worker that leaves (upgraded connections, server-sent events) may go on after the
    /// drain limit, where the worker can tell them from other connections. Default 30 s.
    pub stream_timeout: Duration,
    /// Who gets a connection.
    pub policy: PolicyName,
    /// Weights by position, for the policy `weighted`.
    pub weights: Weights,
    /// A policy of the program's own instead, for connections that are handed over.
    pub own_policy: Option<MakePolicy>,
    /// How it gets there.
    pub dispatch: DispatchChoice,
    /// This process adopts the orphans of its workers ([`adopt_orphans`](phalanx_sys::process::adopt_orphans)), reaps
    /// them, and has no children but workers: so all of its other children are ended with the app. Default: no.
    pub adopts_orphans: bool,
    /// Somebody reads the metrics: they are sampled, and requests counted, from the start on, and workers that are not Node's have a
    /// directory for Python's `prometheus_client` (`PROMETHEUS_MULTIPROC_DIR`). Default: from the first question on, without the directory.
    pub metrics: bool,
    /// How long the app says that it is not ready before a stop begins; a fast stop does not wait. Default: not at all.
    pub pre_stop_delay: Duration,
    /// Each worker gets a control group inside this process's own, where that was left to it and surprises nobody, so
    /// that nothing of what it starts can outlive it. Default: no.
    pub cgroups: bool,
    /// Takes the workers' output where [`Settings`] pipes it.
    pub output: Option<LinesSink>,
    /// Tells, for status, how those do that the output is written to. Default: nothing is known of them.
    pub outputs: Option<OutputStates>,
    /// Reads the description of the app anew at each reload. Default: it is what it was at the start.
    pub revise: Option<Revise>,
    /// Called on SIGUSR1, which logrotate(8) and the like send when they have moved a log. Without it, that signal is ignored.
    pub reopen_log: Option<ReopenLog>,
}

impl SupervisorOptions {
    /// An app with one worker and every default. The policy is round robin, or what Node's
    /// `NODE_CLUSTER_SCHED_POLICY` says.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            settings: Settings::default(),
            fleet: FleetConfig {
                max_starting: Some(starts_at_once()),
                first_starting: Some(starts_first()),
                ..FleetConfig::default()
            },
            wear: WearLimits::default(),
            elastic: None,
            follows_cores: false,
            auto_rebalance: false,
            stream_timeout: STREAM_TIMEOUT,
            policy: scheduling_from_environment(),
            weights: Weights::default(),
            own_policy: None,
            dispatch: DispatchChoice::default(),
            adopts_orphans: false,
            metrics: false,
            pre_stop_delay: Duration::ZERO,
            cgroups: false,
            output: None,
            outputs: None,
            revise: None,
            reopen_log: None,
        }
    }
}

impl SupervisorOptions {
    /// Why there can be no spares ([`FleetConfig::spares`]), where some are asked for.
    #[must_use]
    pub fn spares_refused(&self) -> Option<&'static str> {
        if self.fleet.spares == 0 {
            return None;
        }
        if self.settings.adoption == Adoption::None {
            return Some(
                "spares need a program that waits for connections: one with --adopt none does its work as soon as it runs",
            );
        }
        let is_shared = match self.dispatch {
            DispatchChoice::Shared => true,
            DispatchChoice::Auto => self.policy == PolicyName::None,
            DispatchChoice::Kernel | DispatchChoice::Handoff => false,
        };
        is_shared.then_some(
            "spares need a dispatch that chooses who gets a connection: with --dispatch shared, or --policy none, all workers \
             accept from one socket, spares too",
        )
    }
}

impl fmt::Debug for SupervisorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorOptions")
            .field("name", &self.name)
            .field("fleet", &self.fleet)
            .field("policy", &self.policy)
            .field("dispatch", &self.dispatch)
            .finish_non_exhaustive()
    }
}

/// How many workers may start at the same moment: so many that the processors are never idle while
/// some wait for a database, and so few that each is ready in its time. Eight for each core, and at
/// least 16.
#[must_use]
pub fn starts_at_once() -> NonZeroU32 {
    let cores = u32::try_from(phalanx_sys::cpu::usable_cores().get()).unwrap_or(u32::MAX);
    let starts = cores.saturating_mul(STARTS_A_CORE).max(LEAST_STARTS);
    NonZeroU32::new(starts).unwrap_or(NonZeroU32::MIN)
}

/// How many workers of an app start first: one for each core that this process may use, but for the one that is busy with
/// the app's own start.
#[must_use]
pub fn starts_first() -> NonZeroU32 {
    let cores = u32::try_from(phalanx_sys::cpu::usable_cores().get()).unwrap_or(u32::MAX);
    NonZeroU32::new(cores.saturating_sub(1)).unwrap_or(NonZeroU32::MIN)
}

fn tree_options(options: &SupervisorOptions) -> TreeOptions {
    TreeOptions {
        adopts: options.adopts_orphans,
        cgroups: options.cgroups,
        kill_timeout: options.fleet.kill_timeout,
    }
}

/// What a worker is told when it is to leave.
fn drain_limits(options: &SupervisorOptions) -> DrainLimits {
    DrainLimits {
        drain: options.fleet.drain_timeout,
        stream: options.stream_timeout,
    }
}

/// How an app ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was stopped.
    Stopped,
    /// No worker ever became ready.
    BootFailed {
        /// Which worker failed, and how, in one line.
        reason: String,
        /// The last lines it wrote, where they were read.
        last_lines: Vec<String>,
    },
    /// All workers are gone and respawning is off.
    WorkersGone,
}

/// A running app.
pub struct Supervisor {
    control: Control,
    outcome: oneshot::Receiver<Outcome>,
    reopen_log: Option<ReopenLog>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Starts the app's workers.
    ///
    /// # Errors
    /// [`Error::Config`] when the limits contradict each other, [`Error::Spares`] when there can be none, [`StartError::Program`](crate::StartError::Program) when the program is
    /// missing or may not be executed.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn start(options: SupervisorOptions) -> Result<Self> {
        let limits = drain_limits(&options);
        let revising = revision::Revising::new(&options);
        let trees = tree_options(&options);
        if let Some(reason) = options.spares_refused() {
            return Err(Error::Spares(reason));
        }
        let workers = options.fleet.workers;
        let fleet = Fleet::new(options.fleet)?;
        // A program that is not there is found out before anything is started.
        let release = Release::resolve(&options.settings)?;
        raise_open_files();
        let cluster = Cluster::new();
        cluster.set_scheduling_policy(options.policy);
        cluster.set_weights(options.weights);
        cluster.take_custom_policy(options.own_policy);
        cluster.set_dispatch(options.dispatch);
        cluster.set_drain_limits(limits);
        cluster.setup(options.settings);
        cluster.make_place_for(&release);
        cluster.open_bound()?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let (finish, outcome) = oneshot::channel();
        let measured = vitals::Measured::start(&cluster);
        let mut shared = runner::Shared::new(
            options.name,
            fleet,
            (options.output, options.outputs),
            measured,
        );
        shared.stop_delay = options.pre_stop_delay;
        shared.python_book = Arc::new(python_metrics::PythonBook::new(options.metrics));
        let shared = Arc::new(shared);
        if options.metrics {
            want_metrics(&shared, &cluster);
        }
        let samples = metrics::sample(
            Arc::downgrade(&shared.meters),
            Arc::downgrade(&cluster.shared),
        );
        tokio::spawn(samples);
        let control = Control::new(cluster.clone(), Arc::clone(&shared), commands, revising);
        cluster.watch_trees(trees);
        cluster.watch_hangs();
        if options.auto_rebalance {
            tokio::spawn(auto_rebalance::run(control.clone()));
        }
        let reports = cluster.reports();
        let wear = wear::WearWatch::new(options.wear, &cluster);
        let elastic = elastic::ElasticWatch::new(options.elastic, &cluster);
        let cores = cores::CoresWatch::new(options.follows_cores, workers);
        let watches = (wear, elastic, cores);
        tokio::spawn(runner::run(
            cluster, shared, reports, inbox, watches, finish,
        ));
        Ok(Self {
            control,
            outcome,
            reopen_log: options.reopen_log,
        })
    }

    /// The handle for commands and questions.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Obeys signals from now on: TERM and PWR stop, INT stops and a second one stops fast, QUIT stops fast,
    /// HUP and USR2 reload, TTIN and TTOU add and remove a worker, USR1 reopens the log. A HUP that comes with the end
    /// of the terminal stops. Others that would end the process by default are ignored, with a line in the log.
    ///
    /// # Errors
    /// [`Error::Setup`] when a handler cannot be installed.
    pub fn handle_signals(&self) -> Result<()> {
        signals::obey(self.control.clone(), self.reopen_log.clone()).map_err(|source| {
            Error::Setup {
                what: "signal handlers",
                source,
            }
        })
    }

    /// Waits until the app has ended and all its workers are gone.
    pub async fn finished(self) -> Outcome {
        // The runner ends by answering; should it be gone without, so are its workers.
        self.outcome.await.unwrap_or(Outcome::WorkersGone)
    }
}

/// Somebody reads the metrics: all that they need is counted from now on.
fn want_metrics(shared: &Arc<runner::Shared>, cluster: &Cluster) {
    shared.meters.want();
    cluster.count_answers(true);
    shared.app_book.want(cluster);
}
