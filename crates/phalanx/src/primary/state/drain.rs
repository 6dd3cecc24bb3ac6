//! Telling a worker to leave, in the order that loses nothing: no new offers, every offer answered (or a second waited
//! for that), every handshake ended that had begun, a moment for the last connection to be read, then `disconnect`,
//! once. A worker that accepts nothing just now returns its offers when it is told. One without a channel is sent its
//! stop signal instead, when nothing waits in its slots any more and it has no open connection: programs close their
//! listener, or end, the moment they get it. What comes when is decided in `phalanx-core` (`dispatch/drain.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::drain::{LOOK, Observed};
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::outgoing;
use phalanx_sys::connections::Handshake;
use phalanx_sys::signal::Signal;

use crate::primary::clock;
use crate::primary::mailbox::{Arrivals, Leaver};
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;
use crate::primary::state::intake::Intake;
use crate::primary::state::listeners::Listener;
use crate::primary::tasks;
use crate::splice::record::{Key, Of};

/// The handshakes that were seen last. All who leave at the same time share one walk through the kernel's table: 500
/// drains with a walk each would take seconds.
#[derive(Debug, Default)]
pub(in crate::primary) struct SeenHandshakes {
    ports: Vec<u16>,
    /// When the walk began, and when it ended.
    seen: Option<(Moment, Moment)>,
    handshakes: Arc<BTreeSet<Handshake>>,
    walk: Arc<tokio::sync::Mutex<()>>,
}

impl SeenHandshakes {
    /// What is good for somebody who was excluded at `since`.
    fn of(&self, ports: &[u16], since: Moment) -> Option<Arc<BTreeSet<Handshake>>> {
        let (_, ended) = self.seen.filter(|&(began, _)| began >= since)?;
        // What has ended since the walk is taken for a handshake a little longer, and costs the drain a look.
        let is_fresh = clock::now().since(ended) < LOOK && self.ports == ports;
        is_fresh.then(|| Arc::clone(&self.handshakes))
    }
}

impl Hub {
    /// Asks a worker to leave, in the order that loses nothing.
    pub(in crate::primary) fn depart(&mut self, worker: WorkerId) {
        if let Some(drain) = self.begin_drain(worker) {
            let now = self.time();
            let effects = self.machine.departs(worker, drain, now);
            self.carry_out(effects);
            self.let_go_on(worker);
        }
    }

    /// One that a signal has stopped could not leave: it is continued.
    fn let_go_on(&self, worker: WorkerId) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        if self.hang.is_stopped(worker) {
            let id = worker.0;
            tracing::info!(
                worker = id,
                "worker {id} was stopped, and is continued to leave"
            );
            if let Err(error) = state.cell.signal(Signal::CONT) {
                tracing::debug!(worker = id, %error, "cannot be continued");
            }
        }
    }

    pub(super) fn look_at_leaver(&self, worker: WorkerId, at: Moment) {
        if let Some(state) = self.workers.get(&worker) {
            tasks::drain::look_at(self.mailbox(), Arc::clone(&state.cell), at);
        }
    }

    pub(super) fn arrivals(&self, worker: WorkerId) -> Option<Arrivals> {
        let since = self.epoch + self.machine.departs_since(worker)?;
        let ports = self.arrival_ports(worker);
        let handshakes = self.seen_handshakes.of(&ports, since);
        let walk = Arc::clone(&self.seen_handshakes.walk);
        Some(Arrivals {
            ports,
            handshakes,
            walk,
        })
    }

    pub(super) fn handshakes_seen(
        &mut self,
        ports: Vec<u16>,
        began: Moment,
        handshakes: Arc<BTreeSet<Handshake>>,
    ) {
        let seen = &mut self.seen_handshakes;
        seen.ports = ports;
        seen.seen = Some((began, clock::now()));
        seen.handshakes = handshakes;
    }

    pub(super) fn leaver(&self, worker: WorkerId) -> Option<Leaver> {
        let state = self.workers.get(&worker)?;
        if !state.cell.is_connected() || state.cell.was_told_to_stop() {
            return None;
        }
        Some(Leaver {
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

    pub(super) fn sees_leaver(
        &mut self,
        worker: WorkerId,
        leaver: &Leaver,
        handshakes: &BTreeSet<Handshake>,
        open: usize,
    ) {
        let now = clock::now();
        let observed = Observed {
            arriving: leaver.arriving,
            queued: leaver.queued,
            handshakes,
            unanswered: leaver.unanswered,
            since_connection: leaver.last_connection.map(|at| now.since(at)),
            open,
        };
        let workers = &self.workers;
        let standing = |worker| workers.get(&worker).map(|state| state.cell.stands());
        let now = now - self.epoch;
        let effects = self.machine.sees_leaver(worker, &observed, now, &standing);
        self.carry_out(effects);
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

    /// Tells a worker to leave: by its channel, or else by its stop signal.
    pub(super) fn tell_to_leave(&mut self, worker: WorkerId) {
        let limits = self.drain_limits;
        if let Some(channel) = self.channel_mut(worker) {
            let seq = channel.next_seq();
            channel.queue(Outgoing {
                bytes: outgoing::disconnect(seq, limits),
                handle: None,
            });
            if let Some(splice) = &mut channel.splice {
                splice.release_hold();
            }
            self.keeping.put(Key::Worker(worker.0, Of::Left));
            return;
        }
        let stopped = self.workers.get(&worker).map(|state| state.cell.stop());
        if let Some(Err(error)) = stopped {
            self.error(worker, format!("cannot be asked to stop: {error}"));
        }
    }
}
