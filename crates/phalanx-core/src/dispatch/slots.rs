//! The slots of one listener: a listening socket for each position, and who accepts from it.
//!
//! INVARIANTS
//! - As long as the listener lives, one of its sockets listens: nobody is refused, whoever dies and in whatever order.
//! - What waits in a socket is served: by the worker that accepts from it, by the one that inherits it after a crash, or by
//!   those to whom it moves.
//! - Newcomers go to workers that serve, as long as there is one.
//! - Where queues move, a socket stops listening only after newcomers have gone elsewhere for a moment. Who stops it in the very
//!   instant in which a handshake ends loses that connection: the kernel looks whether the socket listens before it puts the
//!   connection into the queue, not together with it (Linux 6.18, `inet_csk_reqsk_queue_add`).
//!
//! A worker whose predecessor still lives gets a slot of its own. It becomes the position's slot when the worker serves; from
//! that moment the old worker gets nothing new, and finishes its own queue. A worker whose predecessor is dead inherits the slot
//! with what waits in it. While nobody serves, newcomers wait in what a worker has left, or in a *lot*: a slot of nobody's.
//!
//! What a socket is, is the caller's business: the table moves sockets about, and tells a [`SlotGroup`] what becomes of them.

mod settle;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::settle::Quiet;
use super::full::with_room;
use crate::ids::{Position, WorkerId};
use crate::policy::PositionSet;

/// The kernel's side of a listener: its sockets, and the program that chooses among them.
pub trait SlotGroup {
    /// A socket of the group.
    type Socket;

    /// Whether the queue of a socket that is closed moves to other sockets of the group.
    fn migrates(&self) -> bool;

    /// How many connections wait in the socket.
    fn waiting(&self, socket: &Self::Socket) -> u32;

    /// Whether it listens. Its worker may have shut it down.
    fn is_listening(&self, socket: &Self::Socket) -> bool;

    /// Opens another socket that listens; nothing when the system refuses.
    fn open(&mut self) -> Option<Self::Socket>;

    /// The socket is the position's from now on.
    fn take(&mut self, position: Position, socket: &mut Self::Socket);

    /// The position has no socket any more.
    fn clear(&mut self, position: Position);

    /// What waits in the position's socket moves to others.
    fn empty(&mut self, position: Position, socket: &mut Self::Socket);

    /// The socket is closed. Where queues move, its queue moves.
    fn close(&mut self, socket: Self::Socket);

    /// Newcomers are for these positions from now on. Nobody is named while nobody serves: then newcomers wait in any socket.
    fn switch(&mut self, chosen: &PositionSet, slots: &BTreeMap<Position, Slot<Self::Socket>>);
}

/// One socket, and who accepts from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slot<S> {
    socket: S,
    /// Nobody after a crash.
    holder: Option<WorkerId>,
    /// Its holder has been gone for more than a moment: what waits moves as soon as it can.
    is_overdue: bool,
    /// Its holder has it from a dead predecessor, and does not serve yet.
    is_inherited: bool,
    /// What waits is to move, and newcomers have gone elsewhere for that long.
    moves: Option<Quiet>,
}

impl<S> Slot<S> {
    fn of(socket: S, worker: WorkerId) -> Self {
        Self {
            socket,
            holder: Some(worker),
            is_overdue: false,
            is_inherited: false,
            moves: None,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Who accepts from it.
    pub fn holder(&self) -> Option<WorkerId> {
        self.holder
    }
}

/// Where newcomers wait while nobody serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Lot {
    /// Somebody serves, or served last.
    Empty,
    /// In the slot of this position.
    At(Position),
    /// Newcomers are refused.
    Closed,
}

/// All slots of a listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlotTable<S> {
    /// The slot of each position, as the program knows it.
    active: BTreeMap<Position, Slot<S>>,
    /// Slots of workers that do not serve yet.
    pending: BTreeMap<WorkerId, Slot<S>>,
    /// Slots of workers whose successor serves.
    retired: BTreeMap<WorkerId, Slot<S>>,
    /// Those that serve.
    eligible: PositionSet,
    /// Those of them whose workers are stuck, while others are not: they get nothing.
    aside: BTreeSet<Position>,
    lot: Lot,
    /// Sockets that listen and are nobody's: the one that opened the group, for the first worker, and, where queues cannot
    /// move, those that workers have left, with what waits in them.
    spare: Vec<S>,
    /// Sockets that are nobody's and will be closed, and for how long newcomers have gone elsewhere.
    closing: Vec<(S, Quiet)>,
}

impl<S> SlotTable<S> {
    /// A listener whose one socket is `first`, which nobody accepts from yet.
    pub fn new(first: S) -> Self {
        Self {
            active: BTreeMap::new(),
            pending: BTreeMap::new(),
            retired: BTreeMap::new(),
            eligible: PositionSet::new(),
            aside: BTreeSet::new(),
            lot: Lot::Empty,
            spare: vec![first],
            closing: Vec::new(),
        }
    }

