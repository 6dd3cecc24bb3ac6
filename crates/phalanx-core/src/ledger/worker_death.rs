//! What becomes of the connections that a dead worker was offered and has not accepted.

use super::Ledger;
use crate::ids::WorkerId;

impl<C> Ledger<C> {
    /// The worker is gone: whatever it had not accepted waits to be offered to others.
    /// Returns how many connections that were.
    pub fn worker_gone(&mut self, worker: WorkerId) -> usize {
        self.exclude(worker);
        let Some(member) = self.members.remove(&worker) else {
            return 0;
        };
        let count = member.in_flight.len();
        // Oldest first, and before those that already wait: they have waited longest.
        for offer in member.in_flight.into_values().rev() {
            self.wait_first(offer);
        }
        count
    }
}
