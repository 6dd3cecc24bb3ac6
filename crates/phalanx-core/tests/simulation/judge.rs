//! The rules that hold after every step of every history.

use std::time::Duration;

use phalanx_core::fleet::{Action, Event, FailureReason, Report};
use phalanx_core::ids::{Generation, Position, WorkerId};

use crate::known::{Known, SIGKILL};
use crate::model::Model;

/// Which rule was broken, and how.
pub(crate) type Verdict = Result<(), String>;

/// Fails with this text unless the rule holds.
macro_rules! rule {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

pub(crate) use rule;

/// Watches one history.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) model: Model,
}

impl Judge {
    pub(crate) fn new(model: Model) -> Self {
        Self { model }
    }

    /// Judges one step: what the fleet did when told of `event`.
    pub(crate) fn step(&mut self, event: &Event, actions: &[Action], now: Duration) -> Verdict {
        let was_finished = self.model.outcome.is_some();
        if self.fails_rollout(event, actions) {
            rule!(
                actions.iter().any(is_rollout_failure),
                "a successor failed, but the rollout goes on"
            );
        }
        let condemned = self.model.condemned.len();
        self.model.note_event(event, now);
        self.model.note_gone();
        rule!(
            self.model.condemned.len() == condemned || actions.iter().any(is_rollout_failure),
            "a canary is bad, but the rollout goes on"
        );
        rule!(
            !actions.iter().any(blames_a_kill),
            "a kill from outside failed the rollout"
        );
        let mut before = self.model.processes();
        // A way back whose last step this is may have had room of its own.
        let had = self.model.limit();
        for action in actions {
            rule!(
                !was_finished || matches!(action, Action::Reply { .. }),
                "{action:?} after the end"
            );
            self.judge_action(action, now)?;
            self.model.note_action(action, now);
            // A successor that was accepted ends the turn in which it came, and the next one begins in the same step.
            self.model.note_gone();
            if matches!(action, Action::Report(Report::Resizes { .. })) {
                // Each position of another target counts from now on, as after a command to scale.
                before = self.model.processes();
            }
        }
        let model = &self.model;
        let (after, limit) = (model.processes(), model.limit());
        // A reload may have brought a limit of its own.
        let (counted, before) = (model.counted(after), model.counted(before));
        rule!(
            counted <= limit.max(before).max(had),
            "{counted} processes, {before} before the step, with a limit of {limit}"
        );
        self.model.note_spares(now);
        self.model.note_gone();
        self.judge_positions()
    }

    /// Whether a worker of the generation that is rolled out ends, or must end, before it was
    /// ready. SIGKILL from outside says nothing about its release.
    fn fails_rollout(&self, event: &Event, actions: &[Action]) -> bool {
        match event {
            Event::SpawnFailed { worker, .. } | Event::Leaving { worker } => {
                self.is_successor(*worker)
            }
            Event::Exited { worker, status } => *status != SIGKILL && self.is_successor(*worker),
            // Nothing but its time limit stops a successor on a tick, or it is too late anyway.
            Event::Tick => actions.iter().any(|action| match action {
                Action::Stop { worker } => self.is_successor(*worker),
                Action::NewGeneration(_)
                | Action::DropGeneration(_)
                | Action::Spawn { .. }
                | Action::Admit { .. }
                | Action::Promote { .. }
                | Action::Accept { .. }
                | Action::BeginWatch
                | Action::EndWatch
                | Action::Refuse
                | Action::Drain { .. }
                | Action::Kill { .. }
                | Action::Reply { .. }
                | Action::Report(_)
                | Action::Settled { .. }
                | Action::Finished(_) => false,
            }),
            Event::Start
            | Event::Online { .. }
            | Event::Serves { .. }
            | Event::Ready { .. }
            | Event::Lacks { .. }
            | Event::Extends { .. }
            | Event::Disconnected { .. }
            | Event::Health { .. }
            | Event::Hung { .. }
            | Event::Worn { .. }
            | Event::Recovered { .. }
            | Event::Resize(_)
            | Event::Command { .. } => false,
        }
    }

