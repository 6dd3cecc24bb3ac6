//! Rolling restarts: how one begins, is superseded, fails, goes back and ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Fleet;
use super::action::{Action, Done, Refusal};
use super::canary::CanaryStage;
use super::change::{Asked, Change, Direction, Kind, QueuedReloads};
use super::config::FleetConfig;
use super::event::{CommandId, ReloadPlan};
use super::failure::{Failure, FailureReason};
use super::outbox::Outbox;
use super::report::{Reason, Report};
use super::worker::{Cause, Worker};
use crate::ids::{Generation, Position};

impl Fleet {
    /// The generation that a worker spawned at that position gets.
    pub(super) fn wanted_generation(&self, position: Position) -> Generation {
        wanted_at(position, self.change.as_ref(), self.current)
    }

    pub(super) fn has_switched(&self, position: Position) -> bool {
        self.change
            .as_ref()
            .is_some_and(|change| change.has_switched(position))
    }

    /// Whether a rollout goes forward, so that a reload supersedes it.
    fn rolls_forward(&self) -> bool {
        self.change
            .as_ref()
            .is_some_and(|change| !change.is_rollback())
    }

    /// A reload: begins a rollout, supersedes the one under way, or waits for the boot or a
    /// revert.
    pub(super) fn reload(&mut self, command: CommandId, plan: ReloadPlan) {
        let limits = plan.limits(&self.config);
        if let Err(error) = limits.check_ever(self.target) {
            let reason = error.to_string();
            return self.out.reply(command, Err(Refusal::Invalid { reason }));
        }
        if self.rolls_forward() {
            self.supersede(command, plan);
        } else if let Some(queued) = &mut self.queued_reloads {
            queued.commands.push(command);
            queued.plan = plan;
        } else {
            self.queued_reloads = Some(QueuedReloads {
                commands: vec![command],
                plan,
            });
        }
    }

    fn supersede(&mut self, command: CommandId, plan: ReloadPlan) {
        let to = self.next_generation();
        let Some(change) = &mut self.change else {
            return;
        };
        stop_starting(
            self.roster.workers_mut(),
            change.to,
            &Reason::Superseded,
            (&self.config, &mut self.out),
        );
        let unready: BTreeSet<Position> = self
            .roster
            .wanted(self.target)
            .filter(|seat| !seat.has_ready())
            .map(|seat| seat.position)
            .collect();
        let limits = plan.limits(&self.config);
        let canary = plan.canary.map(CanaryStage::from);
        change.supersede(
            to,
            (limits, canary),
            (&unready, self.target),
            self.out.now(),
        );
        // What a revert was to bring does not come.
        for asked in change.asked.extract_if(.., |asked| asked.wants_back) {
            self.out.reply(asked.command, Err(Refusal::Superseded));
        }
        change.asked.push(Asked {
            command,
            wants_back: false,
        });
        for position in &change.switched {
            if let Some(seat) = self.roster.seat_mut(*position) {
                seat.forget_failures();
            }
        }
        self.report_rollout();
    }

    fn begin_rollout(&mut self, queued: QueuedReloads) {
        let to = self.next_generation();
        let asked = queued.commands.into_iter().map(|command| Asked {
            command,
            wants_back: false,
        });
        self.change = Some(Change::forward(
            (to, Kind::Reload),
            asked.collect(),
            queued.plan.limits(&self.config),
            queued.plan.canary.map(CanaryStage::from),
            self.out.now(),
        ));
        self.report_rollout();
    }

    fn next_generation(&mut self) -> Generation {
        self.last_generation = Generation(self.last_generation.0.saturating_add(1));
        self.snapshots.insert(self.last_generation);
        self.out.push(Action::NewGeneration(self.last_generation));
        self.last_generation
    }

    pub(super) fn report_rollout(&mut self) {
        if let Some(change) = &self.change {
            self.out.report(Report::RolloutStarted {
                generation: change.to,
                base: self.current,
                workers: self.target,
                canaries: change.canary.map(|canary| canary.count(self.target)),
                max_surge: change.limits.extra,
                max_unavailable: change.limits.missing,
            });
        }
    }

    /// The rollout takes that position: its spawns are of the rollout's generation from now on.
    pub(super) fn switch(&mut self, position: Position) {
        if let Some(change) = &mut self.change {
            change.switch(position, self.out.now());
        }
        if let Some(seat) = self.roster.seat_mut(position) {
            seat.forget_failures();
        }
    }

