//! Telling a worker to leave, in the order that loses nothing: no new offers (done by the caller),
//! every offer answered (or a second waited for that), a moment for the last connection to be read,
//! then `disconnect`, once. A worker that accepts nothing just now returns its offers when it is told.
//! One without a channel is sent its stop signal instead, when nothing waits in its slots any more:
//! programs close their listener, or end, the moment they get it.
//!
//! The moment is for Node ≥ 26, which resets a connection that it accepted but had not read from when
//! it closes its server (seen: 2 of 40,000 requests without it, none with 100 ms).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use phalanx_core::ids::WorkerId;
use phalanx_core::wire::outgoing;

use super::Shared;
use super::channel::Outgoing;
use super::hub::Hub;
use super::worker::Cell;

/// How long after its last connection a worker is told to leave.
const SETTLE: Duration = Duration::from_millis(100);
/// How long it may leave offers unanswered before it is told nevertheless.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How often the queue of a worker without a channel is looked at. It has no other way to tell that it is empty.
const QUEUE_INTERVAL: Duration = Duration::from_millis(20);

enum Step {
    /// An offer is not answered yet; wait until then at most.
    Unanswered(Instant),
    /// Everything is answered; wait until then.
    Settle(Instant),
    /// Told, or gone.
    Done,
}

pub(super) fn start(shared: Weak<Shared>, cell: Arc<Cell>) {
    tokio::spawn(async move {
        let patience = phalanx_sys::clock::now() + ANSWER_LIMIT;
        loop {
            let changed = cell.changed.notified();
            let step = match shared.upgrade() {
                Some(shared) => shared.hub().drain_step(cell.id, patience),
                None => Step::Done,
            };
            match step {
                Step::Unanswered(until) => {
                    // Either way the next step finds out.
                    drop(tokio::time::timeout_at(until.into(), changed).await);
                }
                Step::Settle(until) => tokio::time::sleep_until(until.into()).await,
                Step::Done => return,
            }
        }
    });
}

impl Hub {
    fn drain_step(&mut self, worker: WorkerId, patience: Instant) -> Step {
        let in_flight = self.ledger.in_flight(worker);
        let Some(state) = self.workers.get_mut(&worker) else {
            return Step::Done;
        };
        if !state.cell.is_connected() || state.cell.was_told_to_stop() {
            return Step::Done;
        }
        let now = phalanx_sys::clock::now();
        if in_flight > 0 && patience > now {
            return Step::Unanswered(patience);
        }
        let settled = state.last_handoff.map(|last| last + SETTLE);
        if let Some(until) = settled.filter(|&until| until > now) {
            return Step::Settle(until);
        }
        let Some(channel) = state.channel.as_mut() else {
            return self.end_unbound(worker, now);
        };
        let seq = channel.next_seq();
        channel.queue(Outgoing {
            bytes: outgoing::disconnect(seq),
            handle: None,
        });
        Step::Done
    }

    /// Sends its stop signal to a worker without a channel, unless something still waits for it.
    fn end_unbound(&mut self, worker: WorkerId, now: Instant) -> Step {
        if self.waits_in_slots(worker) {
            return Step::Settle(now + QUEUE_INTERVAL);
        }
        let stopped = match self.workers.get(&worker) {
            Some(state) => state.cell.stop(),
            None => Ok(()),
        };
        if let Err(error) = stopped {
            self.error(worker, format!("cannot be asked to stop: {error}"));
        }
        Step::Done
    }
}