    /// The socket that is there for a worker: what its dead predecessor has left, or another that nobody accepts from. Where there
    /// is none the caller opens one, and [brings](Self::bring) it.
    pub fn find(
        &mut self,
        position: Position,
        worker: WorkerId,
        group: &mut impl SlotGroup<Socket = S>,
    ) -> Option<&mut S> {
        let is_free = |slot: &Slot<S>| slot.holder.is_none();
        if self.active.get(&position).is_some_and(is_free) {
            let slot = self.active.get_mut(&position)?;
            slot.holder = Some(worker);
            slot.is_overdue = false;
            slot.is_inherited = true;
            return Some(&mut slot.socket);
        }
        let socket = self.take_spare(group).or_else(|| self.take_orphan(group))?;
        self.bring(worker, socket, group);
        let slot = self.pending.get_mut(&worker)?;
        Some(&mut slot.socket)
    }

    /// The worker has a socket of its own, from which it will accept. What it had before is nobody's.
    pub fn bring(&mut self, worker: WorkerId, socket: S, group: &mut impl SlotGroup<Socket = S>) {
        if let Some(unused) = self.pending.insert(worker, Slot::of(socket, worker)) {
            self.release(unused, group);
        }
    }

    /// A slot that the worker has had all along, as a primary before this one has given it. Whatever the table was made around
    /// is this slot or another's.
    pub fn bring_back(
        &mut self,
        worker: WorkerId,
        socket: S,
        group: &mut impl SlotGroup<Socket = S>,
    ) {
        self.pending.insert(worker, Slot::of(socket, worker));
        for known in self.spare.drain(..) {
            group.close(known);
        }
    }

    /// The worker serves: the position's connections are its own from now on.
    pub fn serves(
        &mut self,
        position: Position,
        worker: WorkerId,
        group: &mut impl SlotGroup<Socket = S>,
    ) {
        if let Some(mut slot) = self.pending.remove(&worker) {
            group.take(position, &mut slot.socket);
            match self.active.insert(position, slot) {
                Some(old) if old.holder.is_some_and(|holder| holder != worker) => self.retire(old),
                // Its holder is dead, or has closed its socket and opened another.
                Some(old) => self.release(old, group),
                None => {}
            }
            self.aside.remove(&position);
        }
        let Some(slot) = self.active.get_mut(&position) else {
            return;
        };
        if slot.holder != Some(worker) {
            return;
        }
        slot.is_inherited = false;
        self.eligible.insert(position);
        if let Lot::At(_) = self.lot {
            self.lot = Lot::Empty;
        }
        self.switch(group);
        self.clear_overdue(group);
        self.empty_unserved(group);
        self.close_spares(group);
    }

    fn retire(&mut self, slot: Slot<S>) {
        if let Some(holder) = slot.holder {
            self.retired.insert(holder, slot);
        }
    }

    /// The worker gets nothing new from now on. True if it held its position's slot. If it was the last that served, it keeps its
    /// slot for itself, and newcomers wait in another, which its successor inherits: otherwise it would never have finished.
    pub fn excludes(
        &mut self,
        position: Position,
        worker: WorkerId,
        group: &mut impl SlotGroup<Socket = S>,
    ) -> bool {
        let held = self.withdraw(position, worker, group);
        if held && self.eligible.is_empty() && self.lot == Lot::Empty {
            self.park(position, group);
        }
        held
    }

    fn park(&mut self, position: Position, group: &mut impl SlotGroup<Socket = S>) {
        let Some(mut socket) = group.open() else {
            return;
        };
        group.take(position, &mut socket);
        let slot = Slot {
            socket,
            holder: None,
            is_overdue: true,
            is_inherited: false,
            moves: None,
        };
        if let Some(own) = self.active.insert(position, slot) {
            self.retire(own);
        }
        self.lot = Lot::At(position);
        self.switch(group);
    }

    /// The worker is gone, and its descriptors with it. What waits in its slot moves to others, where it can, when the caller
    /// [settles](Self::settle) it; otherwise it waits for the successor. True if the slot is without a holder now: a successor may inherit it, until the caller
    /// [gives it up](Self::give_up).
    pub fn gone(
        &mut self,
        position: Position,
        worker: WorkerId,
        group: &mut impl SlotGroup<Socket = S>,
    ) -> bool {
        let left = [self.retired.remove(&worker), self.pending.remove(&worker)];
        for slot in left.into_iter().flatten() {
            self.release(slot, group);
        }
        let held = self.withdraw(position, worker, group);
        if let Some(slot) = self.active.get_mut(&position).filter(|_| held) {
            slot.holder = None;
            slot.is_inherited = false;
            if !self.eligible.is_empty() && group.migrates() {
                slot.move_later();
            }
        }
        held
    }

