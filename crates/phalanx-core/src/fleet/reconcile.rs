//! What lives compared with what should live, and the actions that close the gap.
//!
//! Runs at the end of each step. INVARIANT: run twice, the second run does nothing; and whatever it
//! leaves undone waits for an event or for a deadline that [`Fleet::next_deadline`] knows.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use super::action::Action;
use super::census::{Census, Place};
use super::change::Change;
use super::config::{BootPolicy, FleetConfig, Limits};
use super::outbox::Outbox;
use super::report::Reason;
use super::rollout::wanted_at;
use super::seat::{Past, Seat};
use super::wear::Recycled;
use super::worker::Worker;
use super::{Fleet, Phase};
use crate::ids::{Generation, Position, WorkerId};

/// A position that needs a worker, in the order of their turns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    is_of_base: bool,
    failures: u32,
    position: Position,
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
        self.admit_needed();
        self.conclude_boot();
        if self.is_ending() {
            return self.finish_when_empty();
        }
        let mut census = self.let_go();
        loop {
            while self.promote_spare(&census) {
                // Who had the position before is not needed any more.
                census = self.let_go();
            }
            self.fill(&mut census);
            if !(self.replace(&mut census) || self.make_room_to_recycle(&mut census)) {
                break;
            }
        }
        self.start_spares(&mut census);
        self.roster.close_empty(self.target, self.config.spares);
        self.conclude_scaling();
        self.tell_watch();
        self.settle();
        self.end_if_all_gone();
    }

    /// Ends what is over, and lets go who is not needed any more.
    fn let_go(&mut self) -> Census {
        while self.conclude_change() || self.advance_canaries() {}
        self.retire_spares();
        // Before the marks, which ask who is worn out.
        self.advance_recycling();
        self.mark_redundant();
        self.switch_vacancies();
        let mut census = self.census();
        self.release_surplus(&mut census);
        self.release_replaced(&mut census);
        // Who was just let go finishes its work, which the limit may overlook.
        self.census()
    }

    fn census(&self) -> Census {
        let limits = self.limits();
        let wanted = || self.roster.wanted(self.target);
        let kept = wanted().filter(|seat| !seat.abandoned).count();
        let reserved: u32 = wanted().map(|seat| seat.counted().max(1)).sum();
        let reserved_working: u32 = wanted().map(|seat| seat.counted_active().max(1)).sum();
        let surplus = || self.roster.surplus(self.target);
        let starting = || self.roster.workers().filter(|worker| worker.is_booting());
        let to = self.change.as_ref().map(|change| change.to);
        let starting_of_change = starting().any(|worker| Some(worker.generation) == to);
        let may_start = self.may_start_at_once();
        let ready = self.roster.workers().filter(|worker| worker.is_ready());
        Census {
            ready: count(ready.count()),
            floor: count(kept).saturating_sub(limits.unavailable(self.target)),
            working: reserved_working + surplus().map(Seat::counted_active).sum::<u32>(),
            processes: reserved + surplus().map(Seat::counted).sum::<u32>(),
            draining: limits.draining(self.target),
            limit: self.target.saturating_add(limits.surge(self.target)),
            surge: limits.surge(self.target),
            starts: may_start.saturating_sub(count(starting().count())),
            starts_of_change: u32::from(to.is_some() && !starting_of_change),
        }
    }

    fn may_start_at_once(&self) -> u32 {
        let unlimited = |limit: Option<NonZeroU32>| limit.map_or(u32::MAX, NonZeroU32::get);
        let first = self.head_start_until().and(self.config.first_starting);
        unlimited(self.config.max_starting).min(unlimited(first))
    }

    /// Until when the workers that start first are alone, if they still are and others wait for it.
    pub(super) fn head_start_until(&self) -> Option<Duration> {
        let boot = self.boot.as_ref()?;
        let others_wait = self.config.first_starting?.get() < self.target;
        (others_wait && boot.failed.is_empty() && !self.out.is_due(boot.all_at))
            .then_some(boot.all_at)
    }

    fn limits(&self) -> Limits {
        let change = self.change.as_ref();
        change.map_or_else(|| Limits::of(&self.config), |change| change.limits)
    }

    /// How many positions may be tried for the first time: without limit, unless the fleet boots and
    /// gives up when it cannot.
    pub(super) fn first_tries_left(&self) -> u32 {
        let is_limited = self.boot.is_some() && self.config.boot == BootPolicy::Exit;
        match self.config.max_starting {
            Some(limit) if is_limited => {
                let wanted = self.roster.wanted(self.target);
                let tried = wanted.filter(|seat| seat.past != Past::Untried).count();
                limit.get().saturating_sub(count(tried))
            }
            Some(_) | None => u32::MAX,
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
                    worker.drain(Reason::ScaledDown, config, out);
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
            let takes = |change: &Change| change.takes_vacancies(self.target);
            if self.change.as_ref().is_some_and(takes) {
                self.switch(position);
            }
        }
    }

    /// Positions that need a worker of their generation: first those that the change under way has
    /// taken, then those that failed least.
    fn fill(&mut self, census: &mut Census) {
        let needs: BTreeSet<Need> = self
            .roster
            .wanted(self.target)
            .filter(|seat| self.needs_spawn(seat))
            .map(|seat| Need {
                is_of_base: !self.has_switched(seat.position),
                failures: seat.failures(),
                position: seat.position,
            })
            .collect();
        let mut first_tries = self.first_tries_left();
        for need in needs {
            let Some(seat) = self.roster.seat(need.position) else {
                continue;
            };
            let place = Place::at(seat);
            let is_first_try = seat.past == Past::Untried;
            let may_try = !is_first_try || first_tries > 0;
            let has_turn = place == Place::Empty || self.may_surge_for(need.position);
            let may_start = census.may_start(!need.is_of_base);
            if may_try && has_turn && may_start && census.has_room(place) {
                first_tries -= u32::from(is_first_try);
                census.add(place, !need.is_of_base);
                let reason = self.spawn_reason(seat);
                let generation = self.wanted_generation(need.position);
                self.spawn(need.position, generation, reason);
            }
        }
    }

    fn needs_spawn(&self, seat: &Seat) -> bool {
        let is_missing = match &self.change {
            Some(change) if change.has_switched(seat.position) => seat.lacks(change.to),
            Some(_) => seat.is_vacant(),
            None => seat.is_vacant() || self.awaits_recycling(seat),
        };
        let may_try = seat.retry_at.is_none() && !seat.abandoned && !seat.is_blocked();
        is_missing && may_try && !self.is_held_back(seat.position)
    }

    /// While a rollout is under way the surge is for the positions whose turn it is; otherwise
    /// those who leave by their own wish would use it up.
    pub(super) fn may_surge_for(&self, position: Position) -> bool {
        self.change.as_ref().is_none_or(|change| {
            (change.has_switched(position) || change.is_rollback()) && !change.is_done(position)
        })
    }

    fn spawn_reason(&self, seat: &Seat) -> Reason {
        match &self.change {
            Some(change) if change.has_switched(seat.position) => change.spawn_reason(),
            Some(_) | None if seat.past == Past::Untried => Reason::NewPosition,
            Some(_) | None => seat
                .wear()
                .map_or(Reason::Respawn, |wear| Reason::Recycle { wear }),
        }
    }

    /// The turn of the next positions in a rollout, lowest first: successor first if there may be
    /// one more, else the old worker goes first if one may be missing. True if one did.
    fn replace(&mut self, census: &mut Census) -> bool {
        let Some(change) = &self.change else {
            return false;
        };
        if self.awaits_first_spare(change) {
            return false;
        }
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
        let mut has_made_room = false;
        for position in waiting {
            let may_switch = |change: &Change| change.may_switch(self.target);
            if !census.may_start(true) || !self.change.as_ref().is_some_and(may_switch) {
                break;
            }
            if census.has_room(Place::Beside) {
                self.switch(position);
                census.add(Place::Beside, true);
                self.spawn(position, to, reason.clone());
            } else if census.may_take_down() {
                self.switch(position);
                self.make_room(position, census);
                has_made_room = true;
            } else {
                break;
            }
        }
        has_made_room
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

    /// The first successors of an unproven release get no connections at once, if another one has
    /// those of their position.
    fn is_to_soak(&self, position: Position, generation: Generation) -> bool {
        let is_unproven = self.change.as_ref().is_some_and(|change| {
            change.to == generation && !change.is_rollback() && !change.is_proven()
        });
        let is_held_by_another = self.roster.seat(position).is_some_and(Seat::has_ready);
        !self.config.soak.is_zero() && is_unproven && is_held_by_another
    }

    pub(super) fn spawn(&mut self, position: Position, generation: Generation, reason: Reason) {
        self.last_worker = WorkerId(self.last_worker.0.saturating_add(1));
        let identity = (self.last_worker, position, generation);
        let held = position.is_spare() || self.is_to_soak(position, generation);
        self.out.push(Action::Spawn {
            worker: self.last_worker,
            position,
            generation,
            held,
        });
        let worker = Worker::new(identity, held, reason, &self.config, &mut self.out);
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
        if is_overdue || census.may_take_down() || worker.is_given_up() {
            let reason = match worker.worn {
                Some(wear) if *reason == Reason::SuccessorReady => {
                    let at = out.now();
                    seat.recycled = Some(Recycled { at, wear });
                    Reason::Recycled { wear }
                }
                Some(_) | None => reason.clone(),
            };
            worker.make_way(reason, config, out);
            census.ready = census.ready.saturating_sub(1);
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
