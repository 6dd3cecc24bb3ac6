//! What others see of the slots, and may change in their sockets.

use super::{Slot, SlotTable};
use crate::ids::{Position, WorkerId};

impl<S> SlotTable<S> {
    /// The position's slot, as the program knows it.
    #[must_use]
    pub fn at(&self, position: Position) -> Option<&Slot<S>> {
        self.active.get(&position)
    }

    /// The position's socket, if the worker accepts from it.
    #[must_use]
    pub fn held(&self, position: Position, worker: WorkerId) -> Option<&S> {
        let slot = self.active.get(&position)?;
        (slot.holder == Some(worker)).then_some(&slot.socket)
    }

    /// The same, to be changed.
    pub fn held_mut(&mut self, position: Position, worker: WorkerId) -> Option<&mut S> {
        let slot = self.active.get_mut(&position)?;
        (slot.holder == Some(worker)).then_some(&mut slot.socket)
    }

    /// The socket of a worker that does not serve yet, unless it has inherited its position's.
    #[must_use]
    pub fn pending(&self, worker: WorkerId) -> Option<&S> {
        self.pending.get(&worker).map(Slot::socket)
    }

    /// The socket of a worker whose successor serves.
    #[must_use]
    pub fn retired(&self, worker: WorkerId) -> Option<&S> {
        self.retired.get(&worker).map(Slot::socket)
    }

    /// The position whose slot the worker has, and the socket.
    #[must_use]
    pub fn inherited(&self, worker: WorkerId) -> Option<(Position, &S)> {
        let mut active = self.active.iter();
        let (&position, slot) = active.find(|(_, slot)| slot.holder == Some(worker))?;
        Some((position, &slot.socket))
    }

    /// A socket of the position, or of a worker that does not serve yet or no longer.
    pub fn own_mut(
        &mut self,
        position: Position,
        is_it: impl Fn(&Slot<S>) -> bool,
    ) -> Option<&mut S> {
        let active = self.active.get_mut(&position).into_iter();
        let others = self.pending.values_mut().chain(self.retired.values_mut());
        let mut own = active.chain(others);
        own.find(|slot| is_it(slot)).map(|slot| &mut slot.socket)
    }

    /// Whether the position's worker serves.
    #[must_use]
    pub fn is_eligible(&self, position: Position) -> bool {
        self.eligible.contains(position)
    }

    /// Positions that serve, who accepts there, and the socket.
    pub fn serving(&self) -> impl Iterator<Item = (Position, &S)> {
        let eligible = |(position, _): &(&Position, &Slot<S>)| self.eligible.contains(**position);
        let serving = self.active.iter().filter(eligible);
        serving.map(|(&position, slot)| (position, &slot.socket))
    }

    /// The same, to be changed.
    pub fn serving_mut(&mut self) -> impl Iterator<Item = (Position, WorkerId, &mut S)> {
        let eligible = &self.eligible;
        self.active.iter_mut().filter_map(|(&position, slot)| {
            let holder = slot.holder.filter(|_| eligible.contains(position))?;
            Some((position, holder, &mut slot.socket))
        })
    }

    /// Those that serve and are set aside, who accepts there, and the socket; save for those whose queue is to move yet.
    pub fn aside_mut(&mut self) -> impl Iterator<Item = (Option<WorkerId>, &mut S)> {
        let aside = &self.aside;
        let active = self.active.iter_mut();
        let chosen =
            active.filter(|(position, slot)| aside.contains(position) && slot.moves.is_none());
        chosen.map(|(_, slot)| (slot.holder, &mut slot.socket))
    }

    /// Whether the position is set aside.
    #[must_use]
    pub fn is_aside(&self, position: Position) -> bool {
        self.aside.contains(&position)
    }

    /// All sockets.
    pub fn sockets(&self) -> impl Iterator<Item = &S> {
        let active = self.active.values();
        let others = self.pending.values().chain(self.retired.values());
        let held = active.chain(others).map(Slot::socket);
        let closing = self.closing.iter().map(|(socket, _)| socket);
        held.chain(&self.spare).chain(closing)
    }
}
