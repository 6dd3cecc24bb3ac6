//! Warm spares: workers that are ready and get no connections, until a position needs one.
//!
//! A spare holds a place beyond all positions ([`Position::is_spare`]). When a position has lost its worker, or its worker is to be
//! recycled, a spare of the release that the position wants moves there at once, and another spare is started behind it. What
//! the backoff would have made the position wait for a start, the new spare waits: an app that crashes without end uses its spares up,
//! and is started no oftener than without them.
//!
//! Spares are of the newest release. A reload begins with them: no serving worker is touched before a spare of the new release was
//! ready, and one that does not start is the end of the release.
//!
//! INVARIANT: there is at most one process at a place of a spare, so never more of them than [`FleetConfig::spares`].
//!
//! [`FleetConfig::spares`]: super::FleetConfig::spares

use super::Fleet;
use super::action::Action;
use super::census::{Census, Place};
use super::change::{Change, TOLERATED_KILLS};
use super::failure::{Failure, FailureReason};
use super::report::Reason;
use super::seat::Seat;
use super::verdict::Who;
use super::wear::Wear;
use super::worker::{Cause, State, Worker};
use crate::ids::{Generation, Position, WorkerId};

impl Fleet {
    /// How many spares there are to be now. While the fleet boots its positions come first.
    fn spares_wanted(&self) -> u32 {
        if self.boot.is_some() || self.target == 0 {
            0
        } else {
            self.config.spares
        }
    }

    pub(super) fn is_wanted_spare(&self, position: Position) -> bool {
        let index = position.0.checked_sub(Position::SPARES);
        index.is_some_and(|index| index < self.spares_wanted())
    }

    /// Whether all spares are there, and nobody else in their places.
    pub(super) fn has_its_spares(&self) -> bool {
        let all = self
            .roster
            .spare_seats()
            .flat_map(|seat| seat.workers.values());
        let (ready, others): (Vec<&Worker>, Vec<&Worker>) =
            all.partition(|worker| worker.is_spare() && worker.generation == self.current);
        others.is_empty() && u32::try_from(ready.len()) == Ok(self.spares_wanted())
    }

    fn spare_of(&self, generation: Generation) -> Option<WorkerId> {
        let mut all = self
            .roster
            .spare_seats()
            .flat_map(|seat| seat.workers.values());
        all.find(|worker| worker.is_spare() && worker.generation == generation)
            .map(|worker| worker.id)
    }

    /// Whether a rollout has to wait for a spare that proves the release.
    pub(super) fn awaits_first_spare(&self, change: &Change) -> bool {
        let is_unproven = !change.is_rollback() && !change.is_proven();
        is_unproven && self.spares_wanted() > 0 && self.spare_of(change.to).is_none()
    }

    pub(super) fn spare_is_ready(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.worker_mut(id) else {
            return;
        };
        worker.enter(State::Spare, Reason::WaitsAsSpare, &mut self.out);
        let generation = worker.generation;
        if let Some(change) = self
            .change
            .as_mut()
            .filter(|change| change.to == generation)
        {
            change.moved_at = self.out.now();
        }
    }

    /// A spare did not start. That is the end of a release of which nobody was ready yet; otherwise it is tried again.
    pub(super) fn start_of_spare_failed(&mut self, mut failure: Failure, from_outside: bool) {
        let Some(change) = &mut self.change else {
            return;
        };
        if change.is_rollback() || change.is_proven() {
            return;
        }
        if from_outside {
            let times = change.record_kill(failure.position, self.out.now());
            if times <= TOLERATED_KILLS {
                return;
            }
            failure.reason = FailureReason::KilledTooOften { times };
        }
        self.fail_rollout(failure);
    }

