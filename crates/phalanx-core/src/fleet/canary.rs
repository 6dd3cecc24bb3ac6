//! Canaries: the workers of a new generation that are watched before the others follow.
//!
//! The watch begins when all canaries are ready, and ends at its time if all of them are. A canary
//! that crashes or hangs fails the rollout at once, one that answers worse than the others as soon as
//! its figures say so ([`judge`]). One that was killed from outside, or left by its own wish, is
//! replaced, and the watch goes on.

use std::time::Duration;

use super::Fleet;
use super::action::Action;
use super::amount::Amount;
use super::event::Canary;
use super::failure::{Failure, FailureReason};
use super::report::Report;
use super::worker::Worker;
use crate::health::{Finding, Health, HealthSummary, judge};
use crate::ids::WorkerId;

/// How often the watch is told of: a twentieth of it, but no oftener than once a second.
const TOLD_TIMES: u32 = 20;
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// How far a rollout has come with its canaries.
#[derive(Clone, Copy, Debug)]
pub(super) struct CanaryStage {
    workers: Amount,
    watch: Duration,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// They are started.
    Placing,
    /// They are watched.
    Watching { since: Duration, told_at: Duration },
    /// They did well.
    Passed,
}

impl From<Canary> for CanaryStage {
    fn from(canary: Canary) -> Self {
        Self {
            workers: canary.workers,
            watch: canary.watch,
            stage: Stage::Placing,
        }
    }
}

impl CanaryStage {
    /// How many they are in a fleet of so many.
    pub(super) fn count(&self, target: u32) -> u32 {
        self.workers.rounded_up(target).max(1).min(target)
    }

    pub(super) fn has_passed(&self) -> bool {
        self.stage == Stage::Passed
    }

    pub(super) fn is_watching(&self) -> bool {
        match self.stage {
            Stage::Watching { .. } => true,
            Stage::Placing | Stage::Passed => false,
        }
    }

    /// Whether one more position may be taken when so many are.
    pub(super) fn has_room(&self, taken: u32, target: u32) -> bool {
        match self.stage {
            Stage::Placing => taken < self.count(target),
            Stage::Watching { .. } => false,
            Stage::Passed => true,
        }
    }

    /// When the watch is over.
    pub(super) fn ends_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::Watching { since, .. } => Some(since.saturating_add(self.watch)),
            Stage::Placing | Stage::Passed => None,
        }
    }

    fn tells_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::Watching { told_at, .. } => {
                Some(told_at.saturating_add((self.watch / TOLD_TIMES).max(LEAST_PAUSE)))
            }
            Stage::Placing | Stage::Passed => None,
        }
    }
}

/// What the canaries and the others answered.
struct Figures {
    canary: Health,
    others: Health,
    of_canary: HealthSummary,
    of_others: HealthSummary,
    /// The canary with the most errors, or the first.
    worst: Option<WorkerId>,
}

impl Fleet {
    /// Takes in a worker's figures.
    pub(super) fn take_health(&mut self, id: WorkerId, health: Health) {
        if !self.is_watching() {
            return;
        }
        if let Some(worker) = self
            .roster
            .worker_mut(id)
            .filter(|worker| worker.is_ready())
        {
            worker.health = Some(health);
            self.judge_canaries(false);
        }
    }

    /// A worker does not answer. That is the end of a rollout only if it is one of the canaries.
    pub(super) fn hung(&mut self, id: WorkerId) {
        let canary = self
            .change
            .as_ref()
            .filter(|change| change.is_confined())
            .map(|change| change.to);
        let Some(worker) = self.roster.worker(id).filter(|worker| worker.is_ready()) else {
            return;
        };
        if Some(worker.generation) == canary {
            let failure = Failure {
                worker: Some(id),
                position: worker.position,
                reason: FailureReason::Hung,
            };
            self.fail_rollout(failure);
        }
    }

    pub(super) fn is_watching(&self) -> bool {
        let canary = self.change.as_ref().and_then(|change| change.canary);
        canary.is_some_and(|canary| canary.is_watching())
    }

    /// Begins the watch when all canaries are ready, tells of it, and ends it in its time. True if
    /// they have passed: the others follow at once.
    pub(super) fn advance_canaries(&mut self) -> bool {
        let Some(mut stage) = self.change.as_ref().and_then(|change| change.canary) else {
            return false;
        };
        match stage.stage {
            Stage::Placing => {
                if !self.has_placed(&stage) {
                    return false;
                }
                self.begin_watch(&mut stage);
                self.go_on_watching(stage)
            }
            Stage::Watching { .. } => self.go_on_watching(stage),
            Stage::Passed => false,
        }
    }

