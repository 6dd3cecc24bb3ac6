//! What becomes of a dead worker's slot, and of the connections that wait in it: a successor inherits them, or they move to
//! workers that serve.

use super::{Lot, Slot, SlotGroup, SlotTable};
use crate::ids::{Position, WorkerId};

impl<S> SlotTable<S> {
    /// The worker is gone, and its descriptors with it. What waits in its slot moves to others, where it can, when the caller
    /// [settles](Self::settle) it; otherwise it waits for the successor. True if the slot is without a holder now: a successor may
    /// inherit it, until the caller [gives it up](Self::give_up).
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

    /// The slot is nobody's any more. Where its queue can move, and somebody serves to whom it can move, it is closed. Elsewhere
    /// it is kept for the next worker: to stop listening would lose what waits, refuse newcomers if no other socket listens, and,
    /// where nothing moves, renumber the sockets under the program's feet.
    pub(super) fn release(&mut self, slot: Slot<S>, group: &mut impl SlotGroup<Socket = S>) {
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

    /// Gives overdue slots up, if somebody serves to whom their queues can move. What cannot move waits for the next worker that
    /// starts.
    pub(super) fn clear_overdue(&mut self, group: &mut impl SlotGroup<Socket = S>) {
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

    /// What waits in slots of the dead moves, also where a successor has begun: somebody serves already. So does what waits in a
    /// slot that a worker has from nobody.
    pub(super) fn empty_unserved(&mut self, group: &impl SlotGroup<Socket = S>) {
        if !group.migrates() {
            return;
        }
        let active = self.active.values_mut().filter(|slot| slot.is_unserved());
        let unserved = active.chain(self.pending.values_mut());
        unserved.for_each(Slot::move_later);
    }

    /// Closes sockets that are nobody's, once somebody serves. What has come to them meanwhile moves to those that do.
    pub(super) fn close_spares(&mut self, group: &impl SlotGroup<Socket = S>) {
        if group.migrates() && !self.eligible.is_empty() {
            for socket in std::mem::take(&mut self.spare) {
                self.close_later(socket);
            }
        }
    }
}
