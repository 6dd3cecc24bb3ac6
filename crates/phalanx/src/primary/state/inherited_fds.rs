//! Opens the listeners that a worker of activation is given ([`InheritedFds`]), and finds them again when a worker asks for one of
//! them by its channel.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::{ListenRequest, Target, outgoing};
use phalanx_sys::notify::NotifySocket;
use phalanx_sys::socket;

use crate::address::Address;
use crate::bind::Bind;
use crate::error::{Error, ListenError, Result};
use crate::primary::Cluster;
use crate::primary::release::inherited_fds::{Given, InheritedFds, key};
use crate::primary::sockets::listening::scope_of;
use crate::primary::state::open::Asker;
use crate::primary::state::{Held, Hub};
use crate::settings::{Adoption, Readiness, Settings};

/// Begins the key of a listener that no worker has asked for by its channel.
const UNCLAIMED: &str = "bound:";

/// What the worker holds from its start on, under keys of its own.
pub(in crate::primary) fn held(inherited: &InheritedFds) -> impl Iterator<Item = (String, Held)> {
    let held = |(index, given): (usize, &Given)| {
        (key(index), Held::new(given.listener, given.request.clone()))
    };
    inherited.sockets.iter().enumerate().map(held)
}

impl Cluster {
    /// The socket on which a new worker speaks of itself, if it may; made beside the lock.
    ///
    /// # Errors
    /// [`ListenError::Refused`] for the socket of acknowledgements, [`Error::Worker`] for the notify socket.
    pub(in crate::primary) fn prepare_sd_notify(
        &self,
        worker: WorkerId,
        settings: &Settings,
    ) -> Result<Option<NotifySocket>> {
        let is_given = settings.adoption == Adoption::Activation;
        let speaks = settings.readiness == Readiness::Notify || settings.watchdog.is_some();
        if settings.adoption == Adoption::None || !(is_given || speaks) {
            return Ok(None);
        }
        if let Some(path) = &settings.ack_socket {
            self.take_acks(path)
                .map_err(|source| ListenError::Refused {
                    address: Address::Unix(path.clone()),
                    source,
                })?;
        }
        let notify = self.shared.places.notify_socket(settings.uid);
        let notify = notify.map_err(|source| Error::Worker {
            act: "make the notify socket",
            worker,
            source,
        })?;
        Ok(Some(notify))
    }
}

impl Hub {
    /// Opens the listeners that a new worker is given; none for one that asks by its channel.
    ///
    /// # Errors
    /// [`ListenError::Refused`] when a listener cannot be opened.
    pub(in crate::primary) fn prepare_inherited_fds(
        &mut self,
        worker: WorkerId,
        position: Position,
        settings: &Settings,
        notify: Option<NotifySocket>,
    ) -> Result<InheritedFds, ListenError> {
        let mut inherited = InheritedFds {
            sockets: Vec::new(),
            notify,
        };
        if settings.adoption != Adoption::Activation {
            return Ok(inherited);
        }
        for bind in &settings.bind {
            let given = self
                .open_bound(bind)
                .and_then(|(id, request)| self.give(id, request, bind, worker, position));
            match given {
                Ok(given) => inherited.sockets.push(given),
                Err(source) => {
                    self.take_back(worker, position, &inherited);
                    return Err(ListenError::Refused {
                        address: bind.address.clone(),
                        source,
                    });
                }
            }
        }
        Ok(inherited)
    }

    /// The worker was not started: its slots are nobody's.
    pub(in crate::primary) fn take_back(
        &mut self,
        worker: WorkerId,
        position: Position,
        inherited: &InheritedFds,
    ) {
        for given in &inherited.sockets {
            let listener = self.listeners.get_mut(&given.listener);
            if let Some(slots) = listener.and_then(|listener| listener.carrier.slots_mut()) {
                slots.gone(position, worker);
            }
            self.settle_slots_later(given.listener);
        }
    }

