//! Recycling: a worker that serves, but is worn out or no longer wanted, gives way to one of the same release.
//!
//! One position at a time, or as many as [`FleetConfig::max_recycling`](super::FleetConfig::max_recycling) says, in the order in which
//! they asked for it, and only while no reload is on its way. The successor comes first if there may be one more; a turn ends when the
//! old worker is gone and another serves in its place. Where the successor does not start, the old worker serves on: one that is worn out waits for the next try,
//! like any position that failed to start, and whoever asked by hand is told.

use std::collections::BTreeSet;

use super::Fleet;
use super::action::{Done, Refusal};
use super::census::{Census, Place};
use super::event::{CommandId, RecycleTarget};
use super::failure::Failure;
use super::report::Reason;
use super::seat::Seat;
use super::wear::{Recycled, Wear};
use super::worker::{Cause, Worker};
use crate::ids::{Position, WorkerId};

/// Who waits to be replaced, and whose turns it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Recycling {
    queue: Vec<(WorkerId, Wear)>,
    turns: Vec<Turn>,
    asked: Vec<Asked>,
}

/// The one that is being replaced.
#[derive(Clone, Copy, Debug)]
struct Turn {
    worker: WorkerId,
    position: Position,
}

/// A command that waits until all its workers are gone.
#[derive(Clone, Debug)]
struct Asked {
    command: CommandId,
    workers: BTreeSet<WorkerId>,
    of: u32,
}

impl Fleet {
    /// A worker is worn out. Only one that serves can be.
    pub(super) fn worn(&mut self, id: WorkerId, wear: Wear) {
        if self.spare_is_worn(id, wear) {
            return;
        }
        if wear.is_hung() {
            return self.hangs(id, wear);
        }
        let is_ready = self.roster.worker(id).is_some_and(Worker::is_ready);
        if is_ready && !self.recycling.knows(id) {
            self.recycling.queue.push((id, wear));
        }
    }

    /// Somebody wants workers replaced.
    pub(super) fn recycle(&mut self, command: CommandId, target: RecycleTarget) {
        let target_of = |worker: &Worker| match target {
            RecycleTarget::All => true,
            RecycleTarget::Position(position) => worker.position == position,
            RecycleTarget::Worker(id) => worker.id == id,
        };
        let ready = self.roster.workers().filter(|worker| worker.is_ready());
        let workers: BTreeSet<WorkerId> = ready
            .filter(|worker| self.is_wanted(worker.position) && target_of(worker))
            .map(|worker| worker.id)
            .collect();
        if workers.is_empty() {
            let reason = match target {
                RecycleTarget::All => "no worker is ready".to_owned(),
                RecycleTarget::Position(position) => {
                    format!("no worker is ready at position {position}")
                }
                RecycleTarget::Worker(id) => format!("there is no ready worker {id}"),
            };
            return self.out.reply(command, Err(Refusal::Invalid { reason }));
        }
        for id in &workers {
            self.worn(*id, Wear::Asked);
        }
        self.recycling.asked.push(Asked {
            command,
            of: u32::try_from(workers.len()).unwrap_or(u32::MAX),
            workers,
        });
    }

    /// Ends the turn that is over, answers who waited, and begins the next turn.
    pub(super) fn advance_recycling(&mut self) {
        if self.recycling.is_idle() {
            return;
        }
        self.end_turns();
        let yields = self.boot.is_some() || self.change.is_some() || self.queued_reloads.is_some();
        if yields {
            self.suspend_turns();
        }
        let roster = &self.roster;
        let serves = |id: &WorkerId| roster.worker(*id).is_some_and(Worker::is_ready);
        self.recycling.queue.retain(|(worker, _)| serves(worker));
        for asked in &mut self.recycling.asked {
            asked.workers.retain(|id| roster.worker(*id).is_some());
        }
        let is_done = |asked: &mut Asked| asked.workers.is_empty();
        for asked in self.recycling.asked.extract_if(.., is_done) {
            let workers = asked.of;
            self.out
                .reply(asked.command, Ok(Done::Recycled { workers }));
        }
        if !yields {
            self.begin_turns();
        }
    }

    /// Gives turns to those who wait, as far as so many may have one at a time.
    fn begin_turns(&mut self) {
        let most = usize::try_from(self.config.max_recycling.get()).unwrap_or(usize::MAX);
        while self.recycling.turns.len() < most && !self.recycling.queue.is_empty() {
            let (id, wear) = self.recycling.queue.remove(0);
            if let Some(worker) = self.roster.worker_mut(id) {
                worker.worn = Some(wear);
                self.recycling.turns.push(Turn {
                    worker: id,
                    position: worker.position,
                });
            }
        }
    }

    /// A turn is over when the old worker is gone, and its position is served or has troubles of its own.
    fn end_turns(&mut self) {
        let turns = std::mem::take(&mut self.recycling.turns);
        let goes_on = |turn: &Turn| {
            let is_gone = self.roster.worker(turn.worker).is_none();
            let seat = self.roster.seat(turn.position);
            let is_served = seat
                .is_none_or(|seat| seat.has_ready() || seat.retry_at.is_some() || seat.abandoned);
            !(is_gone && (is_served || !self.is_wanted(turn.position)))
        };
        self.recycling.turns = turns.into_iter().filter(goes_on).collect();
    }

