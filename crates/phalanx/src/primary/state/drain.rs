//! Telling a worker to leave, in the order that loses nothing: no new offers, every offer answered (or a second waited
//! for that), every handshake ended that had begun, a moment for the last connection to be read, then `disconnect`,
//! once. A worker that accepts nothing just now returns its offers when it is told. One without a channel is sent its
//! stop signal instead, when nothing waits in its slots any more and it has no open connection: programs close their
//! listener, or end, the moment they get it. What comes when is decided in `phalanx-core` (`dispatch/drain.rs`).

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::drain::{Drain, LOOK, Observed, Step};
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::outgoing;
use phalanx_sys::connections::{self, Handshake};

use crate::primary::Shared;
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::sockets::channel::Outgoing;
use crate::primary::state::Hub;
use crate::primary::state::intake::Intake;
use crate::primary::state::listeners::Listener;
use crate::splice::record::{Key, Of};

/// What the primary's state says of a worker that is to leave.
struct Seen {
    arriving: bool,
    queued: bool,
    unanswered: bool,
    last_connection: Option<Moment>,
    /// Where its open connections are to be counted, if it is told by its stop signal.
    counted_at: Vec<u16>,
}

/// The handshakes that were seen last. All who leave at the same time share one walk through the kernel's table: 500
/// drains with a walk each would hold up the primary for seconds.
#[derive(Debug, Default)]
pub(in crate::primary) struct SeenHandshakes {
    ports: Vec<u16>,
    seen_at: Option<Moment>,
    handshakes: Arc<BTreeSet<Handshake>>,
}

impl SeenHandshakes {
    /// What is good for somebody who was excluded at `since`.
    fn of(&self, ports: &[u16], since: Moment) -> Option<Arc<BTreeSet<Handshake>>> {
        let seen_at = self.seen_at.filter(|&at| at >= since)?;
        let is_fresh = clock::now().since(seen_at) < LOOK && self.ports == ports;
        is_fresh.then(|| Arc::clone(&self.handshakes))
    }
}

pub(in crate::primary) fn start(
    shared: Weak<Shared>,
    cell: Arc<Cell>,
    mut drain: Drain<Handshake>,
) {
    let began = clock::now();
    tokio::spawn(async move {
        while let Some(up) = shared.upgrade() {
            let handshakes = handshakes(&up, &cell, began);
            let Some(seen) = up.hub().seen(&cell) else {
                return;
            };
            let now = clock::now();
            match drain.step(&seen.observed(&cell, &handshakes, now), now - began) {
                Step::Exclude => {
                    let mut hub = up.hub();
                    hub.exclude(cell.id);
                    hub.pump();
                }
                Step::Tell => return tell(&up, &cell),
                Step::Look { at } => {
                    drop(up);
                    clock::sleep_until(began + at).await;
                }
            }
        }
    });
}

impl Seen {
    fn observed<'a>(
        &self,
        cell: &Cell,
        handshakes: &'a BTreeSet<Handshake>,
        now: Moment,
    ) -> Observed<'a, Handshake> {
        // They are counted at some cost, and matter only when nothing else is left.
        let is_counted = !self.queued && !self.arriving;
        Observed {
            arriving: self.arriving,
            queued: self.queued,
            handshakes,
            unanswered: self.unanswered,
            since_connection: self.last_connection.map(|at| now.since(at)),
            open: if is_counted {
                open_connections(cell, &self.counted_at)
            } else {
                0
            },
        }
    }
}

/// What cannot be found out must not hold up a drain.
fn handshakes(shared: &Shared, cell: &Cell, since: Moment) -> Arc<BTreeSet<Handshake>> {
    let ports = {
        let hub = shared.hub();
        let ports = hub.arrival_ports(cell.id);
        if let Some(seen) = hub.seen_handshakes.of(&ports, since) {
            return seen;
        }
        ports
    };
    let seen_at = clock::now();
    let handshakes = connections::handshakes(&ports).unwrap_or_else(|error| {
        tracing::debug!(worker = cell.id.0, %error, "handshakes cannot be seen");
        BTreeSet::new()
    });
    let handshakes = Arc::new(handshakes);
    shared.hub().seen_handshakes = SeenHandshakes {
        ports,
        seen_at: Some(seen_at),
        handshakes: Arc::clone(&handshakes),
    };
    handshakes
}

/// Its open connections to these ports.
fn open_connections(cell: &Cell, ports: &[u16]) -> usize {
    connections::open_connections(cell.pid, ports).unwrap_or_else(|error| {
        tracing::debug!(worker = cell.id.0, %error, "its connections cannot be counted");
        0
    })
}

fn tell(shared: &Shared, cell: &Cell) {
    if shared.hub().tell_to_leave(cell.id) {
        return;
    }
    if let Err(error) = cell.stop() {
        let message = format!("cannot be asked to stop: {error}");
        shared.hub().error(cell.id, message);
    }
}

impl Hub {
    /// Nothing when it leaves no more: it is gone, or was told otherwise.
    fn seen(&self, cell: &Cell) -> Option<Seen> {
        let worker = cell.id;
        let state = self.workers.get(&worker)?;
        if !cell.is_connected() || cell.was_told_to_stop() {
            return None;
        }
        Some(Seen {
            arriving: self.has_arrivals(worker),
            queued: self.waits_in_slots(worker),
            unanswered: self.ledger.in_flight(worker) > 0,
            last_connection: state.last_handoff,
            counted_at: if state.channel.is_some() {
                Vec::new()
            } else {
                self.counted_at(worker)
            },
        })
    }

    /// Where a worker without a channel must have finished before its stop signal.
    fn counted_at(&self, worker: WorkerId) -> Vec<u16> {
        let mut ports = Vec::new();
        for (_, listener) in self.held_by(worker) {
            // From a shared socket it accepts until it stops, so it may never have finished.
            let is_closed = self.intake == Intake::Refused && listener.can_refuse();
            if listener.carrier.slots().is_none() && !is_closed {
                return Vec::new();
            }
            ports.extend(listener.address.inet().map(|address| address.port()));
        }
        ports
    }

    /// The listeners that this worker holds.
    pub(in crate::primary) fn held_by(
        &self,
        worker: WorkerId,
    ) -> impl Iterator<Item = (ListenerId, &Listener)> {
        let held = self.machine.held(worker);
        held.filter_map(|(_, held)| Some((held.listener, self.listeners.get(&held.listener)?)))
    }

    /// Tells a worker by its channel. False when it has none.
    fn tell_to_leave(&mut self, worker: WorkerId) -> bool {
        let limits = self.drain_limits;
        let Some(channel) = self.channel_mut(worker) else {
            return false;
        };
        let seq = channel.next_seq();
        channel.queue(Outgoing {
            bytes: outgoing::disconnect(seq, limits),
            handle: None,
        });
        channel.release_hold();
        self.keeping.put(Key::Worker(worker.0, Of::Left));
        true
    }
}
