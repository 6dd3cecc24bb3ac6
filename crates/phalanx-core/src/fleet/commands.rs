//! What users want of a fleet. Every command gets exactly one reply: here at once, or later from
//! whatever it set in motion (`Fleet::command` gives each its turn).

use super::action::{Action, Done, Outcome, Refusal};
use super::config::MAX_WORKERS;
use super::elastic::Resize;
use super::event::{CommandId, ScaleTo};
use super::failure::Failure;
use super::report::{Reason, Report};
use super::seat::Seat;
use super::verdict::HEAD_START;
use super::worker::{Cause, State};
use super::{Fleet, Phase};
use crate::ids::Position;

/// A change of size that has not come true yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaling {
    command: CommandId,
    /// Positions from here to the target are new; none if the target shrank.
    from: u32,
    /// Positions to fill or to empty.
    of: u32,
    /// How many of them remain, as last told.
    remaining: u32,
}

impl Fleet {
    pub(super) fn start(&mut self) {
        match self.phase {
            Phase::New => {
                self.phase = Phase::Running;
                self.snapshots.insert(self.current);
                if let Some(boot) = &mut self.boot {
                    boot.all_at = self.out.after(HEAD_START);
                }
                self.out.push(Action::NewGeneration(self.current));
                self.roster.open(0, self.target);
            }
            Phase::Running | Phase::Ending { .. } | Phase::Finished => {}
        }
    }

    pub(super) fn stop(&mut self, id: CommandId, fast: bool) {
        self.report_stop(fast);
        if fast {
            self.hurry();
        }
        self.end(Outcome::Stopped, vec![id]);
    }

    pub(super) fn report_stop(&mut self, fast: bool) {
        self.out.report(Report::StopStarted {
            fast,
            workers: self.roster.len(),
        });
    }

    /// From here on the fleet only waits for its workers to go. Whatever else was wanted is
    /// refused.
    pub(super) fn end(&mut self, outcome: Outcome, stops: Vec<CommandId>) {
        self.out.push(Action::Refuse);
        self.wind_down();
        self.phase = Phase::Ending { outcome, stops };
        self.settled = None;
        let asked = self.change.take().map(|change| change.asked);
        let reloads = asked.into_iter().flatten().map(|asked| asked.command);
        let queued = self.queued_reloads.take().map(|queued| queued.commands);
        let scaling = self.scaling.take().map(|scaling| scaling.command);
        let recycles = self.end_recycling();
        let waiting = reloads
            .chain(queued.into_iter().flatten())
            .chain(scaling)
            .chain(recycles);
        for command in waiting {
            self.out.reply(command, Err(Refusal::Stopping));
        }
        self.tell_watch();
    }

    /// Every worker may finish its work.
    fn wind_down(&mut self) {
        let (config, out) = (&self.config, &mut self.out);
        for worker in self.roster.workers_mut() {
            match worker.state {
                State::Starting { .. } | State::Online { .. } | State::Spare
                    if worker.position.is_spare() =>
                {
                    worker.stop(Cause::Retired, Reason::FleetStops, config, out);
                }
                State::Starting { .. }
                | State::Online { .. }
                | State::Soaking { .. }
                | State::Spare
                | State::Ready => worker.make_way(Reason::FleetStops, config, out),
                State::Draining { .. }
                | State::Departing { .. }
                | State::Stopping { .. }
                | State::Killed { .. } => {}
            }
        }
    }

    /// Every worker is told to end now.
    pub(super) fn hurry(&mut self) {
        let (config, out) = (&self.config, &mut self.out);
        for worker in self.roster.workers_mut() {
            match worker.state {
                State::Starting { .. }
                | State::Online { .. }
                | State::Soaking { .. }
                | State::Spare
                | State::Ready => {
                    worker.stop(Cause::Retired, Reason::FleetStops, config, out);
                }
                State::Draining { cause, .. } | State::Departing { cause, .. } => {
                    worker.stop(cause, Reason::FleetStops, config, out);
                }
                State::Stopping { .. } | State::Killed { .. } => {}
            }
        }
    }
}

/// Changes of size.
impl Fleet {
    pub(super) fn scale(&mut self, id: CommandId, to: ScaleTo) {
        let to = match new_target(self.target, to) {
            Ok(to) => to,
            Err(reason) => return self.out.reply(id, Err(Refusal::Invalid { reason })),
        };
        let from = self.target;
        let unfinished = self.scaling.take().map(|older| {
            self.out.reply(older.command, Err(Refusal::Superseded));
            older.from
        });
        self.out.report(Report::ScaleStarted { from, to });
        self.set_target(to);
        let mut scaling = Scaling {
            command: id,
            from: unfinished.unwrap_or(from).min(from),
            of: 0,
            remaining: 0,
        };
        scaling.of = self.remaining(&scaling);
        scaling.remaining = scaling.of;
        self.scaling = Some(scaling);
    }