    /// A reload has precedence: what has started for the turns is stopped, unless the old worker leaves already.
    fn suspend_turns(&mut self) {
        // Who was first is first again.
        let turns = std::mem::take(&mut self.recycling.turns);
        let goes_on = |turn: &Turn| !self.suspend_turn(*turn);
        let mut left: Vec<Turn> = turns.into_iter().rev().filter(goes_on).collect();
        left.reverse();
        self.recycling.turns = left;
    }

    /// True if the turn is given up.
    fn suspend_turn(&mut self, turn: Turn) -> bool {
        let Some(seat) = self.roster.seat_mut(turn.position) else {
            return false;
        };
        let old = seat.workers.get_mut(&turn.worker);
        let Some(old) = old.filter(|worker| worker.is_ready()) else {
            return false;
        };
        if let Some(wear) = old.worn {
            self.recycling.queue.insert(0, (turn.worker, wear));
            // One that hangs does so in the reload as well.
            old.worn = old.worn.filter(Wear::is_hung);
        }
        let (config, out) = (&self.config, &mut self.out);
        for worker in seat
            .workers
            .values_mut()
            .filter(|worker| worker.is_starting())
        {
            worker.stop(Cause::Retired, Reason::Superseded, config, out);
        }
        true
    }

    /// Whether that position's worker is to be replaced and its successor has not come yet.
    pub(super) fn awaits_recycling(&self, seat: &Seat) -> bool {
        let turn = self.recycling.turn_at(seat.position);
        turn.is_some_and(|turn| {
            let is_alone = || {
                let mut active = seat.workers.values().filter(|worker| worker.is_active());
                active.all(|worker| worker.id == turn.worker)
            };
            let old = seat.workers.get(&turn.worker);
            old.is_some_and(Worker::is_ready) && is_alone()
        })
    }

    /// Where there may be no extra worker, the old one goes first. True if one did.
    pub(super) fn make_room_to_recycle(&mut self, census: &mut Census) -> bool {
        if self.change.is_some() {
            return false;
        }
        let turns = self.recycling.turns.clone();
        turns.into_iter().any(|turn| self.goes_first(turn, census))
    }

    fn goes_first(&mut self, turn: Turn, census: &mut Census) -> bool {
        let is_stuck = self.roster.seat(turn.position).is_some_and(|seat| {
            self.awaits_recycling(seat)
                && seat.retry_at.is_none()
                && !census.has_room(Place::Beside)
        });
        let old = self.roster.worker(turn.worker);
        let may_be_missing = census.may_take_down() || old.is_some_and(Worker::is_given_up);
        if !(is_stuck && census.never_has_room() && may_be_missing) {
            return false;
        }
        let Some(seat) = self.roster.seat_mut(turn.position) else {
            return false;
        };
        seat.recycled = seat.wear().map(|wear| Recycled {
            at: self.out.now(),
            wear,
        });
        if let Some(worker) = seat.workers.get_mut(&turn.worker) {
            worker.make_way(Reason::MakesRoom, &self.config, &mut self.out);
            census.ready -= 1;
        }
        true
    }

    /// The successor of a worker that is being replaced did not start.
    pub(super) fn successor_failed(&mut self, failure: &Failure) {
        let Some(turn) = self.recycling.turn_at(failure.position) else {
            return;
        };
        let waits = |asked: &mut Asked| asked.workers.contains(&turn.worker);
        for asked in self.recycling.asked.extract_if(.., waits) {
            let failure = failure.clone();
            self.out
                .reply(asked.command, Err(Refusal::RecycleFailed { failure }));
        }
        let worker = self.roster.worker_mut(turn.worker);
        if let Some(worker) =
            worker.filter(|worker| matches!(worker.worn, Some(Wear::Asked) | None))
        {
            worker.worn = None;
            self.recycling.turns.retain(|one| one.worker != turn.worker);
        }
    }

    /// Nothing is recycled any more. Returns who waited for it.
    pub(super) fn end_recycling(&mut self) -> impl Iterator<Item = CommandId> + use<> {
        let recycling = std::mem::take(&mut self.recycling);
        recycling.asked.into_iter().map(|asked| asked.command)
    }
}

impl Recycling {
    fn is_idle(&self) -> bool {
        self.turns.is_empty() && self.queue.is_empty() && self.asked.is_empty()
    }

    /// This worker goes before all that do not hang.
    pub(super) fn put_first(&mut self, id: WorkerId, wear: Wear) {
        self.queue.retain(|(worker, _)| *worker != id);
        if !self.is_turn_of(id) {
            let before = self.queue.iter().take_while(|(_, wear)| wear.is_hung());
            self.queue.insert(before.count(), (id, wear));
        }
    }

    /// This worker is not to be replaced any more; unless it has a successor already, whose turn goes on.
    pub(super) fn withdraw(&mut self, id: WorkerId, has_successor: bool) {
        self.queue.retain(|(worker, _)| *worker != id);
        self.turns.retain(|turn| turn.worker != id || has_successor);
        let mut asked = self.asked.iter();
        if !has_successor && asked.any(|asked| asked.workers.contains(&id)) {
            self.queue.push((id, Wear::Asked));
        }
    }

    pub(super) fn is_turn_of(&self, id: WorkerId) -> bool {
        self.turns.iter().any(|turn| turn.worker == id)
    }

    /// The turn of that position, if it has one.
    fn turn_at(&self, position: Position) -> Option<Turn> {
        let mut turns = self.turns.iter().copied();
        turns.find(|turn| turn.position == position)
    }

    fn knows(&self, id: WorkerId) -> bool {
        self.is_turn_of(id) || self.queue.iter().any(|(worker, _)| *worker == id)
    }
}
