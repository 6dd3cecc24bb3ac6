//! The cluster's listeners: opened for the first worker that asks (`open.rs`), kept while workers come and go,
//! closed when they are wanted no more.
//!
//! INVARIANT: a listener belongs to the app. It outlives a worker that crashes, drains or closes its server, so what
//! waits in its queue is served by a successor. It closes when the fleet has settled without anybody using it, when
//! the workers that serve have done without for long enough (`abandoned.rs`), or with the cluster.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::Policy;
use phalanx_core::wire::{SocketName, Target};
use serde_json::Value;

use crate::address::Address;
use crate::primary::sockets::listening::OwnFile;
use crate::primary::sockets::slots::Slots;
use crate::primary::state::Hub;
use crate::primary::state::dispatch::Handed;
use crate::splice::record::Key;

/// Whose the socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Owner {
    /// The app's: the primary has opened it.
    App,
    /// Another's, who goes on using it: the primary was started with it.
    Other,
}

impl Owner {
    pub(super) fn of(target: &Target) -> Self {
        match target {
            Target::Descriptor(_) | Target::DatagramDescriptor(_) => Self::Other,
            Target::Tcp { .. }
            | Target::UnixPath { .. }
            | Target::UnixAbstract(_)
            | Target::Udp { .. } => Self::App,
        }
    }
}

#[derive(Debug)]
pub(in crate::primary) struct Listener {
    pub(in crate::primary) key: String,
    pub(in crate::primary) address: Address,
    /// The port that workers ask for, where the listener is published on another.
    pub(in crate::primary) asked_port: Option<u16>,
    pub(in crate::primary) udp: bool,
    /// By what its connections reach the workers.
    pub(in crate::primary) carrier: Carrier<Handed, Arc<OwnedFd>, Slots>,
    /// Why they reach them so.
    pub(in crate::primary) because: String,
    /// What the first TLS worker gave: every other gets the same.
    pub(in crate::primary) data: Value,
    /// The primary opened it by itself, and keeps it open by itself.
    /// As what it was to be opened.
    pub(in crate::primary) bound: Option<Target>,
    /// The fixed part of its `newconn` lines.
    pub(in crate::primary) newconn: Vec<u8>,
    pub(in crate::primary) owner: Owner,
    /// The file of a Unix listener with a path.
    pub(in crate::primary) file: Option<OwnFile>,
}

impl Listener {
    /// Its socket, where it has one: accepted from by the primary, or sent to workers.
    pub(in crate::primary) fn one_socket(&self) -> Option<&Arc<OwnedFd>> {
        match &self.carrier {
            Carrier::Handoff(handed) => Some(&handed.socket),
            Carrier::Shared(socket) => Some(socket),
            Carrier::Kernel(_) => None,
        }
    }

    /// The address as status shows it.
    pub(in crate::primary) fn display(&self) -> String {
        if self.udp {
            format!("udp:{}", self.address)
        } else {
            self.address.to_string()
        }
    }

    pub(in crate::primary) fn sockname(&self) -> Option<SocketName> {
        let address = self.address.inet()?;
        Some(SocketName {
            address: address.ip().to_string(),
            family: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
            port: self.asked_port.unwrap_or(address.port()),
        })
    }
}

impl Hub {
    /// The policy for a listener whose connections are handed over.
    pub(in crate::primary) fn make_policy(&self, id: ListenerId) -> Box<dyn Policy> {
        match &self.custom_policy {
            Some(own) => own(),
            None => self.policy.create_with(&self.weights, u64::from(id.0)),
        }
    }

    /// How many live workers serve it.
    pub(in crate::primary) fn users(&self, id: ListenerId) -> u32 {
        u32::try_from(self.machine.holders(id).count()).unwrap_or(u32::MAX)
    }

    /// The listeners that no live worker has, in the order of opening.
    pub(in crate::primary) fn unserved(&self) -> Vec<ListenerId> {
        let used = self.machine.all_held();
        let all = self.listeners.keys().copied();
        all.filter(|id| !used.contains(id) && !self.is_bound(*id))
            .collect()
    }

    /// The app has ended: closes all of them, and lets newcomers in again.
    pub(in crate::primary) fn close_listeners(&mut self) {
        self.let_newcomers_in();
        let all: Vec<_> = self.listeners.keys().copied().collect();
        for id in all {
            self.close_listener(id);
        }
    }

    pub(in crate::primary) fn close_listener(&mut self, id: ListenerId) {
        self.fold_listener(id);
        if let Some(listener) = self.listeners.remove(&id) {
            tracing::debug!(address = %listener.address, "listener closed");
            self.keeping.drop(Key::Listener(listener.key));
            drop(self.ledger.remove_listener(id));
        }
    }
}
