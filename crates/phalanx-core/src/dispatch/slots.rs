//! The slots of one listener: a listening socket for each position, and who accepts from it.
//!
//! INVARIANTS
//! - As long as the listener lives, one of its sockets listens: nobody is refused, whoever dies and in whatever order.
//! - What waits in a socket is served: by the worker that accepts from it, by the one that inherits it after a crash, or by
//!   those to whom it moves.
//! - Newcomers go to workers that serve, as long as there is one.
//! - Where queues move, a socket stops listening only after newcomers have gone elsewhere for a moment. Who stops it in the very
//!   instant in which a handshake ends loses that connection: the kernel decides whether the connection moves (`tcp_v4_rcv`)
//!   before it puts it into the queue, and resets it if the socket does not listen by then (`inet_csk_reqsk_queue_add`, Linux 6.18).
//!
//! A worker whose predecessor still lives gets a slot of its own. It becomes the position's slot when the worker serves; from
//! that moment the old worker gets nothing new, and finishes its own queue. A worker whose predecessor is dead inherits the slot
//! with what waits in it. While nobody serves, newcomers wait in what a worker has left, or in a *lot*: a slot of nobody's.
//!
//! What a socket is, is the caller's business: the table moves sockets about, and tells a [`SlotGroup`] what becomes of them.

mod settle;
mod views;
mod worker_death;

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

    /// What waits in the socket moves to others. It is this position's, or nobody's whom newcomers are for.
    fn empty(&mut self, position: Option<Position>, socket: &mut Self::Socket);

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
    /// What waits is to move; for how long newcomers have gone elsewhere.
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
    /// Whom newcomers are for, as the group was told last.
    told: PositionSet,
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
            told: PositionSet::new(),
        }
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

    /// These serve and are stuck, and no others: newcomers are for the rest, and so is what waits.
    pub fn set_aside(&mut self, aside: BTreeSet<Position>, group: &mut impl SlotGroup<Socket = S>) {
        if aside == self.aside {
            return;
        }
        self.aside = aside;
        self.switch(group);
    }

    /// Newcomers are refused from now on.
    pub fn close_intake(&mut self) {
        self.lot = Lot::Closed;
    }

    /// Tells the group anew for whom newcomers are.
    pub fn switch(&mut self, group: &mut impl SlotGroup<Socket = S>) {
        let chosen = self.chosen();
        self.follow_newcomers(&chosen, group);
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

    fn holds(&self, position: Position, worker: WorkerId) -> bool {
        let slot = self.active.get(&position);
        slot.is_some_and(|slot| slot.holder == Some(worker))
    }
}
