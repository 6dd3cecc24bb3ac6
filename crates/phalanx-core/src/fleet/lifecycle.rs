//! How workers pass from state to state: by what they do, and by what they fail to do in time.

use std::time::Duration;

use super::action::Action;
use super::failure::FailureReason;
use super::report::{Reason, Report};
use super::rollout::wanted_at;
use super::seat::{Past, Seat};
use super::verdict::{FIRST_ANSWER, Who, has_recycled};
use super::worker::{Cause, State, Worker};
use super::{Fleet, Phase};
use crate::dispatch::readiness::{Lack, ListenerName};
use crate::ids::{ExitStatus, WorkerId};

/// What `kill -9` and a system short of memory send, and no program to itself.
const SIGKILL: ExitStatus = ExitStatus::Signal(9);

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

    /// Whoever waits for the app has an answer in a moment. Then the processors are free for the workers that start later.
    pub(super) fn serves(&mut self, id: WorkerId) {
        let worker = self.roster.worker_mut(id);
        let is_booting = worker.is_some_and(|worker| worker.is_booting());
        let soon = self.out.after(FIRST_ANSWER);
        if let Some(boot) = self.boot.as_mut().filter(|_| is_booting) {
            boot.all_at = boot.all_at.min(soon);
        }
    }

    pub(super) fn ready(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        if !worker.is_booting() {
            return;
        }
        if worker.position.is_spare() {
            return self.spare_is_ready(id);
        }
        if worker.held && self.soaks(id) {
            self.soak(id);
        } else {
            self.admit(id);
        }
    }

    pub(super) fn lacks(&mut self, id: WorkerId, lack: Lack) {
        let worker = self.roster.worker_mut(id);
        if let Some(worker) = worker.filter(|worker| worker.is_booting()) {
            worker.lack = Some(lack);
        }
    }

    /// Whether a worker that serves is to wait for its connections: as long as another one of its
    /// position has them.
    fn soaks(&self, id: WorkerId) -> bool {
        let position = self.roster.worker(id).map(|worker| worker.position);
        let seat = position.and_then(|position| self.roster.seat(position));
        seat.is_some_and(Seat::has_ready)
    }

    fn soak(&mut self, id: WorkerId) {
        let until = self.out.after(self.config.soak);
        if let Some(worker) = self.roster.worker_mut(id) {
            worker.has_soaked = true;
            worker.enter(State::Soaking { until }, Reason::Soaks, &mut self.out);
        }
    }

    /// The worker is ready, and gets its connections if it does not have them yet.
    fn admit(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        if worker.held {
            self.out.push(Action::Admit { worker: id });
        }
        worker.enter(State::Ready, Reason::Serves, &mut self.out);
        let who = Who::from(&*worker);
        self.became_ready(who);
    }

    /// What that means to its position, to the boot and to the rollout.
    pub(super) fn became_ready(&mut self, who: Who) {
        if let Some(seat) = self.roster.seat_mut(who.position) {
            seat.past = Past::Served;
        }
        if self.boot.take().is_some() {
            self.out.report(Report::BootOver);
        }
        self.has_served |= who.generation == self.current;
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

    /// Those who soak at a position that has lost its other worker are needed now.
    pub(super) fn admit_needed(&mut self) {
        let needed: Vec<WorkerId> = self
            .roster
            .seats()
            .filter(|seat| !seat.has_ready())
            .flat_map(|seat| seat.workers.values())
            .filter(|worker| matches!(worker.state, State::Soaking { .. }))
            .map(|worker| worker.id)
            .collect();
        for id in needed {
            self.admit(id);
        }
    }

    pub(super) fn leaving(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        let ready_for = self.out.now().saturating_sub(worker.since);
        let who = Who::from(&*worker);
        let was_ready = worker.is_ready() || worker.is_spare();
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

    /// A worker that says that it needs more time gets it, whatever it is doing; it never gets less.
    pub(super) fn extends(&mut self, id: WorkerId, by: Duration) {
        let wanted = self.out.after(by);
        if let Some(worker) = self.roster.worker_mut(id) {
            worker.extend(wanted);
        }
    }

    pub(super) fn disconnected(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        let ready_for = self.out.now().saturating_sub(worker.since);
        let who = Who::from(&*worker);
        let at_least = self.out.after(self.config.kill_timeout);
        let (cause, reason, until) = match worker.state {
            State::Starting { .. } | State::Online { .. } | State::Soaking { .. } => {
                (Cause::LostWhileStarting, Reason::ChannelLost, at_least)
            }
            State::Spare | State::Ready => (Cause::LostWhileReady, Reason::ChannelLost, at_least),
            // It may have work that no connection is part of: that has the rest of the time to drain.
            State::Draining { cause, until } => (cause, Reason::Disconnected, at_least.max(until)),
            State::Departing { .. } | State::Stopping { .. } | State::Killed { .. } => return,
        };
        worker.enter(State::Departing { until, cause }, reason, &mut self.out);
        if cause == Cause::LostWhileReady {
            worker.served_for = ready_for;
            self.lost_ready(who, ready_for, false);
        }
    }

    pub(super) fn exited(&mut self, id: WorkerId, status: ExitStatus) {
        let Some(worker) = self.roster.remove(id) else {
            return;
        };
        let who = Who::from(&worker);
        self.left_hanging(&worker);
        match worker.state {
            State::Starting { .. } | State::Online { .. } | State::Soaking { .. } => {
                self.exited_before_ready(&worker, status);
            }
            State::Spare | State::Ready => {
                let ready_for = self.out.now().saturating_sub(worker.since);
                if has_recycled(status, ready_for) {
                    worker.report_gone(Reason::Exited { status }, &mut self.out);
                    self.lost_ready(who, ready_for, true);
                    return self.worker_gone();
                }
                worker.report_gone(Reason::Crashed { status }, &mut self.out);
                self.lost_ready(who, ready_for, false);
                self.crashed(who, FailureReason::Crashed { status }, status == SIGKILL);
            }
            State::Draining { cause, .. }
            | State::Departing { cause, .. }
            | State::Stopping { cause, .. }
            | State::Killed { cause, .. } => match cause {
                Cause::LostWhileStarting => self.exited_before_ready(&worker, status),
                Cause::LostWhileReady if has_recycled(status, worker.served_for) => {
                    worker.report_gone(Reason::Exited { status }, &mut self.out);
                    self.recycled(who);
                }
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
        let reason = if worker.has_soaked {
            FailureReason::EndedInSoak {
                status,
                soak: self.config.soak,
            }
        } else {
            FailureReason::ExitedBeforeReady { status }
        };
        let failure = reason.clone();
        worker.report_gone(Reason::FailedToStart { failure }, &mut self.out);
        self.start_failed(Who::from(worker), reason, status == SIGKILL);
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId, message: String) {
        let is_starting = match self.roster.worker(id).map(|worker| worker.state) {
            // Nobody whose program ran failed to be spawned.
            None
            | Some(State::Online { .. } | State::Soaking { .. } | State::Spare | State::Ready) => {
                return;
            }
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

    /// Whether a worker that lacks listeners is better than none. A release that replaces another is held to
    /// what that one held. But where a release served already, to start it over and over mends nothing.
    fn accepts_fewer(&self, who: Who) -> bool {
        match &self.change {
            Some(change) if change.to == who.generation && !change.is_rollback() => {
                change.limits.fewer_listeners
            }
            Some(_) | None => true,
        }
    }

    fn accept(&mut self, id: WorkerId, missing: Vec<ListenerName>) {
        self.out.push(Action::Accept { worker: id });
        self.out.report(Report::FewerListeners {
            worker: id,
            missing,
        });
        self.ready(id);
    }

    fn never_ready(&mut self, id: WorkerId, lack: Option<Lack>) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        let who = Who::from(&*worker);
        let (config, out) = (&self.config, &mut self.out);
        worker.stop(Cause::FailedStart, Reason::NotReadyInTime, config, out);
        let limit = self.config.ready_timeout;
        self.start_failed(who, FailureReason::NotReadyInTime { limit, lack }, false);
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
            State::Spare | State::Ready => {}
            State::Soaking { .. } => self.admit(id),
            State::Starting { .. } | State::Online { .. } => {
                let lack = worker.lack.take();
                if let Some(Lack::Listeners(missing) | Lack::Accepting(missing)) = &lack
                    && self.accepts_fewer(who)
                {
                    return self.accept(id, missing.clone());
                }
                self.never_ready(id, lack);
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