    pub(super) fn set_target(&mut self, to: u32) {
        let from = std::mem::replace(&mut self.target, to);
        if to > from {
            self.open_positions(from);
        } else {
            self.close_positions(from);
        }
    }

    /// A change of size has not come true yet.
    pub(super) fn is_scaling(&self) -> bool {
        self.scaling.is_some()
    }

    /// New positions get the generation of the rollout under way.
    fn open_positions(&mut self, from: u32) {
        self.roster.open(from, self.target);
        let now = self.out.now();
        let Some(change) = &mut self.change else {
            return;
        };
        for position in (from..self.target).map(Position) {
            let seat = self.roster.seat(position);
            if seat.is_some_and(|seat| seat.has_ready_of(change.to)) {
                change.record_ready(position, now);
            } else if seat.is_none_or(Seat::is_vacant)
                && !change.is_rollback()
                && !change.is_confined()
            {
                change.switch(position, now);
            }
        }
    }

    fn close_positions(&mut self, from: u32) {
        for position in (self.target..from).map(Position) {
            if let Some(change) = &mut self.change {
                change.forget(position);
            }
            if let Some(boot) = &mut self.boot {
                boot.failed.remove(&position);
            }
            if let Some(seat) = self.roster.seat_mut(position) {
                seat.renew();
            }
        }
        self.roster.close_empty(self.target, self.config.spares);
    }

    /// Answers a change of size that has come true.
    pub(super) fn conclude_scaling(&mut self) {
        let Some(mut scaling) = self.scaling.take() else {
            return;
        };
        let remaining = self.remaining(&scaling);
        if remaining < scaling.remaining {
            self.out.report(Report::ScaleProgress {
                done: scaling.of.saturating_sub(remaining),
                of: scaling.of,
            });
        }
        if remaining == 0 {
            let workers = self.target;
            self.out
                .reply(scaling.command, Ok(Done::Scaled { workers }));
        } else {
            scaling.remaining = remaining;
            self.scaling = Some(scaling);
        }
    }

    /// New positions in which no worker has been ready yet, and surplus ones that are not empty
    /// yet.
    fn remaining(&self, scaling: &Scaling) -> u32 {
        let unproven = self
            .roster
            .wanted(self.target)
            .filter(|seat| seat.position.0 >= scaling.from && !seat.has_served());
        let surplus = self.roster.surplus(self.target);
        let remaining = unproven.count() + surplus.count();
        u32::try_from(remaining).unwrap_or(u32::MAX)
    }

    /// The worker of a new position failed to start.
    pub(super) fn start_of_scaling_failed(&mut self, failure: &Failure) {
        let Some(scaling) = self.scaling else { return };
        let is_new = failure.position.0 >= scaling.from;
        let seat = self.roster.seat(failure.position);
        if is_new && seat.is_some_and(|seat| !seat.has_served()) {
            self.scaling = None;
            let refusal = Refusal::ScaleFailed {
                workers: self.target,
                failure: failure.clone(),
            };
            self.out.reply(scaling.command, Err(refusal));
        }
    }
}

impl Fleet {
    /// The load, or the number of processors, asks for another size. A reload, a boot and a change of size under way go first: it will ask again.
    pub(super) fn resize(&mut self, resize: Resize) {
        let is_busy = self.change.is_some() || self.boot.is_some() || self.is_scaling();
        let is_running = matches!(self.phase, Phase::Running);
        if is_busy || !is_running || resize.to > MAX_WORKERS {
            return;
        }
        let from = self.target;
        self.out.report(Report::Resizes {
            from,
            to: resize.to,
            why: resize.why,
        });
        self.set_target(resize.to);
    }
}

/// The target that is meant, or why there cannot be one.
fn new_target(target: u32, to: ScaleTo) -> Result<u32, String> {
    let wanted = match to {
        ScaleTo::Exactly(workers) => Some(workers),
        ScaleTo::Up(more) => target.checked_add(more),
        ScaleTo::Down(fewer) => Some(
            target
                .checked_sub(fewer)
                .ok_or_else(|| format!("{target} workers cannot become {fewer} fewer"))?,
        ),
    };
    wanted
        .filter(|workers| *workers <= MAX_WORKERS)
        .ok_or_else(|| format!("a fleet has at most {MAX_WORKERS} workers"))
}
