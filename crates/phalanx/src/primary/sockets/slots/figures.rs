//! What is known of slots: connections that were given, and that wait.

use std::os::fd::AsFd;

use phalanx_core::dispatch::slots::{Slot, SlotGroup as _};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::socket;

use super::{SlotSocket, Slots};

impl Slots {
    /// Connections that were given to this worker; nothing where nobody counts them.
    pub(in crate::primary) fn connections(
        &self,
        position: Position,
        worker: WorkerId,
    ) -> Option<u64> {
        let received = self.group.received(position)?;
        let held = self.table.held(position, worker);
        Some(held.map_or(0, |slot| received.saturating_sub(slot.base_count)))
    }

    /// Whether the worker has taken a connection from its slot; not where nobody counts them.
    pub(in crate::primary) fn has_taken(&self, position: Position, worker: WorkerId) -> bool {
        let given = self.connections(position, worker);
        given.is_some_and(|given| given > u64::from(self.waiting(position, worker)))
    }

    /// Connections that were chosen for this position, and how many wait in its slot. What moved here from another slot was
    /// counted there.
    pub(in crate::primary) fn figures(&self, position: Position) -> (Option<u64>, Option<u32>) {
        let slot = self.table.at(position).map(Slot::socket);
        let waits = |slot: &SlotSocket| socket::queue_length(slot.socket.as_fd()).ok();
        (self.group.steer.chosen(position), slot.and_then(waits))
    }

    /// How many connections wait in the worker's slot.
    pub(in crate::primary) fn waiting(&self, position: Position, worker: WorkerId) -> u32 {
        let held = self.table.held(position, worker);
        let own = held.or_else(|| self.table.retired(worker));
        // A slot that cannot be asked must not hold up a drain.
        own.map_or(0, |slot| self.group.waiting(slot))
    }

    /// What connections are distributed by, where that is not the policy.
    pub(in crate::primary) fn drawn_by(&self) -> Option<&'static str> {
        self.group.steer.drawn_by(self.group.plan.policy())
    }
}
