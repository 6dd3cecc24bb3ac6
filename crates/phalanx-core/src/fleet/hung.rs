//! Workers that hang: they give way as worn ones do, but before these, and they are killed when their successor is ready; to ask them
//! to finish their work would be in vain.
//!
//! A hung worker keeps what it has until its successor serves. It does not count for the limit on missing workers: it is missing
//! already. In a reload it waits for its position's turn, and is killed then, too.
//!
//! While no worker answers at all ([`Wear::Outage`]), one gives way before its time: its successor serves, and it is asked to finish
//! its work, for which it has the time of any drain. So does one that a signal has stopped ([`Wear::Stopped`]).

use super::Fleet;
use super::action::Action;
use super::config::FleetConfig;
use super::outbox::Outbox;
use super::report::Reason;
use super::wear::{Recycled, Wear};
use super::worker::{Cause, State, Worker};
use crate::ids::WorkerId;

impl Fleet {
    /// A worker hangs. Only one that serves can.
    pub(super) fn hangs(&mut self, id: WorkerId, wear: Wear) {
        let worker = self.roster.worker_mut(id);
        let Some(worker) = worker.filter(|worker| worker.is_ready() && !worker.is_given_up())
        else {
            return;
        };
        worker.worn = Some(wear);
        self.recycling.put_first(id, wear);
    }

    /// A worker that hung shows life: it stays. If its successor starts already it gives way to it, and may finish its work.
    pub(super) fn recovered(&mut self, id: WorkerId) {
        let worker = self.roster.worker_mut(id);
        let Some(worker) = worker.filter(|worker| worker.is_ready() && worker.hangs()) else {
            return;
        };
        worker.worn = None;
        let position = worker.position;
        let seat = self.roster.seat(position);
        let has_another = seat.is_some_and(|seat| {
            let mut active = seat.workers.values().filter(|worker| worker.is_active());
            active.any(|worker| worker.id != id)
        });
        // The successor that a reload has brought may go again.
        let has_successor = has_another && self.recycling.is_turn_of(id);
        self.recycling.withdraw(id, has_successor);
    }

    /// A worker is gone. One that hung and was not killed for it has ended before its successor was ready: that one tells all the
    /// same why it came.
    pub(super) fn left_hanging(&mut self, worker: &Worker) {
        if matches!(worker.state, State::Killed { .. }) {
            return;
        }
        let (at, wear) = (self.out.now(), worker.worn.filter(Wear::is_hung));
        let seat = self.roster.seat_mut(worker.position);
        if let (Some(seat), Some(wear)) = (seat, wear) {
            seat.recycled = Some(Recycled { at, wear });
        }
    }
}

impl Wear {
    pub(super) fn is_hung(&self) -> bool {
        match self {
            Self::Hung { .. } | Self::Outage { .. } | Self::Stopped { .. } => true,
            Self::Memory { .. } | Self::Age { .. } | Self::Requests { .. } | Self::Asked => false,
        }
    }
}

impl Worker {
    /// It was found to hang, and has shown no life since.
    pub(super) fn hangs(&self) -> bool {
        self.worn.is_some_and(|wear| wear.is_hung())
    }

    /// Its time is over: it is missing already, and to ask it would be in vain.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.worn, Some(Wear::Hung { .. }))
    }

    /// It goes, because another one is to have its place: one that is given up is killed, others finish their work.
    pub(super) fn make_way(&mut self, reason: Reason, config: &FleetConfig, out: &mut Outbox) {
        if !self.is_given_up() {
            return self.drain(reason, config, out);
        }
        out.push(Action::Kill { worker: self.id });
        let until = out.after(config.kill_timeout);
        let cause = Cause::Retired;
        self.enter(State::Killed { until, cause }, reason, out);
    }
}
