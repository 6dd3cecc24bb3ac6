//! The high-level style: a builder with everything a clustered server needs, and one call to run it.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::fleet::{Amount, BootPolicy, ElasticRange};
use phalanx_core::policy::{Policy, PolicyName, Weights};

use crate::error::{Error, Result};
use crate::role::{Role, init};
use crate::settings::{DispatchChoice, Settings};
#[cfg(feature = "control")]
use crate::supervisor::serve::Beside;
use crate::supervisor::{Outcome, Supervisor, SupervisorOptions};
use crate::worker::ThisWorker;

/// How many workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// One for each core that this process may use: CPU affinity and cgroup quota, not the machine's cores.
    #[default]
    Auto,
    /// So many.
    Exactly(u32),
    /// As many as the load asks for, from the first number to the second; it begins with the first.
    Between(NonZeroU32, NonZeroU32),
}

/// A clustered server to be run. Made by [`builder`].
#[derive(Debug)]
#[must_use = "nothing runs until `run` is called"]
pub struct Builder {
    workers: Workers,
    threads: usize,
    signals: bool,
    #[cfg(feature = "control")]
    control: bool,
    #[cfg(feature = "control")]
    told: bool,
    options: SupervisorOptions,
}

/// A clustered server with one worker a core, respawn, rolling restart on SIGUSR2 and every other default.
pub fn builder() -> Builder {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program)
        .file_stem()
        .unwrap_or_default();
    Builder {
        workers: Workers::Auto,
        threads: 1,
        signals: true,
        #[cfg(feature = "control")]
        control: true,
        #[cfg(feature = "control")]
        told: false,
        options: SupervisorOptions::new(name.to_string_lossy()),
    }
}

impl Builder {
    /// How many workers. Default: [`Workers::Auto`].
    pub fn workers(mut self, workers: Workers) -> Self {
        self.workers = workers;
        self
    }

    /// Threads of each worker's runtime. Default 1: the workers are the threads.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Replace workers that crash? Default: yes, with exponential backoff.
    pub fn respawn(mut self, respawn: bool) -> Self {
        self.options.fleet.respawn = respawn;
        self
    }

    /// Obey signals (TERM, INT, QUIT: stop; USR2, HUP: rolling restart; TTIN, TTOU: one more, one
    /// fewer)? Default: yes.
    pub fn signals(mut self, signals: bool) -> Self {
        self.signals = signals;
        self
    }

    /// The app's name, by which the verbs of the `phalanx` command find it. Default: the program's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Serve the control socket, so that `phalanx status`, `reload`, `scale`, `stop`, `events`, `send` and
    /// `drill --name` work on this program? Default: yes. Where another app of the same name runs, the name gets the
    /// pid of the primary (`NAME-PID`). Without a place for the socket the app runs without it; `tracing` says why.
    #[cfg(feature = "control")]
    pub fn control(mut self, control: bool) -> Self {
        self.control = control;
        self
    }

    /// Tell on standard error what happens: workers that die and are replaced, reloads, scaling, the stop? Default:
    /// no. Programs with a log of their own read [`Control::life_events`](crate::supervisor::Control::life_events).
    #[cfg(feature = "control")]
    pub fn tell(mut self, tell: bool) -> Self {
        self.told = tell;
        self
    }

    /// The policy. Default: round robin, or what Node's `NODE_CLUSTER_SCHED_POLICY` says.
    pub fn policy(mut self, policy: PolicyName) -> Self {
        self.options.policy = policy;
        self
    }

    /// Weights by position, for the policy `weighted`. Default: all weigh 1.
    pub fn weights(mut self, weights: Weights) -> Self {
        self.options.weights = weights;
        self
    }

    /// A policy of your own: `make` is called for each listener. Connections are handed over then.
    pub fn custom_policy(
        mut self,
        make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static,
    ) -> Self {
        self.options.own_policy = Some(Arc::new(make));
        self
    }

    /// The former name of [`Builder::custom_policy`].
    #[deprecated(note = "it is called `custom_policy` now")]
    pub fn own_policy(self, make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static) -> Self {
        self.custom_policy(make)
    }

    /// The dispatch. Default: [`DispatchChoice::Auto`].
    pub fn dispatch(mut self, dispatch: DispatchChoice) -> Self {
        self.options.dispatch = dispatch;
        self
    }

    /// How long a worker may take to become ready. Default 30 s.
    pub fn ready_timeout(mut self, limit: Duration) -> Self {
        self.options.fleet.ready_timeout = limit;
        self
    }

