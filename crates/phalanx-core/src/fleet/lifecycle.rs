//! What the passing of a worker from state to state means to its position and to the fleet.

use std::collections::BTreeSet;
use std::time::Duration;

use super::action::{Failure, FailureReason};
use super::change::{TOLERATED_CRASHES, TOLERATED_KILLS};
use super::config::BootPolicy;
use super::report::{Reason, Report};
use super::rollout::wanted_at;
use super::seat::Past;
use super::worker::{Cause, State, Worker};
use super::{Fleet, Phase};
use crate::ids::{ExitStatus, Generation, Position, WorkerId};

/// What `kill -9` and the system short of memory send, and no program to itself.
const SIGKILL: ExitStatus = ExitStatus::Signal(9);

/// The time until the first worker is ready.
#[derive(Clone, Debug, Default)]
pub(super) struct Boot {
    /// Positions whose first attempt failed.
    pub(super) failed: BTreeSet<Position>,
    /// The first of the failures.
    pub(super) failure: Option<Failure>,
}

/// A worker, alive or just gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    worker: WorkerId,
    position: Position,
    generation: Generation,
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

/// The events of one worker.
impl Fleet {
    pub(super) fn online(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        if let State::Starting { until } = worker.state {
            worker.enter(State::Online { until }, Reason::Runs, &mut self.out);
        }
    }

    pub(super) fn ready(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        if worker.is_starting() {
            worker.enter(State::Ready, Reason::Serves, &mut self.out);
            let who = Who::from(&*worker);
            self.became_ready(who);
        }
    }

    pub(super) fn leaving(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        let ready_for = self.out.now().saturating_sub(worker.since);
        let who = Who::from(&*worker);
        let was_ready = worker.is_ready();
        if !worker.is_active() {
            return;
        }
        let cause = if was_ready {
            Cause::OwnWish
        } else {
            Cause::FailedStart
        };
        let until = self.out.after(self.config.drain_timeout);
        worker.enter(
            State::Draining { until, cause },
            Reason::OwnWish,
            &mut self.out,
        );
        if was_ready {
            self.lost_ready(who, ready_for, true);
        } else {
            self.start_failed(who, FailureReason::LeftBeforeReady, false);
        }
    }

    pub(super) fn disconnected(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        let ready_for = self.out.now().saturating_sub(worker.since);
        let who = Who::from(&*worker);
        let (cause, reason) = match worker.state {
            State::Starting { .. } | State::Online { .. } => {
                (Cause::LostWhileStarting, Reason::ChannelLost)
            }
            State::Ready => (Cause::LostWhileReady, Reason::ChannelLost),
            State::Draining { cause, .. } => (cause, Reason::Disconnected),
            State::Departing { .. } | State::Stopping { .. } | State::Killed { .. } => return,
        };
        let until = self.out.after(self.config.kill_timeout);
        worker.enter(State::Departing { until, cause }, reason, &mut self.out);
        if cause == Cause::LostWhileReady {
            self.lost_ready(who, ready_for, false);
        }
    }

    pub(super) fn exited(&mut self, id: WorkerId, status: ExitStatus) {
        let Some(worker) = self.roster.remove(id) else {
            return;
        };
        let who = Who::from(&worker);
        match worker.state {
            State::Starting { .. } | State::Online { .. } => {
                self.exited_before_ready(&worker, status);
            }
            State::Ready => {
                worker.report_gone(Reason::Crashed { status }, &mut self.out);
                let ready_for = self.out.now().saturating_sub(worker.since);
                self.lost_ready(who, ready_for, false);
                self.crashed(who, FailureReason::Crashed { status }, status == SIGKILL);
            }
            State::Draining { cause, .. }
            | State::Departing { cause, .. }
            | State::Stopping { cause, .. }
            | State::Killed { cause, .. } => match cause {
                Cause::LostWhileStarting => self.exited_before_ready(&worker, status),
                Cause::LostWhileReady => {
                    worker.report_gone(Reason::Crashed { status }, &mut self.out);
                    self.crashed(who, FailureReason::Crashed { status }, status == SIGKILL);
                }
                Cause::Retired | Cause::OwnWish | Cause::Crashed | Cause::FailedStart => {
                    worker.report_gone(Reason::Exited { status }, &mut self.out);
                }
            },
        }
        self.worker_gone();
    }

    fn exited_before_ready(&mut self, worker: &Worker, status: ExitStatus) {
        let reason = FailureReason::ExitedBeforeReady { status };
        let failure = reason.clone();
        worker.report_gone(Reason::FailedToStart { failure }, &mut self.out);
        self.start_failed(Who::from(worker), reason, status == SIGKILL);
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId, message: String) {
        let is_starting = match self.roster.worker(id).map(|worker| worker.state) {
            // Nobody whose program ran failed to be spawned.
            None | Some(State::Online { .. } | State::Ready) => return,
            Some(State::Starting { .. }) => true,
            // It was told to end before its spawn had failed.
            Some(
                State::Draining { .. }
                | State::Departing { .. }
                | State::Stopping { .. }
                | State::Killed { .. },
            ) => false,
        };
        let Some(worker) = self.roster.remove(id) else {
            return;
        };
        let reason = FailureReason::SpawnFailed { message };
        let failure = reason.clone();
        worker.report_gone(Reason::FailedToStart { failure }, &mut self.out);
        if is_starting {
            self.start_failed(Who::from(&worker), reason, false);
        }
        self.worker_gone();
    }

    fn worker_gone(&mut self) {
        match self.phase {
            Phase::Ending { .. } => self.out.report(Report::StopProgress {
                remaining: self.roster.len(),
            }),
            Phase::New | Phase::Running | Phase::Finished => {}
        }
    }
}

