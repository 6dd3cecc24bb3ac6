//! Slots whose holders are full: what gets connections instead of them.

use phalanx_core::ids::{Position, WorkerId};

use super::Slots;

impl Slots {
    /// The worker is full, or is no longer. False when it has said so before, or has no slot here.
    pub(in crate::primary) fn set_full(
        &mut self,
        position: Position,
        worker: WorkerId,
        is_full: bool,
    ) -> bool {
        let Some(slot) = self.own_of(position, worker) else {
            return false;
        };
        if std::mem::replace(&mut slot.is_full, is_full) == is_full {
            return false;
        }
        if self.table.is_eligible(position) {
            self.table.switch(&mut self.group);
        }
        true
    }

    /// Whether the worker serves here and has room.
    pub(in crate::primary) fn has_room(&self, position: Position, worker: WorkerId) -> bool {
        let held = self.table.held(position, worker);
        self.table.is_eligible(position)
            && !self.table.is_aside(position)
            && held.is_some_and(|slot| !slot.is_full)
    }
}