    /// How long a worker that is asked to leave may finish its requests. Default 30 s.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.options.fleet.drain_timeout = limit;
        self
    }

    /// How long upgraded connections and server-sent events of a worker that leaves may go on after the drain limit.
    /// Default 30 s.
    pub fn stream_timeout(mut self, limit: Duration) -> Self {
        self.options.stream_timeout = limit;
        self
    }

    /// How long after SIGTERM a worker is killed. Default 5 s.
    pub fn kill_timeout(mut self, limit: Duration) -> Self {
        self.options.fleet.kill_timeout = limit;
        self
    }

    /// How long a worker may leave unanswered what waits for it before it is replaced, and then killed; None: for ever.
    /// Default 30 s. Call it after [`Builder::settings`].
    pub fn hang_timeout(mut self, limit: Option<Duration>) -> Self {
        self.options.settings.hang.timeout = limit;
        self
    }

    /// Extra workers during a rolling restart, as a count or a share. Default 1.
    pub fn max_surge(mut self, amount: Amount) -> Self {
        self.options.fleet.max_surge = amount;
        self
    }

    /// For how long a worker of the first generation is to open no further listener before it counts as ready.
    /// Default: [`Settings::READY_QUIET`].
    pub fn ready_quiet(mut self, quiet: Duration) -> Self {
        self.options.settings.ready_quiet = Some(quiet);
        self
    }

    /// Whether a release that does not open all listeners of the one before is accepted when its time to become
    /// ready is over. Default: it is refused.
    pub fn allow_fewer_listeners(mut self, allow: bool) -> Self {
        self.options.fleet.allow_fewer_listeners = allow;
        self
    }

    /// Missing workers during a rolling restart. Default 0.
    pub fn max_unavailable(mut self, amount: Amount) -> Self {
        self.options.fleet.max_unavailable = amount;
        self
    }

    /// How many workers that finish their work a rolling restart overlooks. Default: all; none where
    /// `max_surge` is 0.
    pub fn max_draining(mut self, amount: Amount) -> Self {
        self.options.fleet.max_draining = Some(amount);
        self
    }

    /// How many workers may start at the same moment. Default: eight for each core, at least 16.
    pub fn max_starting(mut self, count: NonZeroU32) -> Self {
        self.options.fleet.max_starting = Some(count);
        self
    }

    /// How many workers are kept ready without connections, besides the others. One of them takes the position of a worker that
    /// crashes, hangs or is recycled at once, and another is started behind it. Default 0.
    pub fn spares(mut self, count: u32) -> Self {
        self.options.fleet.spares = count;
        self
    }

    /// How long the first successors of a rolling restart must have served before they get
    /// connections. Default 0 s.
    pub fn soak(mut self, time: Duration) -> Self {
        self.options.fleet.soak = time;
        self
    }

    /// The most memory that a worker may occupy, in bytes (resident set size); it is replaced then, its successor first.
    /// The last position's limit is an eighth less. Default: none.
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.options.wear.max_memory = Some(bytes);
        self
    }

    /// How long a worker may have been ready before it is replaced; at the last position three quarters of it.
    /// Default: for ever.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.options.wear.max_age = Some(age);
        self
    }

    /// How many requests a worker may have answered before it is replaced, where it has a
    /// [`Meter`](crate::Meter); at the last position three quarters of it. Default: any number.
    pub fn max_requests(mut self, requests: u64) -> Self {
        self.options.wear.max_requests = Some(requests);
        self
    }

    /// How many workers may be replaced at the same time because they hang or are recycled (memory, age, requests). `max_surge` holds
    /// besides. Default 1.
    pub fn max_recycling(mut self, count: NonZeroU32) -> Self {
        self.options.fleet.max_recycling = count;
        self
    }

    /// What to do when no worker becomes ready at the start. Default: give up with an error.
    pub fn on_boot_failure(mut self, policy: BootPolicy) -> Self {
        self.options.fleet.boot = policy;
        self
    }

    /// How workers are started. Default: this program again, with the same arguments.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.options.settings = settings;
        self
    }

    /// Runs the server: supervises in the primary, calls `app` in each worker. Call it first thing in
    /// `main`, outside of any runtime. Returns in the primary when the app was stopped, in a worker
    /// when `app` returned.
    ///
    /// # Errors
    /// [`Error::BootFailed`] and everything of [`Supervisor::start`] in the primary, [`Error::App`] in a worker.
    pub fn run<A, F, E>(self, app: A) -> Result<()>
    where
        A: FnOnce(ThisWorker) -> F,
        F: Future<Output = std::result::Result<(), E>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        match init()? {
            Role::Primary(_) => runtime(1)?.block_on(self.supervise()),
            Role::Worker(worker) => runtime(self.threads)?
                .block_on(app(worker))
                .map_err(|error| Error::App(error.into())),
        }
    }

    async fn supervise(mut self) -> Result<()> {
        self.options.fleet.workers = match self.workers {
            Workers::Auto => {
                u32::try_from(phalanx_sys::cpu::usable_cores().get()).unwrap_or(u32::MAX)
            }
            Workers::Exactly(count) => count,
            Workers::Between(min, max) => {
                let max = max.max(min);
                self.options.elastic = Some(ElasticRange { min, max });
                min.get()
            }
        };
        let supervisor = Supervisor::start(self.options)?;
        if self.signals {
            supervisor.handle_signals()?;
        }
        #[cfg(feature = "control")]
        let beside = Beside::start(&supervisor.control(), self.control, self.told);
        let outcome = supervisor.finished().await;
        #[cfg(feature = "control")]
        beside.finish().await;
        match outcome {
            Outcome::Stopped | Outcome::WorkersGone => Ok(()),
            Outcome::BootFailed { reason, .. } => Err(Error::BootFailed(reason)),
        }
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    let mut builder = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .enable_all()
        .build()
        .map_err(|source: io::Error| Error::Setup {
            what: "the runtime",
            source,
        })
}
