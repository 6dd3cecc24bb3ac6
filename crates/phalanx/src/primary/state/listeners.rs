//! The cluster's listeners: opened for the first worker that asks, kept while workers come and go,
//! closed when they are wanted no more.
//!
//! INVARIANT: a listener belongs to the app. It outlives a worker that crashes, drains or closes its server, so what
//! waits in its queue is served by a successor. It closes when the fleet has settled without anybody using it, when
//! the workers that serve have done without for long enough (`abandoned.rs`), or with the cluster.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::Policy;
use phalanx_core::wire::{ListenRequest, SocketName, Target, outgoing};
use phalanx_sys::socket::TcpOptions;
use serde_json::Value;

use crate::address::Address;
use crate::primary::sockets::slots::Slots;
use crate::primary::state::Hub;
use crate::primary::state::choice::{self, on_address};
use crate::primary::state::dispatch::Handed;
use crate::primary::state::intake::Intake;
use crate::primary::state::open::{Asker, Opened, OwnFile};
use crate::primary::state::published::Placed;
use crate::splice::record::Key;

/// The backlog where the application names none, as Node has it; the kernel caps it at `net.core.somaxconn`.
pub(in crate::primary) const BACKLOG: u32 = 511;

/// Whose the socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Owner {
    /// The app's: the primary has opened it.
    App,
    /// Another's, who goes on using it: the primary was started with it.
    Other,
}

impl Owner {
    fn of(target: &Target) -> Self {
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
    asked_port: Option<u16>,
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
    /// The listener for a request: the one that is there, or a new one.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(in crate::primary) fn listener_for(
        &mut self,
        key: &str,
        request: &ListenRequest,
        by: Asker,
    ) -> io::Result<ListenerId> {
        if let Some((&id, _)) = self
            .listeners
            .iter()
            .find(|(_, listener)| listener.key == key)
        {
            return self.find_again(id, request, by).map(|()| id);
        }
        if let Some(id) = self.claim_bound(key, request) {
            return self.find_again(id, request, by).map(|()| id);
        }
        if self.needs_load() {
            self.board()?;
        }
        let placed = self.open_or_make_way(request, by)?;
        self.enter_listener(key, request, placed)
    }

    /// Takes a listener in that was opened.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(in crate::primary) fn enter_listener(
        &mut self,
        key: &str,
        request: &ListenRequest,
        placed: Placed,
    ) -> io::Result<ListenerId> {
        let Placed {
            opened,
            because,
            asked_port,
        } = placed;
        let one = match &opened.by {
            Carrier::Handoff(socket) | Carrier::Shared(socket) => Some(socket),
            Carrier::Kernel(_) => None,
        };
        self.keep_listener(key, opened.by.dispatch(), one);
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        let carrier = match opened.by {
            Carrier::Handoff(socket) => {
                let handed = Handed::start(self.shared.clone(), id, socket)?;
                let policy = self.make_policy(id);
                self.ledger.add_listener(id, policy);
                Carrier::Handoff(handed)
            }
            // Not even watched: every connection would wake the primary for nothing.
            Carrier::Shared(socket) => Carrier::Shared(socket),
            Carrier::Kernel(slots) => Carrier::Kernel(slots),
        };
        crate::primary::state::watch::start(self);
        // A worker may open and close without end.
        if self
            .openings
            .another(phalanx_sys::clock::coarse())
            .is_some()
        {
            tracing::info!(
                address = %opened.address,
                "dispatch: {}, policy: {} ({because})", carrier.dispatch(), self.policy
            );
        }
        self.listeners.insert(
            id,
            Listener {
                key: key.to_owned(),
                address: opened.address,
                asked_port,
                udp: opened.udp,
                carrier,
                because,
                data: request.data.clone(),
                bound: None,
                newconn: outgoing::new_connection_start(key),
                owner: Owner::of(&request.target),
                file: opened.file,
            },
        );
        Ok(id)
    }

    /// Opens a TCP listener by its first slot.
    ///
    /// # Errors
    /// As bind(2) and listen(2). For a worker, [`choice::not_ready`] when there is no program: the operator's listeners
    /// are opened after [`Cluster::prepare_steering`](crate::primary::Cluster::prepare_steering).
    pub(in crate::primary) fn open_slots(
        &mut self,
        request: &ListenRequest,
        by: Asker,
    ) -> io::Result<Opened<Slots>> {
        let Target::Tcp {
            address, only_v6, ..
        } = request.target
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let options = TcpOptions {
            only_v6,
            backlog: request.backlog.unwrap_or(BACKLOG),
            reuse_port: true,
        };
        let steering = match &self.steering {
            Some(Ok(steering)) => Some(steering),
            Some(Err(_)) | None => None,
        };
        if by == Asker::Worker && steering.is_some_and(|steering| !steering.is_ready()) {
            return Err(choice::not_ready());
        }
        let slots = on_address(address, |ip| {
            let address = super::open::place_of(request, ip)?;
            let steering = steering.map(AsRef::as_ref);
            Slots::open(steering, address, &options, self.policy, &self.weights)
        })?;
        Ok(Opened {
            address: Address::Inet(slots.address()),
            by: slots,
            udp: false,
            file: None,
        })
    }

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
        self.intake = Intake::Open;
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
