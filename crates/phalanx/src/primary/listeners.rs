//! The cluster's listeners: opened for the first worker that asks, kept while workers come and go,
//! closed when they are wanted no more.
//!
//! INVARIANT: a listener outlives a worker that crashes or drains, so what waits in its queue is
//! served by a successor. It closes when its last worker closes it of its own accord, when the fleet
//! has settled without anybody using it, or with the cluster.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::PolicyName;
use phalanx_core::wire::{ListenRequest, SocketName, Target, outgoing};
use phalanx_sys::socket::{self, SocketKind, TcpOptions, UdpOptions, UnixName};
use phalanx_sys::steering::{Steering, Unavailable};
use serde_json::Value;
use tokio::sync::Notify;

use super::dispatch::Accepting;
use super::hub::Hub;
use super::slots::Slots;
use crate::address::Address;
use crate::settings::{Adoption, DispatchChoice};
use crate::watched::watch;

/// The backlog where the application names none, as Node has it; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 511;

/// How a listener's connections reach the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dispatch {
    /// The primary accepts.
    Handoff,
    /// The workers accept from the same socket.
    Shared,
    /// Each worker accepts from its slot, which an eBPF program picks.
    Kernel,
}

impl Dispatch {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::Shared => "shared",
            Self::Kernel => "kernel",
        }
    }
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) key: String,
    pub(super) address: Address,
    pub(super) udp: bool,
    pub(super) dispatch: Dispatch,
    /// What the first TLS worker gave: every other gets the same.
    pub(super) data: Value,
    /// The socket: accepted from by the primary, or sent to workers.
    /// Nothing where there are slots instead.
    pub(super) handle: Option<Arc<OwnedFd>>,
    /// The slots, where the kernel dispatches.
    pub(super) slots: Option<Slots>,
    /// The primary opened it by itself, and keeps it open by itself.
    /// As what it was to be opened.
    pub(super) bound: Option<Target>,
    /// The fixed part of its `newconn` lines.
    pub(super) newconn: Vec<u8>,
    /// Rings when a worker has room again; only after `starved` was set.
    pub(super) room: Arc<Notify>,
    pub(super) starved: bool,
    pub(super) exhausted: bool,
    _task: Option<Accepting>,
    /// The file to remove when it closes.
    unlink: Option<PathBuf>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.unlink
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "cannot remove a socket's file");
        }
    }
}

impl Listener {
    /// The address as status shows it.
    pub(super) fn display(&self) -> String {
        if self.udp {
            format!("udp:{}", self.address)
        } else {
            self.address.to_string()
        }
    }

    pub(super) fn sockname(&self) -> Option<SocketName> {
        let address = self.address.inet()?;
        Some(SocketName {
            address: address.ip().to_string(),
            family: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
            port: address.port(),
        })
    }
}

