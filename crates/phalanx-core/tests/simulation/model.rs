//! What the judge knows of the fleet: from the events it was given and the actions it took, never
//! from the machine's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phalanx_core::fleet::{
    Action, Command, CommandId, Done, Event, FleetConfig, MAX_WORKERS, Outcome, Refusal, Report,
    ScaleTo,
};
use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};

/// The death that says nothing about a program.
pub(crate) const SIGKILL: ExitStatus = ExitStatus::Signal(9);

/// One worker, as far as events and actions tell.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) position: Position,
    pub(crate) generation: Generation,
    pub(crate) ready_at: Option<Duration>,
    /// It is on its way out: drained, stopped, without a channel, or by its own wish.
    pub(crate) is_leaving: bool,
    /// It lost its channel while it was ready: the limit on processes does not count it.
    pub(crate) is_lost: bool,
    pub(crate) stopped_at: Option<Duration>,
    /// Since when it could be spared: another one at its position is ready too, or the position is
    /// surplus.
    pub(crate) spare_since: Option<Duration>,
}

/// Tries of one generation at one position, none of which was ever ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streak {
    pub(crate) generation: Generation,
    pub(crate) failures: u32,
    pub(crate) failed_at: Duration,
}

impl Known {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_at.is_some() && !self.is_leaving
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.ready_at.is_none() && !self.is_leaving
    }
}

/// The fleet as far as events and actions tell.
#[derive(Debug)]
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
    /// A roll-back was abandoned since, so workers of a failed generation may have stayed.
    pub(crate) may_be_mixed: bool,
}

impl Model {
    pub(crate) fn new(config: FleetConfig) -> Self {
        Self {
            target: config.workers,
            config,
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
            served: BTreeSet::new(),
            streaks: BTreeMap::new(),
            may_be_mixed: false,
        }
    }

