//! What happens to workers, told to the slots of the listeners they serve.

use std::time::Duration;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;

use crate::primary::mailbox::{Alarm, Until};
use crate::primary::state::Hub;
use crate::primary::tasks::timer;

/// How long a slot without a holder waits for a successor that inherits it.
const MOMENT: Duration = Duration::from_millis(300);

impl Hub {
    /// The worker gets nothing new from any listener. True if a slot was its own.
    pub(in crate::primary) fn exclude_from_slots(&mut self, worker: WorkerId) -> bool {
        let Some(position) = self.workers.get(&worker).map(|state| state.cell.position()) else {
            return false;
        };
        let mut any = false;
        for listener in self.listeners.values_mut() {
            if let Some(slots) = listener.carrier.slots_mut() {
                any |= slots.excludes(position, worker);
            }
        }
        any
    }

    /// The worker has closed its descriptors of all slots.
    pub(in crate::primary) fn gone_from_slots(&mut self, worker: WorkerId) {
        let ids: Vec<_> = self.listeners.keys().copied().collect();
        for id in ids {
            self.slot_lost(id, worker);
        }
    }

    /// The worker has closed its descriptor of this listener's slot.
    pub(in crate::primary) fn slot_lost(&mut self, id: ListenerId, worker: WorkerId) {
        let Some(position) = self.workers.get(&worker).map(|state| state.cell.position()) else {
            return;
        };
        let slots = self
            .listeners
            .get_mut(&id)
            .and_then(|listener| listener.carrier.slots_mut());
        if slots.is_some_and(|slots| slots.gone(position, worker)) {
            let alarm = Alarm::SlotUnheld(id, position);
            timer::ring(self.mailbox(), Until::Later(MOMENT), alarm);
        }
    }

    /// Nobody has inherited the slot.
    pub(super) fn give_up_slot(&mut self, id: ListenerId, position: Position) {
        if let Some(listener) = self.listeners.get_mut(&id)
            && let Some(slots) = listener.carrier.slots_mut()
        {
            slots.give_up(position);
        }
    }

    /// Does a connection wait in a slot of this worker, which nobody but it accepts?
    pub(in crate::primary) fn waits_in_slots(&self, worker: WorkerId) -> bool {
        let Some(position) = self.workers.get(&worker).map(|state| state.cell.position()) else {
            return false;
        };
        let mut slots = self
            .listeners
            .values()
            .filter_map(|listener| listener.carrier.slots());
        slots.any(|slots| slots.waiting(position, worker) > 0)
    }
}