    /// Nobody has inherited the slot for a moment: what waits in it moves to others, as soon as there are any.
    pub fn give_up(&mut self, position: Position, group: &mut impl SlotGroup<Socket = S>) {
        if let Some(slot) = self.active.get_mut(&position)
            && slot.holder.is_none()
        {
            slot.is_overdue = true;
        }
        self.clear_overdue(group);
    }

    /// These serve and are stuck, and no others: newcomers are for the rest, and so is what waits.
    pub fn set_aside(&mut self, aside: BTreeSet<Position>, group: &mut impl SlotGroup<Socket = S>) {
        if aside == self.aside {
            return;
        }
        let before = std::mem::replace(&mut self.aside, aside);
        self.switch(group);
        if !group.migrates() {
            return;
        }
        for position in self.aside.difference(&before) {
            if let Some(slot) = self.active.get_mut(position) {
                slot.move_later();
            }
        }
    }

    /// Newcomers are refused from now on.
    pub fn close_intake(&mut self) {
        self.lot = Lot::Closed;
    }

    /// Tells the group anew for whom newcomers are.
    pub fn switch(&mut self, group: &mut impl SlotGroup<Socket = S>) {
        let chosen = self.chosen();
        self.keep_where_newcomers_come(&chosen, group);
        group.switch(&chosen, &self.active);
    }

    /// Whom newcomers are for: those that serve and are not stuck, those that serve if all are stuck, or the lot.
    fn chosen(&self) -> PositionSet {
        let mut chosen = self.eligible.clone();
        if let (true, Lot::At(position)) = (chosen.is_empty(), self.lot) {
            chosen.insert(position);
        }
        with_room(&chosen, &self.aside)
    }

    fn withdraw(
        &mut self,
        position: Position,
        worker: WorkerId,
        group: &mut impl SlotGroup<Socket = S>,
    ) -> bool {
        let held = self.holds(position, worker);
        if held {
            self.aside.remove(&position);
        }
        if held && self.eligible.remove(position) {
            self.switch(group);
        }
        held
    }

    /// The slot is nobody's any more. Where its queue can move, and somebody serves to whom it can move, it is closed. Elsewhere
    /// it is kept for the next worker: to stop listening would lose what waits, refuse newcomers if no other socket listens, and,
    /// where nothing moves, renumber the sockets under the program's feet.
    fn release(&mut self, slot: Slot<S>, group: &mut impl SlotGroup<Socket = S>) {
        if group.migrates() && !self.eligible.is_empty() {
            self.close_later(slot.socket);
        } else if group.is_listening(&slot.socket) {
            self.spare.push(slot.socket);
        } else {
            group.close(slot.socket);
            self.switch(group);
        }
    }

    /// The spare socket in which most waits.
    fn take_spare(&mut self, group: &impl SlotGroup<Socket = S>) -> Option<S> {
        let waiting = |(_, socket): &(usize, &S)| group.waiting(socket);
        let (index, _) = self.spare.iter().enumerate().max_by_key(waiting)?;
        Some(self.spare.swap_remove(index))
    }

    /// A slot that another position has left and nobody inherited, with what waits in it.
    fn take_orphan(&mut self, group: &mut impl SlotGroup<Socket = S>) -> Option<S> {
        let is_orphan = |slot: &Slot<S>| slot.is_overdue && slot.holder.is_none();
        let mut active = self.active.iter();
        let (&position, _) =
            active.find(|(at, slot)| is_orphan(slot) && self.lot != Lot::At(**at))?;
        let slot = self.active.remove(&position)?;
        group.clear(position);
        Some(slot.socket)
    }

    /// Gives overdue slots away, if somebody serves to whom their queues can move. What cannot move waits for the next worker that
    /// starts.
    fn clear_overdue(&mut self, group: &mut impl SlotGroup<Socket = S>) {
        if self.eligible.is_empty() {
            return;
        }
        let overdue = self.active.iter().filter(|(_, slot)| slot.is_overdue);
        let overdue: Vec<_> = overdue.map(|(&position, _)| position).collect();
        for position in overdue {
            group.clear(position);
            if let Some(slot) = self.active.remove(&position) {
                self.release(slot, group);
            }
        }
    }

    /// What waits in slots of the dead moves, also where a successor has begun: somebody serves already.
    fn empty_unserved(&mut self, group: &impl SlotGroup<Socket = S>) {
        if !group.migrates() {
            return;
        }
        for slot in self.active.values_mut() {
            if slot.is_inherited || slot.holder.is_none() {
                slot.move_later();
            }
        }
    }

    /// Closes sockets that are nobody's, once somebody serves. What has come to them meanwhile moves to those that do.
    fn close_spares(&mut self, group: &impl SlotGroup<Socket = S>) {
        if group.migrates() && !self.eligible.is_empty() {
            for socket in std::mem::take(&mut self.spare) {
                self.close_later(socket);
            }
        }
    }

    fn holds(&self, position: Position, worker: WorkerId) -> bool {
        let slot = self.active.get(&position);
        slot.is_some_and(|slot| slot.holder == Some(worker))
    }
}
