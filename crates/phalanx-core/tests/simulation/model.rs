//! What the judge knows of the fleet: from the events it was given and the actions it took, never
//! from the machine's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phalanx_core::fleet::{
    Action, Amount, Command, CommandId, Event, FleetConfig, MAX_WORKERS, Outcome, ScaleTo,
};
use phalanx_core::health::Health;
use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};

use crate::known::{Known, SIGKILL, Streak};

/// The time after which an exit with code 0 is no crash.
const RECYCLED_AFTER: Duration = Duration::from_secs(1);

/// The fleet as far as events and actions tell.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub(crate) struct Model {
    pub(crate) config: FleetConfig,
    pub(crate) target: u32,
    pub(crate) has_started: bool,
    pub(crate) is_stopping: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) workers: BTreeMap<WorkerId, Known>,
    pub(crate) last_worker: WorkerId,
    /// Commands without a reply.
    pub(crate) waiting: BTreeMap<CommandId, Command>,
    pub(crate) snapshots: BTreeSet<Generation>,
    pub(crate) last_generation: Generation,
    /// The generation of the rollout that goes forward.
    pub(crate) rolling: Option<Generation>,
    /// The generation of the last reload that succeeded, else the first.
    pub(crate) base: Generation,
    /// Which generations have been ready at which positions.
    pub(crate) served: BTreeSet<(Position, Generation)>,
    /// Failed tries in a row, by position.
    pub(crate) streaks: BTreeMap<Position, Streak>,
    /// The limits of the rollout under way, else the configuration's.
    pub(crate) surge: Amount,
    pub(crate) unavailable: Amount,
    /// How many positions a rollout may take before its canaries have passed; none if it has none.
    pub(crate) canaries: Option<u32>,
    /// The target has changed since, and so may have their number.
    pub(crate) is_rescaled: bool,
    /// The runtime was told to watch.
    pub(crate) is_watching: bool,
    pub(crate) refuses: bool,
    /// The canary that is known to be bad; its rollout must not succeed.
    pub(crate) condemned: BTreeSet<Generation>,
    /// The positions that are recycled and their old workers, until these are gone.
    pub(crate) turns: BTreeMap<Position, WorkerId>,
    /// Who served when somebody wanted them replaced.
    pub(crate) recycles: BTreeMap<CommandId, BTreeSet<WorkerId>>,
    /// Workers that hang.
    pub(crate) hung: BTreeSet<WorkerId>,
    /// A revert was abandoned since, so workers of a failed generation may have stayed.
    pub(crate) may_be_mixed: bool,
}

impl Model {
    pub(crate) fn new(config: FleetConfig) -> Self {
        Self {
            target: config.workers,
            has_started: false,
            is_stopping: false,
            outcome: None,
            workers: BTreeMap::new(),
            last_worker: WorkerId(0),
            waiting: BTreeMap::new(),
            snapshots: BTreeSet::new(),
            last_generation: Generation(0),
            rolling: None,
            base: Generation(1),
            surge: config.max_surge,
            unavailable: config.max_unavailable,
            canaries: None,
            is_rescaled: false,
            is_watching: false,
            refuses: false,
            condemned: BTreeSet::new(),
            served: BTreeSet::new(),
            streaks: BTreeMap::new(),
            may_be_mixed: false,
            turns: BTreeMap::new(),
            hung: BTreeSet::new(),
            recycles: BTreeMap::new(),
            config,
        }
    }

