//! Feeds the fleet machine with what happens, and does what it says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phalanx_core::clock::Moment;
use phalanx_core::fleet::{
    self, Action, Command, CommandId, ConfigError, Done, Fleet, FleetConfig, FleetView, Refusal,
    Report, WorkerState,
};
use phalanx_core::ids::{Generation, Position, WorkerId};
use tokio::sync::{mpsc, oneshot};

use super::app_metrics::AppBook;
use super::cores::CoresWatch;
use super::elastic::ElasticWatch;
use super::identity;
use super::metrics::Meters;
use super::python_metrics::PythonBook;
use super::vitals::Measured;
use super::wear::WearWatch;
use super::{Outcome, OutputStates};
use crate::event::Event;
use crate::primary::{Admission, Cluster, Fork, LastLines, LinesSink, Release, Reports, clock};

/// Of so many workers that are gone the last lines are kept.
const KEPT_WORKERS: usize = 64;

/// A command with the place for its answer.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<Done, Refusal>>,
}

/// What the runner and the handles share.
pub(super) struct Shared {
    pub(super) name: String,
    /// From when the fleet's times count.
    started: Moment,
    sink: Option<LinesSink>,
    pub(super) outputs: Option<OutputStates>,
    pub(super) measured: Measured,
    pub(super) meters: Arc<Meters>,
    pub(super) app_book: Arc<AppBook>,
    pub(super) python_book: Arc<PythonBook>,
    /// How long the app is not ready before it stops, and since when it is.
    pub(super) stop_delay: Duration,
    pub(super) leaving_since: OnceLock<Moment>,
    state: Mutex<State>,
}

struct State {
    fleet: Fleet,
    ready_at: HashMap<WorkerId, u64>,
    last_lines: BTreeMap<WorkerId, LastLines>,
}

