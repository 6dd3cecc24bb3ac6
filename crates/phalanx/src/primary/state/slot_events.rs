//! What happens to workers, told to the slots of the listeners they serve.

use std::time::Duration;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;

use crate::primary::mailbox::{Alarm, Until};
use crate::primary::sockets::slots::Slots;
use crate::primary::state::Hub;
use crate::primary::tasks::timer;

/// How long a slot without a holder waits for a successor that inherits it.
const MOMENT: Duration = Duration::from_millis(300);
/// How long newcomers have gone elsewhere at least when a socket stops listening: longer than a handshake on one machine or in one
/// network takes. Who comes from farther away loses nothing either, but in the instant that the core's `slots` describes.
const QUIET: Duration = Duration::from_millis(10);

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
        self.settle_slots_later(id);
    }

    /// Sockets of the listener that are to stop listening do so in a moment.
    pub(in crate::primary) fn settle_slots_later(&mut self, id: ListenerId) {
        let listener = self.listeners.get_mut(&id);
        let slots = listener.and_then(|listener| listener.carrier.slots_mut());
        if slots.is_some_and(Slots::begins_to_settle) {
            timer::ring(self.mailbox(), Until::Later(QUIET), Alarm::Settle(id));
        }
    }

    /// The moment has passed. When the next one has, if there is more.
    pub(super) fn settle_slots(&mut self, id: ListenerId) -> Option<Until> {
        let slots = self.listeners.get_mut(&id)?.carrier.slots_mut()?;
        slots.settle().then_some(Until::Later(QUIET))
    }

    /// Nobody has inherited the slot.
    pub(super) fn give_up_slot(&mut self, id: ListenerId, position: Position) {
        if let Some(listener) = self.listeners.get_mut(&id)
            && let Some(slots) = listener.carrier.slots_mut()
        {
            slots.give_up(position);
        }
        self.settle_slots_later(id);
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
