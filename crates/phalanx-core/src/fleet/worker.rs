//! One worker: the state it is in, and the deadline of that state.
//!
//! Each state carries its data. A worker never goes back: not to ready once it drains, not to
//! draining once it is told to stop. What its passing means to its position is the business of
//! [`Fleet`](super::Fleet).

use std::time::Duration;

use super::action::Action;
use super::config::FleetConfig;
use super::outbox::Outbox;
use super::report::{Reason, Report, WorkerState};
use super::wear::Wear;
use crate::dispatch::readiness::Lack;
use crate::health::Health;
use crate::ids::{Generation, Position, WorkerId};

/// One live worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) position: Position,
    pub(super) generation: Generation,
    pub(super) spawned_at: Duration,
    pub(super) since: Duration,
    pub(super) state: State,
    /// Since when it is ready but no longer needed.
    pub(super) redundant_since: Option<Duration>,
    /// It was spawned to get no connections before it is told to be ready.
    pub(super) held: bool,
    /// It has begun to soak.
    pub(super) has_soaked: bool,
    /// How long it had been ready when it lost its channel.
    pub(super) served_for: Duration,
    /// What it is not ready for, as far as it is known.
    pub(super) lack: Option<Lack>,
    /// Why it is being replaced although it serves.
    pub(super) worn: Option<Wear>,
    /// Its figures since the watch began; none if it reports none.
    pub(super) health: Option<Health>,
}

/// Where a worker is in its life. `until` is when patience with that state ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its spawn was ordered.
    Starting { until: Duration },
    /// Its program runs; it must still be ready by `until`.
    Online { until: Duration },
    /// It serves, but is given no connections before `until`.
    Soaking { until: Duration },
    /// It could serve, and waits for a position that needs it.
    Spare,
    /// It serves.
    Ready,
    /// It finishes its work.
    Draining { until: Duration, cause: Cause },
    /// Its channel ended and its exit should follow by itself.
    Departing { until: Duration, cause: Cause },
    /// It was sent SIGTERM.
    Stopping { until: Duration, cause: Cause },
    /// It was sent SIGKILL.
    Killed { until: Duration, cause: Cause },
}

/// Why a worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The fleet asked it to go.
    Retired,
    /// It goes by its own wish, after having been ready.
    OwnWish,
    /// It lost its channel while ready. How it ended is known at its exit.
    LostWhileReady,
    /// It lost its channel before it was ready. How it ended is known at its exit.
    LostWhileStarting,
    /// It was ready, and has been judged as crashed.
    Crashed,
    /// It was never ready, and has been judged as failed.
    FailedStart,
}

impl Cause {
    /// The same, once it is known how the worker ended or will have to.
    pub(super) fn judged(self) -> Self {
        match self {
            Self::LostWhileReady => Self::Crashed,
            Self::LostWhileStarting => Self::FailedStart,
            Self::Retired | Self::OwnWish | Self::Crashed | Self::FailedStart => self,
        }
    }
}

impl Worker {
    /// A new worker, whose spawn has been ordered.
    pub(super) fn new(
        (id, position, generation): (WorkerId, Position, Generation),
        held: bool,
        reason: Reason,
        config: &FleetConfig,
        out: &mut Outbox,
    ) -> Self {
        let state = State::Starting {
            until: out.after(config.ready_timeout),
        };
        let worker = Self {
            id,
            position,
            generation,
            spawned_at: out.now(),
            since: out.now(),
            state,
            redundant_since: None,
            held,
            has_soaked: false,
            served_for: Duration::ZERO,
            lack: None,
            worn: None,
            health: None,
        };
        worker.report(None, WorkerState::Starting, reason, out);
        worker
    }

    /// Passes to `state` and tells it, unless people would not see a difference.
    pub(super) fn enter(&mut self, state: State, reason: Reason, out: &mut Outbox) {
        let from = self.state_name();
        self.state = state;
        self.redundant_since = None;
        self.since = out.now();
        self.report(Some(from), self.state_name(), reason, out);
    }

    /// Asks a worker to finish its work and go. One whose program does not run yet has none.
    pub(super) fn drain(&mut self, reason: Reason, config: &FleetConfig, out: &mut Outbox) {
        out.push(Action::Drain { worker: self.id });
        let limit = match self.state {
            State::Starting { .. } => config.kill_timeout,
            State::Online { .. }
            | State::Soaking { .. }
            | State::Spare
            | State::Ready
            | State::Draining { .. }
            | State::Departing { .. }
            | State::Stopping { .. }
            | State::Killed { .. } => config.drain_timeout,
        };
        let state = State::Draining {
            until: out.after(limit),
            cause: Cause::Retired,
        };
        self.enter(state, reason, out);
    }