impl Shared {
    pub(super) fn new(
        name: String,
        fleet: Fleet,
        (sink, outputs): (Option<LinesSink>, Option<OutputStates>),
        measured: Measured,
    ) -> Self {
        Self {
            name,
            started: clock::now(),
            sink,
            outputs,
            measured,
            meters: Arc::default(),
            app_book: Arc::default(),
            python_book: Arc::default(),
            stop_delay: Duration::ZERO,
            leaving_since: OnceLock::new(),
            state: Mutex::new(State {
                fleet,
                ready_at: HashMap::new(),
                last_lines: BTreeMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present, as the fleet counts it.
    pub(super) fn now(&self) -> Duration {
        clock::now() - self.started
    }

    pub(super) fn configure(&self, config: FleetConfig) -> Result<(), ConfigError> {
        self.state().fleet.configure(config)
    }

    pub(super) fn view(&self) -> FleetView {
        self.state().fleet.view()
    }

    pub(super) fn ready_at(&self, worker: WorkerId) -> Option<u64> {
        self.state().ready_at.get(&worker).copied()
    }

    pub(super) fn last_lines(&self, worker: WorkerId) -> Vec<String> {
        let lines = self.state().last_lines.get(&worker).cloned();
        lines.map(|lines| lines.to_vec()).unwrap_or_default()
    }

    /// A place for a new worker's last lines; the oldest ones are forgotten.
    fn keep_lines(&self, worker: WorkerId, live: usize) -> LastLines {
        let mut state = self.state();
        while state.last_lines.len() >= live + KEPT_WORKERS {
            state.last_lines.pop_first();
        }
        state.last_lines.entry(worker).or_default().clone()
    }
}

/// How the start of a worker went.
#[derive(Debug)]
struct Start {
    worker: WorkerId,
    /// Why it was not started.
    failure: Option<String>,
}

/// What is to be done to a worker.
#[derive(Clone, Copy, Debug)]
enum Then {
    Drain,
    Stop,
    Kill,
}

struct Runner {
    cluster: Cluster,
    shared: Arc<Shared>,
    releases: BTreeMap<Generation, Result<Arc<Release>, String>>,
    /// Workers whose start has not been told yet, with what is to be done to them then.
    starting: BTreeMap<WorkerId, Vec<Then>>,
    started_ones: mpsc::UnboundedSender<Start>,
    answers: HashMap<CommandId, oneshot::Sender<Result<Done, Refusal>>>,
    next_command: u64,
    outcome: Option<Outcome>,
}

pub(super) async fn run(
    cluster: Cluster,
    shared: Arc<Shared>,
    mut reports: Reports,
    mut inbox: mpsc::UnboundedReceiver<Ask>,
    (mut wear, mut elastic, mut cores): (WearWatch, ElasticWatch, CoresWatch),
    finish: oneshot::Sender<Outcome>,
) {
    cluster.shared.keep_time();
    let (started_ones, mut starts) = mpsc::unbounded_channel();
    let mut runner = Runner {
        cluster,
        shared,
        releases: BTreeMap::new(),
        starting: BTreeMap::new(),
        started_ones,
        answers: HashMap::new(),
        next_command: 1,
        outcome: None,
    };
    runner.step(fleet::Event::Start);
    let outcome = loop {
        if let Some(outcome) = runner.outcome.take() {
            break outcome;
        }
        let deadline = runner.deadline();
        tokio::select! {
            biased;
            report = reports.next() => runner.step(report),
            Some(start) = starts.recv() => runner.has_started(start),
            Some(ask) = inbox.recv() => runner.command(ask),
            () = elastic.is_due() => {
                let view = runner.shared.view();
                if let Some(resize) = elastic.look(&runner.cluster, &view, runner.now()) {
                    runner.step(resize);
                }
            }
            () = cores.is_due() => {
                let view = runner.shared.view();
                if let Some(resize) = cores.look(&view) {
                    runner.step(resize);
                }
            }
            () = wear.is_due() => {
                let view = runner.shared.view();
                for worn in wear.look(&runner.cluster, &view, runner.now()) {
                    runner.step(worn);
                }
            }
            () = until(deadline) => runner.step(fleet::Event::Tick),
        }
        // When hundreds of workers end together there is always one more event: others have their turns meanwhile.
        tokio::task::yield_now().await;
    };
    runner.cluster.close_listeners();
    runner.cluster.clear_trees().await;
    // Whoever waits for the end may have stopped waiting.
    drop(finish.send(outcome));
}

async fn until(deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => clock::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Runner {
    fn now(&self) -> Duration {
        self.shared.now()
    }

    fn deadline(&self) -> Option<Moment> {
        let deadline = self.shared.state().fleet.next_deadline()?;
        Some(self.shared.started + deadline)
    }

    fn command(&mut self, ask: Ask) {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.answers.insert(id, ask.answer);
        self.step(fleet::Event::Command {
            id,
            command: ask.command,
        });
    }

    fn step(&mut self, event: fleet::Event) {
        let mut events = vec![event];
        // Carrying out an action can fail at once, which is an event of its own.
        while let Some(event) = events.pop() {
            let now = self.now();
            let actions = self.shared.state().fleet.step(event, now);
            for action in actions {
                events.extend(self.carry_out(action));
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<fleet::Event> {
        match action {
            Action::NewGeneration(generation) => {
                let release = Release::resolve(&self.cluster.settings());
                let release = release.map(Arc::new).map_err(|error| chain(&error));
                self.releases.insert(generation, release);
            }
            Action::DropGeneration(generation) => {
                self.releases.remove(&generation);
                self.cluster.drop_generation(generation);
            }
            Action::Spawn {
                worker,
                position,
                generation,
                held,
            } => return self.spawn((worker, position, generation), admission(held)),
            Action::Accept { worker } => self.cluster.accept(worker),
            Action::Admit { worker } => self.cluster.admit(worker),
            Action::Promote { worker, position } => self.cluster.promote(worker, position),
            Action::BeginWatch => self.cluster.watch_health(true),
            Action::EndWatch => self.cluster.watch_health(false),
            Action::Refuse => self.cluster.refuse_newcomers(),
            Action::Drain { worker } => self.tell(worker, Then::Drain),
            Action::Stop { worker } => self.tell(worker, Then::Stop),
            Action::Kill { worker } => self.tell(worker, Then::Kill),
            Action::Reply { command, result } => {
                if let Some(answer) = self.answers.remove(&command) {
                    // A client that went away needs no answer.
                    drop(answer.send(result));
                }
            }
            Action::Report(report) => self.report(report),
            Action::Settled { workers, .. } => {
                self.cluster.close_orphans(workers);
                self.shared.measured.settled(self.cluster.workers().len());
            }
            Action::Finished(outcome) => self.outcome = Some(self.explain(outcome)),
        }
        None
    }

    fn spawn(
        &mut self,
        (worker, position, generation): (WorkerId, Position, Generation),
        admission: Admission,
    ) -> Option<fleet::Event> {
        let live = self.cluster.workers().len();
        let last = self.shared.keep_lines(worker, live);
        let failed = |reason| Some(fleet::Event::SpawnFailed { worker, reason });
        let release = match self.releases.get(&generation) {
            Some(Ok(release)) => Arc::clone(release),
            Some(Err(reason)) => return failed(reason.clone()),
            None => return failed("its release is unknown".to_owned()),
        };
        self.starting.insert(worker, Vec::new());
        let (cluster, shared) = (self.cluster.clone(), Arc::clone(&self.shared));
        let told = self.started_ones.clone();
        let instance = identity::variable(&self.shared.name, position, &release.settings().env);
        // The program may lie on a slow disk, and a scanner may have a look at it first.
        tokio::task::spawn_blocking(move || {
            let book = &shared.python_book;
            let metrics = book.variable(&cluster, &release, (worker, position));
            let started = cluster.start(&Fork {
                worker,
                position,
                generation,
                release: &release,
                env: instance.into_iter().chain(metrics).collect(),
                sink: shared.sink.clone(),
                last,
                admission,
            });
            book.has_started(worker, started.is_ok());
            let failure = started.err().map(|error| chain(&error));
            // Nobody listens when the app has ended.
            drop(told.send(Start { worker, failure }));
        });
        None
    }

    fn has_started(&mut self, start: Start) {
        let Start { worker, failure } = start;
        let then = self.starting.remove(&worker).unwrap_or_default();
        if let Some(reason) = failure {
            return self.step(fleet::Event::SpawnFailed { worker, reason });
        }
        for act in then {
            self.tell(worker, act);
        }
    }

    /// Tells a worker; one that is not there yet is told when it is.
    fn tell(&mut self, id: WorkerId, then: Then) {
        let Some(worker) = self.cluster.worker(id) else {
            if let Some(later) = self.starting.get_mut(&id) {
                later.push(then);
            }
            return;
        };
        let told = match then {
            Then::Drain => {
                worker.disconnect();
                Ok(())
            }
            Then::Stop => worker.stop(),
            Then::Kill => worker.kill_group(),
        };
        if let Err(error) = told {
            let error = chain(&error);
            tracing::error!(worker = id.0, error, "cannot end a worker");
        }
    }

    fn report(&self, report: Report) {
        self.shared.meters.note(&report, self.now());
        if let Report::Changed { worker, to, .. } = &report {
            let mut state = self.shared.state();
            match to {
                WorkerState::Ready => drop(state.ready_at.insert(*worker, epoch_millis())),
                WorkerState::Gone => {
                    state.ready_at.remove(worker);
                    self.shared.python_book.fold(&self.cluster);
                }
                WorkerState::Starting
                | WorkerState::Online
                | WorkerState::Spare
                | WorkerState::Draining
                | WorkerState::Stopping => {}
            }
        }
        self.cluster.announce(&Event::Fleet(report));
    }

    fn explain(&self, outcome: fleet::Outcome) -> Outcome {
        match outcome {
            fleet::Outcome::Stopped => Outcome::Stopped,
            fleet::Outcome::AllGone => Outcome::WorkersGone,
            fleet::Outcome::BootFailed { failure } => Outcome::BootFailed {
                reason: failure.to_string(),
                last_lines: failure
                    .worker
                    .map(|worker| self.shared.last_lines(worker))
                    .unwrap_or_default(),
            },
        }
    }
}

fn admission(held_back: bool) -> Admission {
    if held_back {
        Admission::HeldBack
    } else {
        Admission::Open
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn epoch_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