    /// Ends a rollout or a revert that has reached its goal or its time limit, or begins one
    /// that was waiting. True if it did: the next may follow at once.
    pub(super) fn conclude_change(&mut self) -> bool {
        let Some(change) = &self.change else {
            let queued = self.queued_reloads.take_if(|_| self.boot.is_none());
            return queued.map(|queued| self.begin_rollout(queued)).is_some();
        };
        let to = change.to;
        if self.unfinished(change).is_none() {
            if change.is_confined() {
                // All are canaries: that they are watched is what the rollout waits for.
                return self.advance_canaries();
            }
            let is_over = self.roster.workers().all(|worker| worker.generation == to);
            if is_over {
                self.finish_change();
            }
            return is_over;
        }
        let is_stalled = self.stall_at().is_some_and(|at| self.out.is_due(at));
        if is_stalled {
            self.give_up_change();
        }
        is_stalled
    }

    fn finish_change(&mut self) {
        let Some(change) = self.change.take() else {
            return;
        };
        match &change.direction {
            Direction::Forward(kind) => {
                self.previous = match kind {
                    // Nobody wants to return to what never served.
                    Kind::Reload => self.has_served.then_some(self.current),
                    Kind::Rollback => None,
                };
                self.has_served = self.target > 0;
                self.current = change.to;
                self.out.report(Report::RolloutFinished {
                    generation: change.to,
                });
            }
            Direction::Back { failed, .. } => self.out.report(Report::RolledBack {
                generation: change.to,
                failed: *failed,
            }),
        }
        self.answer(&change, None);
    }

    fn give_up_change(&mut self) {
        let Some(change) = &self.change else {
            return;
        };
        let Some(position) = self.unfinished(change) else {
            return;
        };
        let seat = self.roster.seat(position);
        let failure = Failure {
            worker: seat.and_then(|seat| seat.workers.keys().next_back().copied()),
            position,
            reason: FailureReason::Stalled {
                waited: self.stall_limit(),
            },
        };
        if change.is_rollback() {
            self.abandon_rollback(&failure);
        } else {
            self.fail_rollout(failure);
        }
    }

    /// Answers all who waited. `abandoned` says why a revert ended early.
    pub(super) fn answer(&mut self, change: &Change, abandoned: Option<&Failure>) {
        let to = change.to;
        for asked in &change.asked {
            let failure = match &change.direction {
                Direction::Forward(_) => None,
                // What was to come was the earlier release, and it failed.
                Direction::Back { failed, failure } if !asked.wants_back || *failed < to => {
                    Some((*failed, failure.as_ref().or(abandoned)))
                }
                Direction::Back { .. } => abandoned.map(|failure| (to, Some(failure))),
            };
            let result = match failure {
                Some((generation, Some(failure))) => Err(Refusal::RolloutFailed {
                    generation,
                    failure: failure.clone(),
                    rolled_back: abandoned.is_none(),
                }),
                Some((_, None)) => Err(Refusal::Superseded),
                None if asked.wants_back => Ok(Done::RolledBack { generation: to }),
                None => Ok(Done::Reloaded { generation: to }),
            };
            self.out.reply(asked.command, result);
        }
    }

    /// A position that is not done yet, or that another generation still holds; none if all that is
    /// missing is the death of those on their way out.
    fn unfinished(&self, change: &Change) -> Option<Position> {
        self.roster
            .wanted(self.target)
            .find(|seat| !change.is_done(seat.position) || seat.holds_other_than(change.to))
            .map(|seat| seat.position)
    }

    /// When the rollout fails because nothing moved. One that only waits for deaths does not: those
    /// workers are killed in due time.
    pub(super) fn stall_at(&self) -> Option<Duration> {
        let change = self.change.as_ref()?;
        let watched_until = change.canary.and_then(|canary| canary.ends_at());
        let moved_at = watched_until.map_or(change.moved_at, |until| until.max(change.moved_at));
        let waits = self.unfinished(change).is_some() || change.is_confined();
        waits.then(|| moved_at.saturating_add(self.stall_limit()))
    }

    /// More than any sequence of time limits between two moves of a rollout: others become ready,
    /// the old worker drains, departs, is stopped and killed, and the new one starts.
    fn stall_limit(&self) -> Duration {
        let config = &self.config;
        config
            .ready_timeout
            .saturating_mul(2)
            .saturating_add(config.drain_timeout)
            .saturating_add(config.kill_timeout.saturating_mul(4))
            .saturating_add(config.soak)
    }
}

/// The generation that belongs at a position: that of a change which has taken it, else the base.
pub(super) fn wanted_at(
    position: Position,
    change: Option<&Change>,
    base: Generation,
) -> Generation {
    match change {
        Some(change) if position.is_spare() || change.has_switched(position) => change.to,
        Some(_) | None => base,
    }
}

/// Stops the workers of that generation that are not ready yet.
pub(super) fn stop_starting<'a>(
    workers: impl Iterator<Item = &'a mut Worker>,
    generation: Generation,
    reason: &Reason,
    (config, out): (&FleetConfig, &mut Outbox),
) {
    for worker in workers {
        if worker.is_starting() && worker.generation == generation {
            worker.stop(Cause::Retired, reason.clone(), config, out);
        }
    }
}