impl Hub {
    /// The listener for a request: the one that is there, or a new one.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(super) fn listener_for(
        &mut self,
        key: &str,
        request: &ListenRequest,
    ) -> io::Result<ListenerId> {
        if let Some((&id, _)) = self
            .listeners
            .iter()
            .find(|(_, listener)| listener.key == key)
        {
            return Ok(id);
        }
        if let Some(id) = self.claim_bound(key, request) {
            return Ok(id);
        }
        let opened = open(request)?;
        let is_tcp = matches!(request.target, Target::Tcp { .. });
        let (dispatch, slots, handle) =
            self.choose_dispatch(request, opened.socket, is_tcp, opened.udp)?;
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        let room = Arc::new(Notify::new());
        let task = match (dispatch, &handle) {
            // Not even watched: every connection would wake the primary for nothing.
            (Dispatch::Shared | Dispatch::Kernel, _) | (Dispatch::Handoff, None) => None,
            (Dispatch::Handoff, Some(handle)) => {
                let socket = Arc::new(watch(Arc::clone(handle))?);
                let policy = self.policy.create_with(&self.weights, u64::from(id.0));
                self.ledger.add_listener(id, policy);
                let shared = self.shared.clone();
                Some(Accepting::start(shared, id, socket, Arc::clone(&room)))
            }
        };
        self.listeners.insert(
            id,
            Listener {
                key: key.to_owned(),
                address: opened.address,
                udp: opened.udp,
                dispatch,
                data: request.data.clone(),
                handle,
                slots,
                bound: None,
                newconn: outgoing::new_connection_start(key),
                room,
                starved: false,
                exhausted: false,
                _task: task,
                unlink: opened.unlink,
            },
        );
        Ok(id)
    }

    /// Chooses how a new listener's connections are dispatched, and makes its slots where that is
    /// the kernel's business.
    fn choose_dispatch(
        &mut self,
        request: &ListenRequest,
        socket: OwnedFd,
        is_tcp: bool,
        udp: bool,
    ) -> io::Result<(Dispatch, Option<Slots>, Option<Arc<OwnedFd>>)> {
        // Without a channel there is no way to hand a connection over.
        let has_channel = self.settings.adoption == Adoption::Channel;
        let choice = self.dispatch;
        let dispatch = match choice {
            _ if udp => Dispatch::Shared,
            DispatchChoice::Shared => Dispatch::Shared,
            DispatchChoice::Auto if self.policy == PolicyName::None => Dispatch::Shared,
            DispatchChoice::Kernel if is_tcp && self.find_steering() => Dispatch::Kernel,
            _ if !has_channel && is_tcp && self.find_steering() => Dispatch::Kernel,
            _ if !has_channel => Dispatch::Shared,
            DispatchChoice::Auto | DispatchChoice::Kernel | DispatchChoice::Handoff => {
                Dispatch::Handoff
            }
        };
        let (Dispatch::Kernel, Some(Ok(steering))) = (dispatch, &self.steering) else {
            return Ok((dispatch, None, Some(Arc::new(socket))));
        };
        let only_v6 = matches!(request.target, Target::Tcp { only_v6: true, .. });
        let backlog = request.backlog.unwrap_or(BACKLOG);
        let slots = Slots::open(
            steering,
            socket,
            only_v6,
            backlog,
            self.policy,
            &self.weights,
        )?;
        Ok((dispatch, Some(slots), None))
    }

    /// Can the kernel carry out the policy here? Finds out once, and says so once if not.
    fn find_steering(&mut self) -> bool {
        if super::slots::rule_of(self.policy).is_none() {
            tracing::warn!(policy = %self.policy, "the kernel cannot carry out this policy yet: using handoff");
            return false;
        }
        if self.steering.is_none() {
            let steering =
                Steering::available().and_then(|()| Steering::load().map_err(Unavailable::Refused));
            if let Err(error) = &steering {
                tracing::warn!("no dispatch in the kernel, using handoff: {error}");
            }
            self.steering = Some(steering);
        }
        matches!(self.steering, Some(Ok(_)))
    }

    /// How many live workers serve it.
    pub(super) fn users(&self, id: ListenerId) -> u32 {
        let holds = |listener: &super::hub::Held| listener.listener == id;
        let users = self
            .workers
            .values()
            .filter(|worker| worker.held.values().any(holds));
        u32::try_from(users.count()).unwrap_or(u32::MAX)
    }

    /// A worker closed a server of its own accord: the last one out closes the listener.
    pub(super) fn release(&mut self, worker: WorkerId, key: &str, leaving: bool) {
        let Some(held) = self
            .workers
            .get_mut(&worker)
            .and_then(|state| state.held.remove(key))
        else {
            return;
        };
        self.ledger.leave(held.listener, worker);
        self.slot_lost(held.listener, worker);
        if !leaving && self.users(held.listener) == 0 && !self.is_bound(held.listener) {
            self.close_listener(held.listener);
        }
        self.pump();
    }

    /// Closes what nobody uses: the fleet has settled, so nobody will.
    pub(super) fn close_orphans(&mut self) {
        let orphans: Vec<_> = self
            .listeners
            .keys()
            .copied()
            .filter(|&id| self.users(id) == 0 && !self.is_bound(id))
            .collect();
        for id in orphans {
            self.close_listener(id);
        }
    }

    pub(super) fn close_listener(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.remove(&id) {
            tracing::debug!(address = %listener.address, "listener closed");
            drop(self.ledger.remove_listener(id));
        }
    }
}

struct Opened {
    socket: OwnedFd,
    address: Address,
    udp: bool,
    unlink: Option<PathBuf>,
}

