//! What lives compared with what should live, and the actions that close the gap.
//!
//! Runs at the end of each step. INVARIANT: run twice, the second run does nothing; and whatever it
//! leaves undone waits for an event or for a deadline that [`Fleet::next_deadline`] knows.

use super::change::Change;
use super::config::FleetConfig;
use super::outbox::Outbox;
use super::report::Reason;
use super::rollout::wanted_at;
use super::seat::{Past, Seat};
use super::worker::{Cause, Worker};
use super::{Fleet, Phase};
use crate::ids::{Generation, Position, WorkerId};

/// The numbers that the two limits are about, kept true while a step decides.
struct Census {
    /// Workers that are ready.
    ready: u32,
    /// How many must stay ready when one is taken down.
    floor: u32,
    /// Processes, with one reserved for each vacant position.
    processes: u32,
    /// How many there may be.
    limit: u32,
}

impl Census {
    fn may_take_down(&self) -> bool {
        self.ready > self.floor
    }

    fn may_add(&self) -> bool {
        self.processes < self.limit
    }
}

impl Fleet {
    pub(super) fn reconcile(&mut self) {
        match self.phase {
            Phase::New | Phase::Finished => {}
            Phase::Running => {
                self.keep_running();
                self.drop_generations();
            }
            Phase::Ending { .. } => self.finish_when_empty(),
        }
    }

    fn keep_running(&mut self) {
        self.conclude_boot();
        if self.is_ending() {
            return self.finish_when_empty();
        }
        while self.conclude_change() {}
        self.mark_redundant();
        self.switch_vacancies();
        let mut census = self.census();
        self.release_surplus(&mut census);
        self.release_replaced(&mut census);
        self.fill(&mut census);
        self.replace(&mut census);
        self.roster.close_empty(self.target);
        self.conclude_scaling();
        self.settle();
        self.end_if_all_gone();
    }

    fn census(&self) -> Census {
        let config = &self.config;
        let wanted = || self.roster.wanted(self.target);
        let kept = wanted().filter(|seat| !seat.abandoned).count();
        let reserved: u32 = wanted().map(|seat| seat.counted().max(1)).sum();
        let surplus: u32 = self.roster.surplus(self.target).map(Seat::counted).sum();
        let ready = self.roster.workers().filter(|worker| worker.is_ready());
        Census {
            ready: count(ready.count()),
            floor: count(kept).saturating_sub(config.unavailable(self.target)),
            processes: reserved + surplus,
            limit: self.target.saturating_add(config.surge(self.target)),
        }
    }

    /// Notes since when ready workers are no longer needed: all but one at each position, and all
    /// at surplus ones.
    fn mark_redundant(&mut self) {
        let now = self.out.now();
        let (target, base) = (self.target, self.current);
        for seat in self.roster.seats_mut() {
            let wanted = wanted_at(seat.position, self.change.as_ref(), base);
            let keeper = seat
                .keeper(wanted, base)
                .filter(|_| seat.position.0 < target);
            for worker in seat.workers.values_mut() {
                worker.redundant_since = if worker.is_ready() && Some(worker.id) != keeper {
                    worker.redundant_since.or(Some(now))
                } else {
                    None
                };
            }
        }
    }

    /// Positions above the target: the highest go first.
    fn release_surplus(&mut self, census: &mut Census) {
        let (config, out) = (&self.config, &mut self.out);
        for seat in self.roster.surplus_mut(self.target).rev() {
            for worker in seat.workers.values_mut() {
                if worker.is_starting() {
                    worker.stop(Cause::Retired, Reason::ScaledDown, config, out);
                }
            }
            release(seat, &Reason::ScaledDown, census, (config, out));
        }
    }

    /// Positions in which a successor is ready: the others go.
    fn release_replaced(&mut self, census: &mut Census) {
        for seat in self.roster.wanted_mut(self.target) {
            let context = (&self.config, &mut self.out);
            release(seat, &Reason::SuccessorReady, census, context);
        }
    }

    /// Positions that lost their worker before their turn in a rollout came.
    fn switch_vacancies(&mut self) {
        let Some(change) = self.change.as_ref().filter(|change| !change.is_rollback()) else {
            return;
        };
        let vacancies: Vec<Position> = self
            .roster
            .wanted(self.target)
            .filter(|seat| seat.is_vacant() && !seat.is_blocked())
            .map(|seat| seat.position)
            .filter(|position| !change.has_switched(*position))
            .collect();
        for position in vacancies {
            if self.change.as_ref().is_some_and(Change::takes_vacancies) {
                self.switch(position);
            }
        }
    }