/// The passing of time.
impl Fleet {
    /// Acts on every deadline that has come.
    pub(super) fn expire(&mut self) {
        let out = &self.out;
        let due = |worker: &Worker| worker.deadline().is_some_and(|until| out.is_due(until));
        let late: Vec<WorkerId> = self
            .roster
            .workers()
            .filter(|worker| due(worker))
            .map(|worker| worker.id)
            .collect();
        for id in late {
            self.lose_patience(id);
        }
        for seat in self.roster.seats_mut() {
            let wanted = wanted_at(seat.position, self.change.as_ref(), self.current);
            seat.pass_time(wanted, &self.config, &mut self.out);
        }
    }

    fn lose_patience(&mut self, id: WorkerId) {
        let (config, out) = (&self.config, &mut self.out);
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        // What happened to one late worker may have moved another.
        if !worker.deadline().is_some_and(|until| out.is_due(until)) {
            return;
        }
        let who = Who::from(&*worker);
        match worker.state {
            State::Ready => {}
            State::Starting { .. } | State::Online { .. } => {
                worker.stop(Cause::FailedStart, Reason::NotReadyInTime, config, out);
                let limit = self.config.ready_timeout;
                self.start_failed(who, FailureReason::NotReadyInTime { limit }, false);
            }
            State::Draining { cause, .. } => {
                worker.stop(cause, Reason::DrainTimedOut, config, out);
            }
            State::Departing { cause, .. } => {
                worker.stop(cause.judged(), Reason::ExitTimedOut, config, out);
                match cause {
                    Cause::LostWhileStarting => {
                        self.start_failed(who, FailureReason::ChannelLost, false);
                    }
                    Cause::LostWhileReady => self.crashed(who, FailureReason::ChannelLost, false),
                    Cause::Retired | Cause::OwnWish | Cause::Crashed | Cause::FailedStart => {}
                }
            }
            State::Stopping { cause, .. } | State::Killed { cause, .. } => {
                worker.kill(cause, config, out);
            }
        }
    }
}

/// What it means.
impl Fleet {
    fn became_ready(&mut self, who: Who) {
        if let Some(seat) = self.roster.seat_mut(who.position) {
            seat.past = Past::Served;
        }
        if self.boot.take().is_some() {
            self.out.report(Report::BootOver);
        }
        let is_wanted = self.is_wanted(who.position);
        let now = self.out.now();
        if let Some(change) = &mut self.change
            && is_wanted
            && change.to == who.generation
            && change.record_ready(who.position, now)
        {
            self.out.report(Report::RolloutProgress {
                generation: change.to,
                done: change.done_count(),
                workers: self.target,
            });
        }
    }

    /// A worker that was ready left unasked: by its own wish, or it crashed. Its position needs another.
    fn lost_ready(&mut self, who: Who, ready_for: Duration, voluntary: bool) {
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
            if !(voluntary && was_stable && self.config.respawn) {
                seat.record_failure(&self.config, &mut self.rng, &mut self.out);
                seat.report_retry(&mut self.out);
            }
        } else if seat.is_vacant() && !has_switched {
            seat.abandoned = !self.config.respawn;
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

    /// It is known how a worker ended that crashed after having been ready.
    fn crashed(&mut self, who: Who, reason: FailureReason, from_outside: bool) {
        let is_kept = self.keeps(who.position);
        let Some(change) = &mut self.change else {
            return;
        };
        if !is_kept || change.is_rollback() || change.to != who.generation {
            return;
        }
        if from_outside {
            let times = change.record_kill(who.position);
            if times > TOLERATED_KILLS {
                self.fail_rollout(who.failure(FailureReason::KilledTooOften { times }));
            }
        } else {
            let crashes = change.record_crash(who.position);
            if crashes > TOLERATED_CRASHES || !self.config.respawn {
                self.fail_rollout(who.failure(reason));
            }
        }
    }

    /// A worker ended, or will have to, before it was ready.
    fn start_failed(&mut self, who: Who, reason: FailureReason, from_outside: bool) {
        if !self.keeps(who.position) {
            return;
        }
        let failure = who.failure(reason);
        if let Some(boot) = &mut self.boot {
            boot.failed.insert(who.position);
            boot.failure.get_or_insert_with(|| failure.clone());
        }
        // The failure of a release that the position no longer wants says nothing about the one it wants.
        if who.generation != self.wanted_generation(who.position) {
            return;
        }
        let is_held_back = self.is_held_back(who.position);
        if let Some(seat) = self.roster.seat_mut(who.position) {
            seat.restarts += 1;
            seat.record_failure(&self.config, &mut self.rng, &mut self.out);
            if !is_held_back {
                seat.report_retry(&mut self.out);
            }
        }
        self.start_of_scaling_failed(&failure);
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
            let times = change.record_kill(position);
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
            self.abandon_rollback(failure);
        } else {
            let now = self.out.now();
            change.give_up(position, now);
        }
    }

    /// While others still boot, a position whose first attempt failed waits for them, unless told to retry.
    pub(super) fn is_held_back(&self, position: Position) -> bool {
        let failed_at_boot = |boot: &Boot| boot.failed.contains(&position);
        self.config.boot == BootPolicy::Exit && self.boot.as_ref().is_some_and(failed_at_boot)
    }

    /// Whether the fleet still cares for that position.
    fn keeps(&self, position: Position) -> bool {
        match self.phase {
            Phase::Running => self.is_wanted(position),
            Phase::New | Phase::Ending { .. } | Phase::Finished => false,
        }
    }
}