    /// Takes note of what the fleet is about to be told.
    pub(crate) fn note_event(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Start => self.has_started = true,
            Event::Online { .. }
            | Event::Serves { .. }
            | Event::Lacks { .. }
            | Event::Extends { .. }
            | Event::Resize(_)
            | Event::Tick => {}
            Event::Ready { worker } => {
                let known = self.workers.get(worker);
                if known.is_some_and(Known::is_starting) {
                    self.note_serves(*worker, now);
                }
            }
            Event::Leaving { worker } => {
                self.forget_failures_beside(*worker);
                self.note_failed_try(*worker, now);
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_retiring |= known.is_ready();
                    known.is_leaving = true;
                }
            }
            Event::Disconnected { worker } => {
                self.forget_failures_beside(*worker);
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_lost |= known.is_ready();
                    known.is_leaving = true;
                }
            }
            Event::SpawnFailed { worker, .. } | Event::Exited { worker, .. } => {
                if let Event::Exited { status, .. } = event
                    && *status != SIGKILL
                    && !self.has_recycled(*worker, *status, now)
                {
                    self.condemn(*worker);
                }
                self.note_failed_try(*worker, now);
                self.excuse_kill(event);
                self.forget_failures_beside(*worker);
                self.workers.remove(worker);
            }
            Event::Health { worker, health } => self.note_health(*worker, health),
            Event::Hung { worker } => self.condemn(*worker),
            Event::Worn { worker, wear } => self.note_hung(*worker, *wear),
            Event::Recovered { worker } => self.note_recovered(*worker),
            Event::Command { id, command } => self.note_command(*id, *command),
        }
    }

    /// A worker serves; it is ready unless it is held back.
    fn note_serves(&mut self, worker: WorkerId, now: Duration) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.serves = true;
            if known.position.is_spare() {
                // Its start has succeeded.
                self.streaks.remove(&known.position);
            }
            if !known.is_held {
                self.note_ready(worker, now);
            }
        }
    }

    /// A worker gets its connections and counts as ready.
    pub(crate) fn note_ready(&mut self, worker: WorkerId, now: Duration) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.ready_at = Some(now);
            self.served.insert((known.position, known.generation));
            self.streaks.remove(&known.position);
        }
    }

    /// One that has served for a second and exits with code 0 recycles itself: that is no crash. (Where it lost its
    /// channel first, the fleet counts up to that, and may be stricter.)
    fn has_recycled(&self, worker: WorkerId, status: ExitStatus, now: Duration) -> bool {
        let ready_at = self.workers.get(&worker).and_then(|known| known.ready_at);
        let has_served = ready_at.is_some_and(|at| now.saturating_sub(at) >= RECYCLED_AFTER);
        status == ExitStatus::Code(0) && has_served
    }

    /// A canary is bad: its rollout is lost.
    fn condemn(&mut self, worker: WorkerId) {
        let known = self.workers.get(&worker);
        let bad = known.filter(|known| {
            (known.is_ready() || known.is_lost)
                && self.canaries.is_some()
                && !self.is_stopping
                && self.is_wanted(known.position)
                && Some(known.generation) == self.rolling
        });
        if let Some(known) = bad {
            self.condemned.insert(known.generation);
        }
    }

    /// A canary that answers with nothing but errors, while the others have none, is bad.
    fn note_health(&mut self, worker: WorkerId, health: &Health) {
        let Some(known) = self.workers.get_mut(&worker).filter(|_| self.is_watching) else {
            return;
        };
        known.errors = health.server_errors;
        let is_bad = health.requests >= 20 && health.server_errors == health.requests;
        let others_are_well = self
            .workers
            .values()
            .filter(|known| Some(known.generation) != self.rolling)
            .all(|known| known.errors == 0);
        let is_ready = self.workers[&worker].is_ready();
        if is_bad && others_are_well && is_ready {
            self.condemn(worker);
        }
    }

    /// A run that was long enough makes the failures before it forgotten, also those of tries beside it.
    fn forget_failures_beside(&mut self, worker: WorkerId) {
        let known = self.workers.get(&worker);
        if let Some(known) = known.filter(|known| known.ready_at.is_some()) {
            self.streaks.remove(&known.position);
        }
    }

    /// Takes note of a worker's end if it ended by itself and was never ready.
    fn note_failed_try(&mut self, worker: WorkerId, now: Duration) {
        let Some(known) = self.workers.get(&worker) else {
            return;
        };
        if !known.is_starting() || known.waits_as_spare() {
            return;
        }
        let streak = self.streaks.entry(known.position).or_insert(Streak {
            generation: known.generation,
            failures: 0,
            failed_at: now,
        });
        if streak.generation == known.generation {
            streak.failures += 1;
        } else {
            streak.generation = known.generation;
            streak.failures = 1;
        }
        streak.failed_at = now;
    }

    /// A kill from outside counts as a failure only while there were fewer than five.
    fn excuse_kill(&mut self, event: &Event) {
        let Event::Exited {
            worker,
            status: ExitStatus::Signal(9),
        } = event
        else {
            return;
        };
        let is_try = |known: &&Known| known.is_starting() && !known.waits_as_spare();
        let known = self.workers.get(worker).filter(is_try);
        let streak = known.and_then(|known| self.streaks.get_mut(&known.position));
        if let Some(streak) = streak {
            streak.failures = streak
                .failures
                .saturating_sub(1)
                .max(streak.failures.min(5));
        }
    }

    fn note_command(&mut self, id: CommandId, command: Command) {
        self.waiting.insert(id, command);
        if self.outcome.is_some() {
            return;
        }
        match command {
            Command::Reload(_) | Command::Rollback => {}
            Command::Recycle(target) => self.note_recycle(id, target),
            Command::Stop | Command::StopFast => self.is_stopping = true,
            Command::Scale(_) if self.is_stopping => {}
            Command::Scale(to) => {
                let wanted = match to {
                    ScaleTo::Exactly(workers) => Some(workers),
                    ScaleTo::Up(more) => self.target.checked_add(more),
                    ScaleTo::Down(fewer) => self.target.checked_sub(fewer),
                };
                if let Some(wanted) = wanted.filter(|wanted| *wanted <= MAX_WORKERS) {
                    self.resized(wanted);
                }
            }
        }
    }

    pub(crate) fn resized(&mut self, wanted: u32) {
        self.streaks.retain(|position, _| position.0 < wanted);
        self.target = wanted;
        self.is_rescaled = true;
    }

    /// Takes note of what the fleet did.
    pub(crate) fn note_action(&mut self, action: &Action, now: Duration) {
        match action {
            Action::NewGeneration(generation) => {
                self.snapshots.insert(*generation);
                self.last_generation = *generation;
                self.streaks.clear();
            }
            Action::DropGeneration(generation) => {
                self.snapshots.remove(generation);
            }
            Action::Spawn {
                worker,
                position,
                generation,
                held,
            } => {
                self.last_worker = *worker;
                self.streaks
                    .retain(|at, streak| at != position || streak.generation == *generation);
                self.workers
                    .insert(*worker, Known::spawned(*position, *generation, *held));
            }
            Action::Refuse => self.refuses = true,
            Action::Drain { worker } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_retiring = true;
                    known.is_leaving = true;
                }
            }
            Action::Admit { worker } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_held = false;
                }
                self.note_ready(*worker, now);
            }
            Action::Promote { worker, position } => self.note_promoted(*worker, *position, now),
            Action::Accept { worker } => self.note_serves(*worker, now),
            Action::BeginWatch => {
                self.is_watching = true;
                for known in self.workers.values_mut() {
                    known.errors = 0;
                }
            }
            Action::EndWatch => self.is_watching = false,
            Action::Stop { worker } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_retiring |= !known.is_leaving;
                    known.is_leaving = true;
                    known.stopped_at = Some(now);
                }
            }
            Action::Kill { worker } => self.note_kill(*worker, now),
            Action::Settled { .. } => {}
            Action::Reply { command, result } => self.note_reply(*command, result),
            Action::Report(report) => self.note_report(report),
            Action::Finished(outcome) => {
                self.is_stopping = true;
                self.outcome = Some(outcome.clone());
            }
        }
    }
}
