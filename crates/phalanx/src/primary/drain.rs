//! Telling a worker to leave, in the order that loses nothing: no new offers (done by the caller),
//! every offer answered (or a second waited for that), a moment for the last connection to be read,
//! then `disconnect`, once. A worker that accepts nothing just now returns its offers when it is told.
//! One without a channel is sent its stop signal instead, when nothing waits in its slots any more and
//! it has no open connection: programs close their listener, or end, the moment they get it.
//!
//! The moment is for Node ≥ 26, which resets a connection that it accepted but had not read from when
//! it closes its server (seen: 2 of 40,000 requests without it, none with 100 ms).

use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::outgoing;

use super::Shared;
use super::channel::Outgoing;
use super::clock;
use super::hub::Hub;
use super::worker::Cell;

/// How long after its last connection a worker is told to leave.
const SETTLE: Duration = Duration::from_millis(100);
/// How long it may leave offers unanswered before it is told nevertheless.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How often a worker without a channel is looked at. It has no other way to tell that it has finished.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A connection is nowhere to be seen for a moment while it is being accepted, so one look is not enough.
const QUIET_LOOKS: u32 = 2;

enum Step {
    /// An offer is not answered yet; wait until then at most.
    Unanswered(Moment),
    /// Everything is answered; wait until then.
    Settle(Moment),
    /// No channel and an empty queue: it may be told when it has no connection to these ports.
    Quieten(Vec<u16>),
    /// Told, or gone.
    Done,
}

pub(super) fn start(shared: Weak<Shared>, cell: Arc<Cell>) {
    tokio::spawn(async move {
        let began = clock::now();
        let patience = began + ANSWER_LIMIT;
        let mut quiet_looks = 0;
        loop {
            let changed = cell.changed.notified();
            let step = match shared.upgrade() {
                Some(shared) => shared.hub().drain_step(cell.id, patience),
                None => Step::Done,
            };
            match step {
                Step::Unanswered(until) => {
                    // Either way the next step finds out.
                    clock::timeout_at(until, changed).await;
                }
                Step::Settle(until) => clock::sleep_until(until).await,
                Step::Quieten(ports) => {
                    let now = clock::now();
                    let is_late = now >= began + cell.settle_timeout;
                    quiet_looks = if is_quiet(&cell, &ports) {
                        quiet_looks + 1
                    } else {
                        0
                    };
                    if is_late || quiet_looks >= QUIET_LOOKS {
                        return stop(&shared, &cell);
                    }
                    clock::sleep_until(now + LOOK_INTERVAL).await;
                }
                Step::Done => return,
            }
        }
    });
}

/// Has it no open connection to these ports? What cannot be found out must not hold up a drain.
fn is_quiet(cell: &Cell, ports: &[u16]) -> bool {
    let open = phalanx_sys::connections::open_connections(cell.pid, ports);
    open.unwrap_or_else(|error| {
        tracing::debug!(worker = cell.id.0, %error, "its connections cannot be counted");
        0
    }) == 0
}

fn stop(shared: &Weak<Shared>, cell: &Cell) {
    if let (Err(error), Some(shared)) = (cell.stop(), shared.upgrade()) {
        let message = format!("cannot be asked to stop: {error}");
        shared.hub().error(cell.id, message);
    }
}

impl Hub {
    fn drain_step(&mut self, worker: WorkerId, patience: Moment) -> Step {
        let limits = self.drain_limits;
        let in_flight = self.ledger.in_flight(worker);
        let Some(state) = self.workers.get_mut(&worker) else {
            return Step::Done;
        };
        if !state.cell.is_connected() || state.cell.was_told_to_stop() {
            return Step::Done;
        }
        let now = clock::now();
        if in_flight > 0 && patience > now {
            return Step::Unanswered(patience);
        }
        let settled = state.last_handoff.map(|last| last + SETTLE);
        if let Some(until) = settled.filter(|&until| until > now) {
            return Step::Settle(until);
        }
        let Some(channel) = state.channel.as_mut() else {
            return self.quieten(worker, now);
        };
        let seq = channel.next_seq();
        channel.queue(Outgoing {
            bytes: outgoing::disconnect(seq, limits),
            handle: None,
        });
        Step::Done
    }

    /// What a worker without a channel has to finish before its stop signal.
    fn quieten(&self, worker: WorkerId, now: Moment) -> Step {
        if self.waits_in_slots(worker) {
            return Step::Settle(now + LOOK_INTERVAL);
        }
        let mut ports = Vec::new();
        let held = self.workers.get(&worker).map(|state| &state.held);
        for held in held.into_iter().flat_map(|held| held.values()) {
            let Some(listener) = self.listeners.get(&held.listener) else {
                continue;
            };
            // From a shared socket it accepts until it stops, so it may never have finished.
            if listener.slots.is_none() {
                return Step::Quieten(Vec::new());
            }
            ports.extend(listener.address.inet().map(|address| address.port()));
        }
        Step::Quieten(ports)
    }
}