    /// Tells it to end.
    pub(super) fn stop(
        &mut self,
        cause: Cause,
        reason: Reason,
        config: &FleetConfig,
        out: &mut Outbox,
    ) {
        out.push(Action::Stop { worker: self.id });
        let until = out.after(config.kill_timeout);
        self.enter(State::Stopping { until, cause }, reason, out);
    }

    /// Ends it by force.
    pub(super) fn kill(&mut self, cause: Cause, config: &FleetConfig, out: &mut Outbox) {
        out.push(Action::Kill { worker: self.id });
        let until = out.after(config.kill_timeout);
        self.enter(State::Killed { until, cause }, Reason::ExitTimedOut, out);
    }

    /// Tells that its process is gone.
    pub(super) fn report_gone(&self, reason: Reason, out: &mut Outbox) {
        self.report(Some(self.state_name()), WorkerState::Gone, reason, out);
    }

    fn report(&self, from: Option<WorkerState>, to: WorkerState, reason: Reason, out: &mut Outbox) {
        out.report(Report::Changed {
            worker: self.id,
            position: self.position,
            generation: self.generation,
            from,
            to,
            reason,
        });
    }

    pub(super) fn state_name(&self) -> WorkerState {
        match self.state {
            State::Starting { .. } => WorkerState::Starting,
            State::Online { .. } | State::Soaking { .. } => WorkerState::Online,
            State::Spare => WorkerState::Spare,
            State::Ready => WorkerState::Ready,
            State::Draining { .. } => WorkerState::Draining,
            State::Departing { .. } | State::Stopping { .. } | State::Killed { .. } => {
                WorkerState::Stopping
            }
        }
    }

    /// When patience with its state ends.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Spare | State::Ready => None,
            State::Starting { until }
            | State::Online { until }
            | State::Soaking { until }
            | State::Draining { until, .. }
            | State::Departing { until, .. }
            | State::Stopping { until, .. }
            | State::Killed { until, .. } => Some(until),
        }
    }

    /// Has patience with its state until then, if that is later. Not with one that is being killed.
    pub(super) fn extend(&mut self, wanted: Duration) {
        match &mut self.state {
            // A soak has its time.
            State::Soaking { .. } | State::Spare | State::Ready | State::Killed { .. } => {}
            State::Starting { until }
            | State::Online { until }
            | State::Draining { until, .. }
            | State::Departing { until, .. }
            | State::Stopping { until, .. } => *until = wanted.max(*until),
        }
    }

    /// Why it is on its way out; none if it is not.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self.state {
            State::Starting { .. }
            | State::Online { .. }
            | State::Soaking { .. }
            | State::Spare
            | State::Ready => None,
            State::Draining { cause, .. }
            | State::Departing { cause, .. }
            | State::Stopping { cause, .. }
            | State::Killed { cause, .. } => Some(cause),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// It waits for a position.
    pub(super) fn is_spare(&self) -> bool {
        self.state == State::Spare
    }

    /// It serves or may come to serve.
    pub(super) fn is_active(&self) -> bool {
        self.cause().is_none()
    }

    /// It may come to serve.
    pub(super) fn is_starting(&self) -> bool {
        self.is_active() && !self.is_ready()
    }

    /// It uses what a start uses: most of all the processors.
    pub(super) fn is_booting(&self) -> bool {
        match self.state {
            State::Starting { .. } | State::Online { .. } => true,
            State::Soaking { .. }
            | State::Spare
            | State::Ready
            | State::Draining { .. }
            | State::Departing { .. }
            | State::Stopping { .. }
            | State::Killed { .. } => false,
        }
    }

    /// It leaves as it should: its work is done, or it finishes it.
    pub(super) fn is_retiring(&self) -> bool {
        match self.cause() {
            Some(Cause::Retired | Cause::OwnWish) => true,
            Some(
                Cause::LostWhileReady
                | Cause::Crashed
                | Cause::LostWhileStarting
                | Cause::FailedStart,
            )
            | None => false,
        }
    }

    /// It takes part in the limit on extra processes. One that crashed but whose process lingers
    /// does not: its replacement must not wait for it.
    pub(super) fn is_counted(&self) -> bool {
        match self.cause() {
            Some(Cause::LostWhileReady | Cause::Crashed) => false,
            Some(
                Cause::Retired | Cause::OwnWish | Cause::LostWhileStarting | Cause::FailedStart,
            )
            | None => true,
        }
    }

    /// A failed try that is not over: the next one at its position must wait for its exit.
    pub(super) fn is_failed_try(&self) -> bool {
        match self.cause() {
            Some(Cause::LostWhileStarting | Cause::FailedStart) => true,
            Some(Cause::Retired | Cause::OwnWish | Cause::LostWhileReady | Cause::Crashed)
            | None => false,
        }
    }
}
