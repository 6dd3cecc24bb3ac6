//! Slots whose holders are full: what gets connections instead of them.

use std::collections::BTreeSet;

use phalanx_core::ids::{Position, WorkerId};

use super::{Slot, Slots};

impl Slots {
    /// The positions whose workers are full.
    pub(super) fn full(&self) -> BTreeSet<Position> {
        let full = self.active.iter().filter(|(_, slot)| slot.is_full);
        full.map(|(&position, _)| position).collect()
    }

    /// The worker is full, or is no longer. False when it has said so before, or has no slot here.
    pub(in crate::primary) fn set_full(
        &mut self,
        position: Position,
        worker: WorkerId,
        is_full: bool,
    ) -> bool {
        let Some(slot) = self.own(position, |slot| slot.holder == Some(worker)) else {
            return false;
        };
        if std::mem::replace(&mut slot.is_full, is_full) == is_full {
            return false;
        }
        if self.eligible.contains(position) {
            self.switch();
        }
        true
    }

    /// Whether the worker serves here and has room.
    pub(in crate::primary) fn has_room(&self, position: Position, worker: WorkerId) -> bool {
        let has_room = |slot: &Slot| slot.holder == Some(worker) && !slot.is_full;
        self.eligible.contains(position)
            && !self.aside.contains(&position)
            && self.active.get(&position).is_some_and(has_room)
    }
}