    /// A spare that is worn out or hangs ends, and another one comes. True if it is a spare.
    pub(super) fn spare_is_worn(&mut self, id: WorkerId, wear: Wear) -> bool {
        let worker = self.roster.worker_mut(id);
        let Some(worker) = worker.filter(|worker| worker.is_spare()) else {
            return false;
        };
        let reason = Reason::Recycled { wear };
        worker.stop(Cause::Retired, reason, &self.config, &mut self.out);
        true
    }

    /// Moves a spare to a position that needs one. True if it did: others may not be needed any more.
    pub(super) fn promote_spare(&mut self, census: &Census) -> bool {
        let wanted = self.roster.wanted(self.target);
        let needy = wanted
            .filter(|seat| self.needs_spare(seat) && census.has_room(Place::at(seat)))
            .filter_map(|seat| {
                let spare = self.spare_of(self.wanted_generation(seat.position))?;
                Some((seat.failures(), seat.position, spare))
            })
            .min();
        let Some((_, position, spare)) = needy else {
            return false;
        };
        self.promote(spare, position);
        true
    }

    fn needs_spare(&self, seat: &Seat) -> bool {
        let is_missing = seat.is_vacant() || (self.change.is_none() && self.awaits_recycling(seat));
        let has_turn = seat.counted() == 0 || self.may_surge_for(seat.position);
        is_missing && has_turn && !seat.abandoned && !seat.is_blocked()
    }

    fn promote(&mut self, spare: WorkerId, position: Position) {
        let Some(mut worker) = self.roster.remove(spare) else {
            return;
        };
        let place = worker.position;
        let seat = self.roster.seat_mut(position);
        let (retry_at, wear) =
            seat.map_or((None, None), |seat| (seat.retry_at.take(), seat.wear()));
        if let Some(seat) = self.roster.seat_mut(place) {
            seat.retry_at = seat.retry_at.max(retry_at);
        }
        worker.position = position;
        worker.held = false;
        self.out.push(Action::Promote {
            worker: spare,
            position,
        });
        let reason = wear.map_or(Reason::SpareTakesOver, |wear| Reason::Recycle { wear });
        worker.enter(State::Ready, reason, &mut self.out);
        let who = Who::from(&worker);
        self.roster.insert(worker);
        self.became_ready(who);
    }

    fn spare_generation(&self) -> Generation {
        let change = self.change.as_ref();
        change.map_or(self.current, |change| change.to)
    }

    /// Ends spares that are not wanted any more, or of another release.
    pub(super) fn retire_spares(&mut self) {
        let (wanted, generation) = (self.spares_wanted(), self.spare_generation());
        let is_another = std::mem::replace(&mut self.spare_generation, generation) != generation;
        for seat in self.roster.spare_seats_mut() {
            let is_wanted = seat.position.0 - Position::SPARES < wanted;
            if is_another || !is_wanted {
                seat.forget_failures();
            }
            let active = seat.workers.values_mut();
            for worker in active.filter(|worker| worker.is_active()) {
                if !is_wanted || worker.generation != generation {
                    let reason = if is_wanted {
                        Reason::Superseded
                    } else {
                        Reason::ScaledDown
                    };
                    worker.stop(Cause::Retired, reason, &self.config, &mut self.out);
                }
            }
        }
    }

    /// Starts the spares that are missing. Positions that wait for a worker that starts have the processors first.
    pub(super) fn start_spares(&mut self, census: &mut Census) {
        let for_change = self.change.is_some();
        let has_its_own =
            |seat: &Seat| seat.has_ready() || seat.retry_at.is_some() || seat.abandoned;
        if !for_change && !self.roster.wanted(self.target).all(has_its_own) {
            return;
        }
        let generation = self.spare_generation();
        for index in 0..self.spares_wanted() {
            let seat = self.roster.spare_seat_mut(index);
            let position = seat.position;
            let is_free = seat.workers.is_empty() && seat.retry_at.is_none();
            if is_free && census.may_start(for_change) {
                census.add_start(for_change);
                self.spawn(position, generation, Reason::NewSpare);
            }
        }
    }
}