    /// Positions that need a worker of their generation.
    fn fill(&mut self, census: &mut Census) {
        let needy: Vec<(Position, bool, Reason)> = self
            .roster
            .wanted(self.target)
            .filter(|seat| self.needs_spawn(seat))
            .map(|seat| (seat.position, seat.counted() == 0, self.spawn_reason(seat)))
            .collect();
        for (position, is_empty, reason) in needy {
            if is_empty || (census.may_add() && self.may_surge_for(position)) {
                census.processes += u32::from(!is_empty);
                self.spawn(position, self.wanted_generation(position), reason);
            }
        }
    }

    fn needs_spawn(&self, seat: &Seat) -> bool {
        let is_missing = match &self.change {
            Some(change) if change.has_switched(seat.position) => seat.lacks(change.to),
            Some(_) | None => seat.is_vacant(),
        };
        let may_try = seat.retry_at.is_none() && !seat.abandoned && !seat.is_blocked();
        is_missing && may_try && !self.is_held_back(seat.position)
    }

    /// While a rollout is under way the surge is for the positions whose turn it is; otherwise
    /// those who leave by their own wish would use it up.
    fn may_surge_for(&self, position: Position) -> bool {
        self.change.as_ref().is_none_or(|change| {
            (change.has_switched(position) || change.is_rollback()) && !change.is_done(position)
        })
    }

    fn spawn_reason(&self, seat: &Seat) -> Reason {
        match &self.change {
            Some(change) if change.has_switched(seat.position) => change.spawn_reason(),
            Some(_) | None if seat.past == Past::Untried => Reason::NewPosition,
            Some(_) | None => Reason::Respawn,
        }
    }

    /// The turn of the next positions in a rollout, lowest first: successor first if there may be
    /// one more, else the old worker goes first if one may be missing.
    fn replace(&mut self, census: &mut Census) {
        let Some(change) = &self.change else { return };
        let (to, reason) = (change.to, change.spawn_reason());
        let waiting: Vec<Position> = self
            .roster
            .wanted(self.target)
            .filter(|seat| {
                !change.has_switched(seat.position) && seat.lacks(to) && seat.has_ready()
            })
            .filter(|seat| !seat.is_blocked())
            .map(|seat| seat.position)
            .collect();
        for position in waiting {
            if census.may_add() {
                self.switch(position);
                census.processes += 1;
                self.spawn(position, to, reason.clone());
            } else if census.may_take_down() {
                self.switch(position);
                self.make_room(position, census);
            } else {
                return;
            }
        }
    }

    /// The old worker goes although its successor has not come.
    fn make_room(&mut self, position: Position, census: &mut Census) {
        let Some(seat) = self.roster.seat_mut(position) else {
            return;
        };
        for worker in seat.workers.values_mut() {
            if worker.is_ready() && census.may_take_down() {
                worker.drain(Reason::MakesRoom, &self.config, &mut self.out);
                census.ready -= 1;
            }
        }
    }

    fn spawn(&mut self, position: Position, generation: Generation, reason: Reason) {
        self.last_worker = WorkerId(self.last_worker.0.saturating_add(1));
        let identity = (self.last_worker, position, generation);
        let worker = Worker::spawn(identity, reason, &self.config, &mut self.out);
        self.roster.insert(worker);
        if let Some(seat) = self.roster.seat_mut(position)
            && seat.past == Past::Untried
        {
            seat.past = Past::Tried;
        }
    }
}

/// Lets go of the ready workers of that seat that are no longer needed: if enough others are ready,
/// or if they have waited for that long enough.
fn release(
    seat: &mut Seat,
    reason: &Reason,
    census: &mut Census,
    (config, out): (&FleetConfig, &mut Outbox),
) {
    for worker in seat.workers.values_mut() {
        let Some(since) = worker.redundant_since else {
            continue;
        };
        let is_overdue = out.is_due(since.saturating_add(config.ready_timeout));
        if is_overdue || census.may_take_down() {
            worker.drain(reason.clone(), config, out);
            census.ready -= 1;
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
