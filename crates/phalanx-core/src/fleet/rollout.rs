//! Rolling restarts: how one begins, is superseded, fails, goes back and ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Fleet;
use super::action::{Action, Done, Failure, FailureReason, Refusal};
use super::change::{Change, Direction};
use super::config::FleetConfig;
use super::event::CommandId;
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
    /// roll-back.
    pub(super) fn reload(&mut self, command: CommandId) {
        if self.rolls_forward() {
            self.supersede(command);
        } else {
            self.queued_reloads.push(command);
        }
    }

    fn supersede(&mut self, command: CommandId) {
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
        change.supersede(to, command, &unready, self.out.now());
        for position in &change.switched {
            if let Some(seat) = self.roster.seat_mut(*position) {
                seat.forget_failures();
            }
        }
        self.report_rollout(to);
    }

    fn begin_rollout(&mut self) {
        let to = self.next_generation();
        let commands = std::mem::take(&mut self.queued_reloads);
        self.change = Some(Change::forward(to, commands, self.out.now()));
        self.report_rollout(to);
    }

    fn next_generation(&mut self) -> Generation {
        self.last_generation = Generation(self.last_generation.0.saturating_add(1));
        self.snapshots.insert(self.last_generation);
        self.out.push(Action::NewGeneration(self.last_generation));
        self.last_generation
    }

    fn report_rollout(&mut self, generation: Generation) {
        self.out.report(Report::RolloutStarted {
            generation,
            base: self.current,
            workers: self.target,
        });
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

    /// The new generation failed: what starts of it is stopped, and what was replaced goes back.
    pub(super) fn fail_rollout(&mut self, failure: Failure) {
        let Some(change) = self.change.take() else {
            return;
        };
        self.out.report(Report::RolloutFailed {
            generation: change.to,
            base: self.current,
            failure: failure.clone(),
        });
        stop_starting(
            self.roster.workers_mut(),
            change.to,
            &Reason::RolloutFailed,
            (&self.config, &mut self.out),
        );
        for position in &change.switched {
            if let Some(seat) = self.roster.seat_mut(*position) {
                seat.forget_failures();
            }
        }
        // A position that neither rollout nor other generation has touched is as it was.
        let on_base: BTreeSet<Position> = self
            .roster
            .wanted(self.target)
            .filter(|seat| {
                let is_untouched = !change.has_switched(seat.position);
                seat.has_ready_of(self.current)
                    || (is_untouched && !seat.holds_other_than(self.current))
            })
            .map(|seat| seat.position)
            .collect();
        self.change = Some(change.back(self.current, failure, on_base, self.out.now()));
    }

    /// The base failed too: what is ready of the failed generation stays, and the roll-back ends.
    pub(super) fn abandon_rollback(&mut self, failure: Failure) {
        let Some(change) = self.change.take() else {
            return;
        };
        let mut kept = Vec::new();
        for seat in self.roster.seats_mut() {
            let position = seat.position;
            if position.0 >= self.target || !seat.has_ready() || seat.has_ready_of(self.current) {
                continue;
            }
            kept.push(position);
            stop_starting(
                seat.workers.values_mut(),
                self.current,
                &Reason::RollbackAbandoned,
                (&self.config, &mut self.out),
            );
        }
        self.out.report(Report::RollbackAbandoned {
            generation: self.current,
            kept,
            failure,
        });
        self.answer(change, false);
    }

    /// Ends a rollout or a roll-back that has reached its goal or its time limit, or begins one
    /// that was waiting. True if it did: the next may follow at once.
    pub(super) fn conclude_change(&mut self) -> bool {
        let Some(change) = &self.change else {
            let may_begin = self.boot.is_none() && !self.queued_reloads.is_empty();
            if may_begin {
                self.begin_rollout();
            }
            return may_begin;
        };
        let to = change.to;
        if self.unfinished(change).is_none() {
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
            Direction::Forward => {
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
        self.answer(change, true);
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
            self.abandon_rollback(failure);
        } else {
            self.fail_rollout(failure);
        }
    }

    fn answer(&mut self, change: Change, went_well: bool) {
        let result = match change.direction {
            Direction::Forward => Ok(Done::Reloaded {
                generation: change.to,
            }),
            Direction::Back { failed, failure } => Err(Refusal::RolloutFailed {
                generation: failed,
                failure,
                rolled_back: went_well,
            }),
        };
        for command in change.commands {
            self.out.reply(command, result.clone());
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
        self.unfinished(change)
            .map(|_| change.moved_at.saturating_add(self.stall_limit()))
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
    }
}

/// The generation that belongs at a position: that of a change which has taken it, else the base.
pub(super) fn wanted_at(
    position: Position,
    change: Option<&Change>,
    base: Generation,
) -> Generation {
    match change {
        Some(change) if change.has_switched(position) => change.to,
        Some(_) | None => base,
    }
}

/// Stops the workers of that generation that are not ready yet.
fn stop_starting<'a>(
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