    fn give(
        &mut self,
        id: ListenerId,
        request: ListenRequest,
        bind: &Bind,
        worker: WorkerId,
        position: Position,
    ) -> io::Result<Given> {
        let listener = self.listeners.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let socket = match &mut listener.carrier {
            Carrier::Handoff(handed) => Arc::clone(&handed.socket),
            Carrier::Shared(socket) => Arc::clone(socket),
            Carrier::Kernel(slots) => slots.slot_for(position, worker)?,
        };
        // Programs that are given a socket may take it for one that waits, as systemd gives it.
        socket::set_blocking(socket.as_fd())?;
        Ok(Given {
            name: bind.name.clone(),
            listener: id,
            request,
            family: family(&listener.address),
            socket,
        })
    }

    /// Opens a listener that nobody asked for, or finds it open.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(in crate::primary) fn open_bound(
        &mut self,
        bind: &Bind,
    ) -> io::Result<(ListenerId, ListenRequest)> {
        let key = format!("{UNCLAIMED}{}", bind.address);
        let mut request = request(&bind.address, &key).ok_or(io::ErrorKind::Unsupported)?;
        let target = request.target.clone();
        let mut listeners = self.listeners.iter();
        let open = listeners.find(|(_, one)| one.bound.as_ref() == Some(&target));
        if let Some((&id, _)) = open {
            self.find_again(id, &request, Asker::Operator)?;
            return Ok((id, request));
        }
        if let Some(number) = bind.descriptor() {
            request.target = Target::Descriptor(number);
        }
        let id = self.listener_for(&key, &request, Asker::Operator)?;
        if let Some(listener) = self.listeners.get_mut(&id) {
            listener.bound = Some(target);
        }
        Ok((id, request))
    }

    /// A worker asks by its channel for an address that the primary has opened by itself: it is that
    /// listener, under the worker's key from now on.
    pub(in crate::primary) fn claim_bound(
        &mut self,
        key: &str,
        request: &ListenRequest,
    ) -> Option<ListenerId> {
        let mut listeners = self.listeners.iter_mut();
        let (&id, listener) = listeners.find(|(_, one)| {
            let bound = one.bound.as_ref();
            bound.is_some_and(|bound| is_same(bound, &request.target))
                && one.key.starts_with(UNCLAIMED)
        })?;
        key.clone_into(&mut listener.key);
        listener.newconn = outgoing::new_connection_start(key);
        listener.data = request.data.clone();
        Some(id)
    }

    pub(in crate::primary) fn is_bound(&self, id: ListenerId) -> bool {
        let listener = self.listeners.get(&id);
        listener.is_some_and(|listener| listener.bound.is_some())
    }
}

/// Is it the same address? A worker that names none means every one, as `[::]` and `0.0.0.0` do.
fn is_same(bound: &Target, asked: &Target) -> bool {
    match (bound, asked) {
        (
            Target::Tcp { address, port, .. },
            Target::Tcp {
                address: None,
                port: asked,
                ..
            },
        ) => port == asked && address.is_none_or(|address| address.is_unspecified()),
        (Target::UnixPath { path, .. }, Target::UnixPath { path: asked, .. }) => {
            *path == absolute(asked)
        }
        (bound, asked) => bound == asked,
    }
}

/// As einhorn names it.
fn family(address: &Address) -> &'static str {
    match address.inet() {
        Some(address) if address.is_ipv6() => "AF_INET6",
        Some(_) => "AF_INET",
        None => "AF_UNIX",
    }
}

/// What a worker would have asked for.
fn request(address: &Address, key: &str) -> Option<ListenRequest> {
    let tcp = |address, port| Target::Tcp {
        address,
        port,
        only_v6: false,
    };
    let target = match address {
        Address::Inet(address) => tcp(Some(address.ip()), address.port()),
        Address::AnyInet(port) => tcp(None, *port),
        Address::Unix(path) => Target::UnixPath {
            path: absolute(path),
            readable_all: false,
            writable_all: false,
        },
        Address::Abstract(name) => Target::UnixAbstract(name.clone()),
        Address::Unnamed => return None,
    };
    Some(ListenRequest {
        target,
        scope: address.inet().as_ref().and_then(scope_of),
        index: 0,
        backlog: None,
        data: serde_json::Value::Null,
        key: key.to_owned(),
    })
}

/// The socket's file is removed by this path later, wherever the primary is then.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