    /// Takes note of what the fleet is about to be told.
    pub(crate) fn note_event(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Start => self.has_started = true,
            Event::Online { .. } | Event::Extends { .. } | Event::Tick => {}
            Event::Ready { worker } => {
                if let Some(known) = self.workers.get_mut(worker)
                    && known.is_starting()
                {
                    known.ready_at = Some(now);
                    self.served.insert((known.position, known.generation));
                    self.streaks.remove(&known.position);
                }
            }
            Event::Leaving { worker } => {
                self.note_failed_try(*worker, now);
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_leaving = true;
                }
            }
            Event::Disconnected { worker } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_lost |= known.is_ready();
                    known.is_leaving = true;
                }
            }
            Event::SpawnFailed { worker, .. } | Event::Exited { worker, .. } => {
                self.note_failed_try(*worker, now);
                self.excuse_kill(event);
                self.workers.remove(worker);
            }
            Event::Command { id, command } => self.note_command(*id, *command),
        }
    }

    /// Takes note of a worker's end if it ended by itself and was never ready.
    fn note_failed_try(&mut self, worker: WorkerId, now: Duration) {
        let Some(known) = self.workers.get(&worker) else {
            return;
        };
        if !known.is_starting() {
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
        let known = self.workers.get(worker).filter(|known| known.is_starting());
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
            Command::Reload => {}
            Command::Stop | Command::StopFast => self.is_stopping = true,
            Command::Scale(_) if self.is_stopping => {}
            Command::Scale(to) => {
                let wanted = match to {
                    ScaleTo::Exactly(workers) => Some(workers),
                    ScaleTo::Up(more) => self.target.checked_add(more),
                    ScaleTo::Down(fewer) => self.target.checked_sub(fewer),
                };
                if let Some(wanted) = wanted.filter(|wanted| *wanted <= MAX_WORKERS) {
                    self.streaks.retain(|position, _| position.0 < wanted);
                    self.target = wanted;
                }
            }
        }
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
            } => {
                self.last_worker = *worker;
                self.streaks
                    .retain(|at, streak| at != position || streak.generation == *generation);
                let known = Known {
                    position: *position,
                    generation: *generation,
                    ready_at: None,
                    is_leaving: false,
                    is_lost: false,
                    stopped_at: None,
                    spare_since: None,
                };
                self.workers.insert(*worker, known);
            }
            Action::Drain { worker } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_leaving = true;
                }
            }
            Action::Stop { worker } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_leaving = true;
                    known.stopped_at = Some(now);
                }
            }
            Action::Kill { .. } | Action::Settled { .. } => {}
            Action::Reply { command, result } => self.note_reply(*command, result),
            Action::Report(report) => self.note_report(report),
            Action::Finished(outcome) => {
                self.is_stopping = true;
                self.outcome = Some(outcome.clone());
            }
        }
    }

    fn note_reply(&mut self, command: CommandId, result: &Result<Done, Refusal>) {
        self.waiting.remove(&command);
        if let Ok(Done::Reloaded { generation }) = result {
            self.base = *generation;
            self.may_be_mixed = false;
        }
    }

    fn note_report(&mut self, report: &Report) {
        match report {
            Report::RollbackAbandoned { .. } => self.may_be_mixed = true,
            Report::RolloutStarted { generation, .. } => self.rolling = Some(*generation),
            Report::RolloutFinished { .. } => self.rolling = None,
            Report::RolloutFailed { .. } => {
                self.rolling = None;
                // Other releases get their turn: their tries begin anew.
                self.streaks.clear();
            }
            Report::Changed { .. }
            | Report::RespawnScheduled { .. }
            | Report::CrashLoopEntered { .. }
            | Report::CrashLoopLeft { .. }
            | Report::BootOver
            | Report::RolloutProgress { .. }
            | Report::RolledBack { .. }
            | Report::ScaleStarted { .. }
            | Report::ScaleProgress { .. }
            | Report::StopStarted { .. }
            | Report::StopProgress { .. } => {}
        }
    }

    /// Takes note of who could be spared, after a step.
    pub(crate) fn note_spares(&mut self, now: Duration) {
        let mut ready: BTreeMap<Position, u32> = BTreeMap::new();
        for known in self.workers.values().filter(|known| known.is_ready()) {
            *ready.entry(known.position).or_default() += 1;
        }
        for known in self.workers.values_mut() {
            let is_spare = known.position.0 >= self.target || ready.get(&known.position) > Some(&1);
            known.spare_since = if known.is_ready() && is_spare {
                known.spare_since.or(Some(now))
            } else {
                None
            };
        }
    }

    pub(crate) fn is_wanted(&self, position: Position) -> bool {
        position.0 < self.target
    }

    /// The workers at that position.
    pub(crate) fn at(&self, position: Position) -> impl Iterator<Item = &Known> {
        self.workers
            .values()
            .filter(move |known| known.position == position)
    }

    pub(crate) fn ready(&self) -> usize {
        self.workers
            .values()
            .filter(|known| known.is_ready())
            .count()
    }

    /// How many must be ready after one was taken down.
    pub(crate) fn floor(&self) -> usize {
        let staffed = if self.config.respawn {
            self.target
        } else {
            let active: BTreeSet<Position> = self
                .workers
                .values()
                .filter(|known| !known.is_leaving && self.is_wanted(known.position))
                .map(|known| known.position)
                .collect();
            u32::try_from(active.len()).expect("few positions")
        };
        let floor = staffed.saturating_sub(self.config.unavailable(self.target));
        usize::try_from(floor).expect("few workers")
    }

    /// Processes as the limit on them counts, with one reserved for each position without any.
    pub(crate) fn processes(&self) -> usize {
        let counted: Vec<Position> = self
            .workers
            .values()
            .filter(|known| !known.is_lost)
            .map(|known| known.position)
            .collect();
        let held: BTreeSet<Position> = counted
            .iter()
            .copied()
            .filter(|position| self.is_wanted(*position))
            .collect();
        let target = usize::try_from(self.target).expect("few workers");
        counted.len() + target - held.len()
    }

    pub(crate) fn limit(&self) -> usize {
        let limit = self.target + self.config.surge(self.target);
        usize::try_from(limit).expect("few workers")
    }

    /// Whether each position has exactly one worker, and that one is ready, and nothing else lives.
    pub(crate) fn is_converged(&self) -> bool {
        let mut held = BTreeSet::new();
        self.workers.values().all(|known| {
            known.is_ready() && self.is_wanted(known.position) && held.insert(known.position)
        }) && u32::try_from(held.len()) == Ok(self.target)
    }

    pub(crate) fn is_uniform(&self) -> bool {
        self.workers
            .values()
            .all(|known| known.generation == self.base)
    }
}