    fn is_successor(&self, worker: WorkerId) -> bool {
        let model = &self.model;
        !model.is_stopping
            && model.workers.get(&worker).is_some_and(|known| {
                known.is_starting()
                    && Some(known.generation) == model.rolling
                    && model.is_wanted(known.position)
            })
    }

    fn judge_action(&self, action: &Action, now: Duration) -> Verdict {
        let model = &self.model;
        match action {
            Action::NewGeneration(generation) => {
                rule!(
                    *generation > model.last_generation,
                    "generation {generation} is not new"
                );
            }
            Action::DropGeneration(generation) => return self.judge_drop(*generation),
            Action::Spawn {
                worker,
                position,
                generation,
                ..
            } => return self.judge_spawn((*worker, *position, *generation), now),
            Action::Admit { worker } => {
                let known = self.known(*worker)?;
                rule!(
                    known.is_held && known.serves && known.is_starting(),
                    "worker {worker} is given connections out of time"
                );
            }
            Action::Promote { worker, position } => {
                return self.judge_promotion(*worker, *position);
            }
            Action::Accept { worker } => {
                let known = self.known(*worker)?;
                rule!(
                    known.is_starting(),
                    "worker {worker} is accepted out of time"
                );
                rule!(
                    self.model.config.allow_fewer_listeners
                        || Some(known.generation) != self.model.rolling,
                    "worker {worker} of a release on trial is accepted"
                );
            }
            Action::BeginWatch => rule!(!model.is_watching, "the watch begins twice"),
            Action::EndWatch => rule!(model.is_watching, "no watch that could end"),
            Action::Refuse => rule!(!model.refuses, "newcomers are refused twice"),
            Action::Drain { worker } => return self.judge_drain(*worker, now),
            Action::Stop { worker } => return self.judge_stop(*worker),
            Action::Kill { worker } => return self.judge_kill(*worker, now),
            Action::Reply { command, result } => return self.judge_reply(*command, result),
            Action::Report(report) => return self.judge_turn(report),
            Action::Settled { generation, .. } => {
                self.judge_settled_spares()?;
                rule!(model.is_converged(), "settled, but not converged");
                let is_uniform = model
                    .workers
                    .values()
                    .all(|known| known.generation == *generation);
                rule!(is_uniform, "settled with several generations");
            }
            Action::Finished(_) => {
                rule!(model.workers.is_empty(), "finished while workers live");
                rule!(model.waiting.is_empty(), "finished without all answers");
            }
        }
        Ok(())
    }

    fn judge_drop(&self, generation: Generation) -> Verdict {
        let model = &self.model;
        rule!(
            model.snapshots.contains(&generation),
            "generation {generation} dropped, but there is no such snapshot"
        );
        let is_used = model
            .workers
            .values()
            .any(|known| known.generation == generation);
        rule!(!is_used, "generation {generation} dropped while it lives");
        Ok(())
    }

    fn judge_spawn(
        &self,
        (worker, position, generation): (WorkerId, Position, Generation),
        now: Duration,
    ) -> Verdict {
        let model = &self.model;
        rule!(
            model.has_started && !model.is_stopping,
            "worker {worker} spawned out of time"
        );
        rule!(worker > model.last_worker, "worker id {worker} used again");
        if position.is_spare() {
            self.judge_spare(worker, position, generation)?;
        }
        rule!(
            model.is_wanted(position) || position.is_spare(),
            "worker {worker} spawned at surplus position {position}"
        );
        rule!(
            model.snapshots.contains(&generation),
            "worker {worker} spawned without a snapshot of generation {generation}"
        );
        if let Some(limit) = model.config.max_starting {
            rule!(
                model.booting() <= limit.get(),
                "worker {worker} spawned while {} others start",
                model.booting()
            );
        }
        if let Some(canaries) = model.canaries.filter(|_| !position.is_spare())
            && model.rolling == Some(generation)
            && !model.is_rescaled
            && !model
                .at(position)
                .any(|known| known.generation == generation)
        {
            let canaries = usize::try_from(canaries).expect("few workers");
            rule!(
                model.positions_of(generation) < canaries,
                "worker {worker} spawned before the {canaries} canaries had passed"
            );
        }
        let failing = |known: &Known| {
            known.ready_at.is_none() && known.stopped_at.is_none() && !known.is_retiring
        };
        rule!(
            !model.at(position).any(failing),
            "worker {worker} spawned while another try at position {position} is not over"
        );
        if let Some(streak) = model.streaks.get(&position)
            && streak.generation == generation
        {
            let least = model.config.backoff.nominal_delay(streak.failures) * 79 / 100;
            rule!(
                now >= streak.failed_at + least,
                "worker {worker} spawned without waiting after {} failures at position {position}",
                streak.failures
            );
        }
        Ok(())
    }

