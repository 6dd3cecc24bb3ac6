//! What the life and death of a worker mean to its position, to the rollout and to the boot.

use std::collections::BTreeSet;
use std::time::Duration;

use super::change::{Change, TOLERATED_KILLS};
use super::config::BootPolicy;
use super::failure::{Failure, FailureReason};
use super::seat::Seat;
use super::worker::Worker;
use super::{Fleet, Phase};
use crate::ids::{ExitStatus, Generation, Position, WorkerId};

/// Kills from outside (kill -9, the OOM killer) say nothing about the program, so waiting does not
/// help: a worker that served is replaced within 100 ms however often that happens, and one that
/// was still starting within 800 ms. So many failures stand for these delays.
const EXCUSED_READY: u32 = 2;
const EXCUSED_STARTING: u32 = 5;

/// How long the workers that start first are alone, if none of them serves or fails before. A program that
/// waits for a database leaves the processors idle.
pub(super) const HEAD_START: Duration = Duration::from_millis(500);

/// How long the first answer may take after a worker has begun to serve: some milliseconds, in which its program is compiled.
pub(super) const FIRST_ANSWER: Duration = Duration::from_millis(20);

/// One that has served for so long and then exits with code 0 recycles itself, as after so many requests. It is no
/// crash, and its successor need not wait: even if all do it again and again there is one start a second.
const RECYCLED_AFTER: Duration = Duration::from_secs(1);

/// Whether a worker has recycled itself.
pub(super) fn has_recycled(status: ExitStatus, ready_for: Duration) -> bool {
    status == ExitStatus::Code(0) && ready_for >= RECYCLED_AFTER
}

/// The time until the first worker is ready.
#[derive(Clone, Debug, Default)]
pub(super) struct Boot {
    /// When all may start, though none serves.
    pub(super) all_at: Duration,
    /// Positions whose first attempt failed.
    pub(super) failed: BTreeSet<Position>,
    /// The first of the failures.
    pub(super) failure: Option<Failure>,
}

/// A worker, alive or just gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) worker: WorkerId,
    pub(super) position: Position,
    pub(super) generation: Generation,
}

impl From<&Worker> for Who {
    fn from(worker: &Worker) -> Self {
        Self {
            worker: worker.id,
            position: worker.position,
            generation: worker.generation,
        }
    }
}

impl Who {
    fn failure(self, reason: FailureReason) -> Failure {
        Failure {
            worker: Some(self.worker),
            position: self.position,
            reason,
        }
    }
}

impl Fleet {
    /// A worker that was ready left unasked: by its own wish, or it crashed. Its position needs
    /// another.
    pub(super) fn lost_ready(&mut self, who: Who, ready_for: Duration, voluntary: bool) {
        if !self.keeps(who.position) {
            return;
        }
        let wanted = self.wanted_generation(who.position);
        let has_switched = self.has_switched(who.position);
        let Some(seat) = self.roster.seat_mut(who.position) else {
            return;
        };
        seat.restarts += u32::from(!voluntary);
        if who.generation == wanted {
            let was_stable = seat.record_run(ready_for, &self.config, &mut self.out);
            let has_served = was_stable || ready_for >= RECYCLED_AFTER;
            if !(voluntary && has_served && self.config.respawn) {
                seat.record_failure(&self.config, &mut self.rng, &mut self.out);
                seat.report_retry(&mut self.out);
            }
        } else if seat.is_vacant() && !has_switched {
            // A revert fills what its rollout had replaced.
            let rolls_back = self.change.as_ref().is_some_and(Change::is_rollback);
            seat.abandoned = !self.config.respawn && !rolls_back;
        }
        let others_serve = seat.has_ready();
        if let Some(change) = &mut self.change
            && change.to == who.generation
        {
            let is_crash = !change.is_rollback() && !voluntary && self.config.respawn;
            if is_crash || others_serve {
                change.undo(who.position);
            }
        }
    }

    /// A worker of which it seemed that it had crashed has recycled itself.
    pub(super) fn recycled(&mut self, who: Who) {
        if !self.keeps(who.position) {
            return;
        }
        let is_wanted = who.generation == self.wanted_generation(who.position);
        if let Some(seat) = self.roster.seat_mut(who.position) {
            seat.restarts = seat.restarts.saturating_sub(1);
            if is_wanted {
                seat.excuse(0, &self.config, &self.out);
            }
        }
    }

