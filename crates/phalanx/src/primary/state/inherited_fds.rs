//! What a worker of activation is given: its listeners as open descriptors, and the variables by which
//! programs find them: those of systemd (`sd_listen_fds(3)`) and those of einhorn, side by side.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::{ListenRequest, Target, outgoing};
use phalanx_sys::notify::NotifySocket;
use phalanx_sys::process::FdMapping;
use phalanx_sys::socket;

use crate::address::Address;
use crate::bind::Bind;
use crate::error::{Error, ListenError, Result};
use crate::primary::Cluster;
use crate::primary::state::open::{Asker, scope_of};
use crate::primary::state::{Held, Hub};
use crate::settings::{Adoption, Readiness, Settings};

/// Begins the key of a listener that no worker has asked for by its channel.
const UNCLAIMED: &str = "bound:";

/// `SD_LISTEN_FDS_START`.
const FIRST_NUMBER: i32 = 3;

/// What one worker is given.
#[derive(Debug, Default)]
pub(crate) struct InheritedFds {
    sockets: Vec<Given>,
    /// The name and the primary's end of the socket on which the worker speaks of itself.
    pub(in crate::primary) notify: Option<NotifySocket>,
}

#[derive(Debug)]
struct Given {
    name: String,
    listener: ListenerId,
    request: ListenRequest,
    socket: Arc<OwnedFd>,
    family: &'static str,
}

impl InheritedFds {
    /// Variables beside those that every worker has.
    pub(in crate::primary) fn env(
        &self,
        position: Position,
        settings: &Settings,
    ) -> Vec<(OsString, OsString)> {
        let mut env = Vec::new();
        let mut set = |name: String, value: String| env.push((name.into(), value.into()));
        if let Some(notify) = &self.notify {
            set("NOTIFY_SOCKET".to_owned(), notify.name.clone());
        }
        if let Some(limit) = settings.watchdog {
            set("WATCHDOG_USEC".to_owned(), limit.as_micros().to_string());
        }
        if self.sockets.is_empty() {
            return env;
        }
        let count = self.sockets.len();
        let names: Vec<_> = self.sockets.iter().map(|one| one.name.as_str()).collect();
        set("LISTEN_FDS".to_owned(), count.to_string());
        set("LISTEN_FDNAMES".to_owned(), names.join(":"));
        set(
            "EINHORN_MASTER_PID".to_owned(),
            std::process::id().to_string(),
        );
        set("EINHORN_CHILD_INDEX".to_owned(), position.to_string());
        set("EINHORN_FD_COUNT".to_owned(), count.to_string());
        for (index, (number, given)) in (FIRST_NUMBER..).zip(&self.sockets).enumerate() {
            set(format!("EINHORN_FD_{index}"), number.to_string());
            set(
                format!("EINHORN_FD_FAMILY_{index}"),
                given.family.to_owned(),
            );
        }
        if let Some(path) = &settings.ack_socket {
            env.push(("EINHORN_SOCK_PATH".into(), path.clone().into()));
        }
        env
    }

    /// Variables that hold the worker's own pid.
    pub(in crate::primary) fn own_pid_env(&self, settings: &Settings) -> Vec<OsString> {
        let mut names = Vec::new();
        if !self.sockets.is_empty() {
            names.push("LISTEN_PID".into());
        }
        if settings.watchdog.is_some() {
            names.push("WATCHDOG_PID".into());
        }
        names
    }

    /// The descriptors, from 3 on.
    pub(in crate::primary) fn fds(&self) -> impl Iterator<Item = FdMapping> {
        let numbered = (FIRST_NUMBER..).zip(&self.sockets);
        numbered.map(|(number, given)| FdMapping::shared(Arc::clone(&given.socket), number))
    }

    /// The sockets, by the keys under which the worker holds them; this keeps none of them open.
    pub(in crate::primary) fn sockets(&self) -> Vec<(String, Weak<OwnedFd>)> {
        let sockets = self.sockets.iter().enumerate();
        let socket = |(index, given): (usize, &Given)| (key(index), Arc::downgrade(&given.socket));
        sockets.map(socket).collect()
    }

    /// What the worker holds from its start on, under keys of its own.
    pub(in crate::primary) fn held(&self) -> impl Iterator<Item = (String, Held)> {
        let held = |(index, given): (usize, &Given)| {
            (key(index), Held::new(given.listener, given.request.clone()))
        };
        self.sockets.iter().enumerate().map(held)
    }
}

/// The key of the socket of this index.
fn key(index: usize) -> String {
    format!("given:{index}")
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
