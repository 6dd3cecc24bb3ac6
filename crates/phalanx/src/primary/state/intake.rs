//! The end of the intake: when the app stops, newcomers are refused first, while what has arrived is served.
//!
//! A listener that is lent to the app (it was started with it, as under systemd's socket activation) is left as it is:
//! its owner goes on using it, and who connects waits for the next start.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use phalanx_core::dispatch::drain::{Drain, Voice};
use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ids::WorkerId;
use phalanx_sys::connections::Handshake;
use phalanx_sys::socket;

use crate::primary::state::Hub;
use crate::primary::state::listeners::{Listener, Owner};

/// For so long, what has arrived is taken, where workers may take as long as they like to leave.
pub(in crate::primary) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether newcomers are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::primary) enum Intake {
    #[default]
    Open,
    /// The app stops.
    Refused,
}

impl Listener {
    /// Newcomers can be refused, and what has arrived comes to an end.
    pub(in crate::primary) fn can_refuse(&self) -> bool {
        !self.udp && self.owner == Owner::App
    }

    fn refuse_newcomers(&mut self) {
        if !self.can_refuse() {
            return;
        }
        // Nobody finds a Unix socket by its path any more.
        drop(self.file.take());
        if self.address.inet().is_none() {
            return;
        }
        let sockets = match &mut self.carrier {
            Carrier::Handoff(handed) => vec![&handed.socket],
            Carrier::Shared(socket) => vec![&*socket],
            Carrier::Kernel(slots) => slots.close_intake().collect(),
        };
        for socket in sockets {
            if let Err(error) = socket::refuse_newcomers(socket.as_fd()) {
                // They wait until the workers are gone, as on every kernel before 5.0.
                tracing::debug!(%error, address = %self.address, "newcomers cannot be refused");
            }
        }
    }

    /// Does a connection wait that the primary or any worker may accept?
    fn has_arrivals(&self) -> bool {
        let waits = |socket: &OwnedFd| socket::is_awaited(socket.as_fd()).unwrap_or(false);
        match &self.carrier {
            Carrier::Handoff(handed) => waits(&handed.socket) || handed.has_former_arrivals(),
            Carrier::Shared(socket) => waits(socket),
            // What has waited for another may be about to come.
            Carrier::Kernel(slots) => !slots.is_settled(),
        }
    }
}

impl Hub {
    /// Whoever connects from now on is refused.
    pub(in crate::primary) fn refuse_newcomers(&mut self) {
        self.intake = Intake::Refused;
        for listener in self.listeners.values_mut() {
            listener.refuse_newcomers();
        }
    }

    /// Whoever connects from now on is let in.
    pub(super) fn let_newcomers_in(&mut self) {
        self.intake = Intake::Open;
    }

    /// Lets a worker begin to leave: it is excluded at once, unless all leave and there is something to take first.
    pub(in crate::primary) fn begin_drain(&mut self, worker: WorkerId) -> Option<Drain<Handshake>> {
        let state = self.workers.get(&worker)?;
        let settle = state.cell.settle_timeout;
        let (voice, patience) = if state.channel.is_some() {
            (Voice::Channel, self.leave_limit())
        } else {
            (Voice::Signal { patience: settle }, settle)
        };
        Some(match self.intake {
            Intake::Open => {
                self.exclude(worker);
                self.pump();
                Drain::excluded(voice, self.time())
            }
            Intake::Refused => Drain::with_all(voice, patience, self.time()),
        })
    }

    /// Does a connection wait that this worker may get, at a listener that lets no newcomers in?
    pub(in crate::primary) fn has_arrivals(&self, worker: WorkerId) -> bool {
        if self.intake == Intake::Open {
            return false;
        }
        self.held_by(worker)
            .filter(|(_, listener)| listener.can_refuse())
            .any(|(id, listener)| self.ledger.has_waiting(id) || listener.has_arrivals())
    }

    /// The TCP ports at which a connection that comes to this worker may begin: those of its slots, and those where
    /// it is served what has arrived.
    pub(in crate::primary) fn arrival_ports(&self, worker: WorkerId) -> Vec<u16> {
        let stops = self.intake == Intake::Refused;
        self.held_by(worker)
            .filter(|(_, listener)| {
                listener.carrier.slots().is_some() || stops && listener.can_refuse()
            })
            .filter_map(|(_, listener)| Some(listener.address.inet()?.port()))
            .collect()
    }
}
