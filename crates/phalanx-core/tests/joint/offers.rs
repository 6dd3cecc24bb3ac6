//! The way of connections: from the kernel to workers, and back from those that do not take them.

use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::{ListenerId, Offer};
use phalanx_core::policy::ClientHash;

use crate::judge::{Owner, Verdict};
use crate::world::{Item, World};

const FORGIVE_AFTER: Duration = Duration::from_millis(50);
const TURN_PATIENCE: Duration = Duration::from_millis(25);
const LOOK: Duration = Duration::from_millis(250);

impl World {
    /// The primary reads what the worker has written.
    pub(crate) fn read_answers(&mut self, worker: WorkerId) -> Verdict {
        for (seq, accepted) in std::mem::take(&mut self.process(worker).outbox) {
            let Some(connection) = self.offers.remove(&seq) else {
                continue;
            };
            if accepted {
                self.ledger.accepted(worker, seq);
                self.connections.goes(connection, Owner::Worker(worker));
            } else if self.ledger.returned(worker, seq) {
                let listener = self.connections.owners[&connection].0;
                let is_open = self.listeners.contains_key(&listener);
                let to = if is_open {
                    Owner::Waiting
                } else {
                    Owner::Refused
                };
                self.connections.goes(connection, to);
            }
        }
        self.pump()
    }

    /// Offers what waits, then accepts what the kernel has.
    pub(crate) fn pump(&mut self) -> Verdict {
        while let Some(waiting) = self.ledger.next_waiting(&()) {
            let (worker, listener) = (waiting.worker, waiting.listener);
            let Some(offer) = self.ledger.take_waiting(waiting.index) else {
                break;
            };
            self.hand_over(worker, listener, offer)?;
        }
        if self.ledger.has_refused() {
            self.after(FORGIVE_AFTER, Item::Forgive);
        }
        let all: Vec<_> = self.listeners.keys().copied().collect();
        for listener in all {
            while !self.ledger.has_waiting(listener) && self.ledger.has_room(listener) {
                let opened = self.listeners.get_mut(&listener);
                let Some(connection) = opened.and_then(|one| one.backlog.pop_front()) else {
                    break;
                };
                let client = ClientHash::UNKNOWN;
                if let Some(worker) = self.ledger.choose(listener, client, &()) {
                    self.expect_may_have(worker, listener)?;
                    let seq = self.ledger.next_seq();
                    self.ledger.offer(listener, worker, client, connection);
                    self.delivers(worker, seq, connection);
                } else {
                    self.ledger.hold(listener, client, connection);
                    self.connections.goes(connection, Owner::Waiting);
                }
            }
            if self.ledger.awaits_turn(listener) {
                self.after(TURN_PATIENCE, Item::LosePatience);
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, worker: WorkerId, listener: ListenerId, offer: Offer<u64>) -> Verdict {
        self.expect_may_have(worker, listener)?;
        let (seq, connection) = (self.ledger.next_seq(), *offer.connection());
        self.ledger.place(worker, offer);
        self.delivers(worker, seq, connection);
        Ok(())
    }

    /// A look at who is stuck, and the recall of what they have not read.
    pub(crate) fn look_at_stuck(&mut self) -> Verdict {
        let now = Moment::after(self.now);
        self.ledger.look(now, |_| false);
        let workers: Vec<_> = self.processes.keys().copied().collect();
        for worker in workers {
            for seq in self.ledger.recallable(worker) {
                let inbox = &mut self.process(worker).inbox;
                let before = inbox.len();
                inbox.retain(|(one, _)| *one != seq);
                if inbox.len() < before
                    && self.ledger.recalled(worker, seq)
                    && let Some(connection) = self.offers.remove(&seq)
                {
                    self.connections.goes(connection, Owner::Waiting);
                }
            }
        }
        self.after(LOOK, Item::LookAtStuck);
        self.pump()
    }
}