    /// It is known how a worker ended that crashed after having been ready.
    pub(super) fn crashed(&mut self, who: Who, reason: FailureReason, from_outside: bool) {
        let is_kept = self.keeps(who.position);
        if from_outside
            && is_kept
            && who.generation == self.wanted_generation(who.position)
            && let Some(seat) = self.roster.seat_mut(who.position)
            && seat.excuse(EXCUSED_READY, &self.config, &self.out)
        {
            seat.report_retry(&mut self.out);
        }
        let Some(change) = &mut self.change else {
            return;
        };
        if !is_kept || change.is_rollback() || change.to != who.generation {
            return;
        }
        if from_outside {
            let times = change.record_kill(who.position, self.out.now());
            if times > TOLERATED_KILLS {
                self.fail_rollout(who.failure(FailureReason::KilledTooOften { times }));
            }
        } else {
            let crashes = change.record_crash(who.position, self.out.now());
            if crashes > change.tolerated_crashes() || !self.config.respawn {
                self.fail_rollout(who.failure(reason));
            }
        }
    }

    /// A worker ended, or will have to, before it was ready.
    pub(super) fn start_failed(&mut self, who: Who, reason: FailureReason, from_outside: bool) {
        if !self.keeps(who.position) {
            return;
        }
        let failure = who.failure(reason);
        if let Some(boot) = &mut self.boot {
            boot.failed.insert(who.position);
            boot.failure.get_or_insert_with(|| failure.clone());
        }
        // The failure of a release that the position no longer wants says nothing about the one it
        // wants.
        if who.generation != self.wanted_generation(who.position) {
            return;
        }
        let is_held_back = self.is_held_back(who.position);
        if let Some(seat) = self.roster.seat_mut(who.position) {
            seat.restarts += 1;
            seat.record_failure(&self.config, &mut self.rng, &mut self.out);
            if from_outside {
                seat.excuse(EXCUSED_STARTING, &self.config, &self.out);
            }
            if !is_held_back {
                seat.report_retry(&mut self.out);
            }
        }
        if who.position.is_spare() {
            return self.start_of_spare_failed(failure, from_outside);
        }
        self.start_of_scaling_failed(&failure);
        self.successor_failed(&failure);
        self.start_of_change_failed(failure, from_outside);
    }

    fn start_of_change_failed(&mut self, mut failure: Failure, from_outside: bool) {
        let position = failure.position;
        let Some(change) = &mut self.change else {
            return;
        };
        let has_switched = change.has_switched(position);
        if !has_switched && !change.is_rollback() {
            return;
        }
        if from_outside {
            let times = change.record_kill(position, self.out.now());
            if times <= TOLERATED_KILLS {
                // The try is the change's own, so it is repeated even if respawning is off.
                if let Some(seat) = self.roster.seat_mut(position) {
                    seat.abandoned = false;
                }
                return;
            }
            failure.reason = FailureReason::KilledTooOften { times };
        }
        if !change.is_rollback() {
            self.fail_rollout(failure);
        } else if has_switched && !change.is_done(position) {
            self.abandon_rollback(&failure);
        } else if self.roster.seat(position).is_some_and(Seat::is_vacant) {
            // It was vacant before the revert came to it: its tries go on, but nobody waits for
            // them.
            change.give_up(position, self.out.now());
        }
    }

    /// While others still boot, a position whose first attempt failed waits for them, unless told
    /// to retry.
    pub(super) fn is_held_back(&self, position: Position) -> bool {
        let failed_at_boot = |boot: &Boot| boot.failed.contains(&position);
        self.config.boot == BootPolicy::Exit && self.boot.as_ref().is_some_and(failed_at_boot)
    }

    /// Whether the fleet still cares for that position.
    fn keeps(&self, position: Position) -> bool {
        match self.phase {
            Phase::Running => self.is_wanted(position) || self.is_wanted_spare(position),
            Phase::New | Phase::Ending { .. } | Phase::Finished => false,
        }
    }
}