    fn has_placed(&self, stage: &CanaryStage) -> bool {
        let count = stage.count(self.target);
        self.change.as_ref().is_some_and(|change| {
            let taken = u32::try_from(change.switched.len()).unwrap_or(u32::MAX);
            taken >= count && change.has_done_all()
        })
    }

    fn begin_watch(&mut self, stage: &mut CanaryStage) {
        let now = self.out.now();
        stage.stage = Stage::Watching {
            since: now,
            told_at: now,
        };
        for worker in self.roster.workers_mut() {
            worker.health = None;
        }
        if let Some(change) = &mut self.change {
            change.canary = Some(*stage);
            change.moved_at = now;
            let canaries = stage.count(self.target);
            self.out.report(Report::CanaryStarted {
                generation: change.to,
                canaries,
                watch: stage.watch,
            });
        }
    }

    fn go_on_watching(&mut self, mut stage: CanaryStage) -> bool {
        let is_over = stage.ends_at().is_some_and(|at| self.out.is_due(at));
        let are_ready = matches!(&self.change, Some(change) if change.has_done_all());
        if is_over && are_ready {
            if self.judge_canaries(true) {
                return false;
            }
            stage.stage = Stage::Passed;
        } else if !is_over && stage.tells_at().is_some_and(|at| self.out.is_due(at)) {
            let now = self.out.now();
            if let Stage::Watching { told_at, .. } = &mut stage.stage {
                *told_at = now;
            }
        } else {
            return false;
        }
        self.tell_canaries(stage);
        stage.has_passed()
    }

    fn tell_canaries(&mut self, stage: CanaryStage) {
        let figures = self.figures();
        let now = self.out.now();
        let Some(change) = &mut self.change else {
            return;
        };
        let generation = change.to;
        let (canary, others) = (figures.of_canary, figures.of_others);
        self.out.report(match stage.stage {
            Stage::Watching { since, .. } => Report::CanaryProgress {
                generation,
                elapsed: now.saturating_sub(since),
                watch: stage.watch,
                canary,
                others,
            },
            Stage::Placing | Stage::Passed => {
                change.moved_at = now;
                Report::CanaryPassed {
                    generation,
                    canary,
                    others,
                }
            }
        });
        change.canary = Some(stage);
    }

    /// True if they have failed.
    fn judge_canaries(&mut self, at_the_end: bool) -> bool {
        let figures = self.figures();
        let finding = judge(&figures.canary, &figures.others, at_the_end);
        let Some((finding, worker)) = finding.zip(figures.worst) else {
            return false;
        };
        self.fail_canaries(finding, worker);
        true
    }

    fn fail_canaries(&mut self, finding: Finding, worker: WorkerId) {
        let Some(position) = self.roster.worker(worker).map(|worker| worker.position) else {
            return;
        };
        self.fail_rollout(Failure {
            worker: Some(worker),
            position,
            reason: FailureReason::Unhealthy { finding },
        });
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures {
            canary: Health::default(),
            others: Health::default(),
            of_canary: HealthSummary::default(),
            of_others: HealthSummary::default(),
            worst: None,
        };
        let to = self.change.as_ref().map(|change| change.to);
        let errors = |worker: &Worker| worker.health.as_ref().map_or(0, |it| it.server_errors);
        let mut most = None;
        for worker in self.roster.workers().filter(|worker| worker.is_ready()) {
            let is_canary = Some(worker.generation) == to;
            let (sum, of) = if is_canary {
                (&mut figures.canary, &mut figures.of_canary)
            } else {
                (&mut figures.others, &mut figures.of_others)
            };
            of.workers += 1;
            if let Some(health) = &worker.health {
                of.reporting += 1;
                sum.merge(health);
            }
            if is_canary && most.is_none_or(|most| errors(worker) > most) {
                most = Some(errors(worker));
                figures.worst = Some(worker.id);
            }
        }
        for (sum, of) in [
            (&figures.canary, &mut figures.of_canary),
            (&figures.others, &mut figures.of_others),
        ] {
            of.requests = sum.requests;
            of.server_errors = sum.server_errors;
            of.p99_us = sum.p99_us();
        }
        figures
    }

    /// Has the runtime begin to watch, or leave it off.
    pub(super) fn tell_watch(&mut self) {
        let is_watching = self.is_watching();
        if self.watches != is_watching {
            self.watches = is_watching;
            self.out.push(if is_watching {
                Action::BeginWatch
            } else {
                Action::EndWatch
            });
        }
    }

    /// What the watch waits for.
    pub(super) fn watch_deadline(&self) -> Option<Duration> {
        let canary = self.change.as_ref().and_then(|change| change.canary)?;
        // Once its time is over it waits for a canary to be ready again, not for the clock.
        let ends_at = canary.ends_at().filter(|at| !self.out.is_due(*at))?;
        canary.tells_at().map(|at| at.min(ends_at))
    }
}