    fn judge_drain(&self, worker: WorkerId, now: Duration) -> Verdict {
        let known = self.known(worker)?;
        // So never twice, and never after it said that it leaves: a second request kills a Node
        // worker.
        let is_unwanted = self.model.is_stopping || !self.model.is_wanted(known.position);
        let may_leave = known.is_ready() || known.is_starting() && is_unwanted;
        rule!(
            may_leave,
            "worker {worker} drained, but it is needed or already leaves"
        );
        if self.model.is_stopping || known.is_starting() {
            return Ok(());
        }
        let is_surplus = !self.model.is_wanted(known.position);
        let others_serve = self
            .model
            .at(known.position)
            .filter(|at| at.is_ready())
            .count()
            > 1;
        rule!(
            is_surplus || others_serve || self.model.may_be_missing(),
            "worker {worker} drained before its successor was ready"
        );
        let (ready, floor) = (self.model.ready() - 1, self.model.floor());
        let patience = self.model.config.ready_timeout;
        let was_spare = known
            .spare_since
            .is_some_and(|since| now >= since + patience);
        rule!(
            ready >= floor || was_spare,
            "worker {worker} drained: {ready} are ready then, {floor} should be"
        );
        Ok(())
    }

    fn judge_stop(&self, worker: WorkerId) -> Verdict {
        let known = self.known(worker)?;
        rule!(known.stopped_at.is_none(), "worker {worker} stopped twice");
        rule!(
            !known.is_ready() || self.model.is_stopping,
            "worker {worker} stopped without being drained"
        );
        Ok(())
    }

    fn judge_kill(&self, worker: WorkerId, now: Duration) -> Verdict {
        let known = self.known(worker)?;
        if known.is_ready() && self.model.hung.contains(&worker) {
            return self.judge_kill_of_hung(worker, known);
        }
        let patience = self.model.config.kill_timeout;
        rule!(
            known.stopped_at.is_some_and(|at| now >= at + patience),
            "worker {worker} killed without having had its time to stop"
        );
        Ok(())
    }

    fn judge_positions(&self) -> Verdict {
        let mut starting: Vec<Position> = self
            .model
            .workers
            .values()
            .filter(|known| known.is_starting())
            .map(|known| known.position)
            .collect();
        starting.sort_unstable();
        let doubled = starting.windows(2).find(|pair| pair[0] == pair[1]);
        rule!(
            doubled.is_none(),
            "two workers start at one position: {doubled:?}"
        );
        Ok(())
    }

    pub(crate) fn known(&self, worker: WorkerId) -> Result<&Known, String> {
        self.model
            .workers
            .get(&worker)
            .ok_or_else(|| format!("an action for worker {worker}, which does not live"))
    }
}

fn is_rollout_failure(action: &Action) -> bool {
    matches!(action, Action::Report(Report::RolloutFailed { .. }))
}

/// SIGKILL from outside says nothing about a release, unless it comes too often.
fn blames_a_kill(action: &Action) -> bool {
    matches!(
        action,
        Action::Report(Report::RolloutFailed { failure, .. }) if matches!(
            failure.reason,
            FailureReason::ExitedBeforeReady { status: SIGKILL }
                | FailureReason::Crashed { status: SIGKILL }
        )
    )
}