/// Binds, and for streams listens at once, so that connections queue from now on and an address in
/// use shows now.
fn open(request: &ListenRequest) -> io::Result<Opened> {
    let backlog = request.backlog.unwrap_or(BACKLOG);
    let mut unlink = None;
    let socket = match &request.target {
        Target::Tcp {
            address,
            port,
            only_v6,
        } => listen_tcp(*address, *port, *only_v6, backlog)?,
        Target::UnixPath {
            path,
            readable_all,
            writable_all,
        } => {
            let socket = socket::bind_unix(&UnixName::Path(path.clone()))?;
            let listens = open_up(path, *readable_all, *writable_all)
                .and_then(|()| socket::listen(socket.as_fd(), backlog));
            if let Err(error) = listens {
                // It was made just now, by us; the error to tell is the first one.
                drop(fs::remove_file(path));
                return Err(error);
            }
            unlink = Some(path.clone());
            socket
        }
        Target::UnixAbstract(name) => {
            let socket = socket::bind_unix(&UnixName::Abstract(name.clone()))?;
            socket::listen(socket.as_fd(), backlog)?;
            socket
        }
        Target::Udp {
            address,
            port,
            v6,
            only_v6,
            reuse_address,
        } => {
            let any = if *v6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            let options = UdpOptions {
                only_v6: *only_v6,
                reuse_addr: *reuse_address,
            };
            socket::bind_udp(SocketAddr::new(address.unwrap_or(any), *port), &options)?
        }
        Target::Descriptor(number) => inherited(*number, backlog)?,
    };
    let udp = socket::socket_kind(socket.as_fd())? == SocketKind::Udp;
    Ok(Opened {
        address: from_sys(socket::local_address(socket.as_fd())?),
        socket,
        udp,
        unlink,
    })
}

/// No address means any: dual stack, or IPv4 where there is no IPv6.
fn listen_tcp(
    address: Option<IpAddr>,
    port: u16,
    only_v6: bool,
    backlog: u32,
) -> io::Result<OwnedFd> {
    let options = TcpOptions {
        only_v6,
        backlog,
        reuse_port: false,
    };
    let listen = |address: IpAddr| {
        let socket = socket::bind_tcp(SocketAddr::new(address, port), &options)?;
        socket::listen(socket.as_fd(), backlog)?;
        Ok(socket)
    };
    match address {
        Some(address) => listen(address),
        None => listen(Ipv6Addr::UNSPECIFIED.into()).or_else(|error: io::Error| {
            let no_v6 = matches!(
                error.raw_os_error(),
                Some(libc_errno::EAFNOSUPPORT | libc_errno::EADDRNOTAVAIL)
            );
            if no_v6 {
                listen(Ipv4Addr::UNSPECIFIED.into())
            } else {
                Err(error)
            }
        }),
    }
}

/// The two error numbers that say "no IPv6 here" (Linux, all architectures but MIPS and SPARC).
mod libc_errno {
    pub(super) const EAFNOSUPPORT: i32 = 97;
    pub(super) const EADDRNOTAVAIL: i32 = 99;
}

/// A socket that the primary was started with; one that does not listen yet is made to.
fn inherited(number: i32, backlog: u32) -> io::Result<OwnedFd> {
    let socket = socket::inherited_socket(number)?;
    match socket::socket_kind(socket.as_fd())? {
        SocketKind::TcpListener | SocketKind::UnixListener | SocketKind::Udp => {}
        SocketKind::TcpStream | SocketKind::UnixStream => socket::listen(socket.as_fd(), backlog)?,
        SocketKind::Other | _ => return Err(io::Error::from_raw_os_error(22)),
    }
    Ok(socket)
}

fn open_up(path: &Path, readable: bool, writable: bool) -> io::Result<()> {
    if !readable && !writable {
        return Ok(());
    }
    let mut mode = fs::metadata(path)?.permissions().mode();
    mode |= if readable { 0o444 } else { 0 };
    mode |= if writable { 0o222 } else { 0 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

pub(crate) fn from_sys(address: socket::Address) -> Address {
    match address {
        socket::Address::Inet(address) => Address::Inet(address),
        socket::Address::Unix(UnixName::Path(path)) => Address::Unix(path),
        socket::Address::Unix(UnixName::Abstract(name)) => Address::Abstract(name),
        socket::Address::Unnamed | _ => Address::Unnamed,
    }
}
