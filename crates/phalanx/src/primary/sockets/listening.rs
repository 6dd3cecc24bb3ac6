//! Listening sockets: what a listener consists of where it has no slots, and where it is bound.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::socket::{
    self, PathOptions, SocketFile, SocketKind, SocketPlace, TcpOptions, UdpOptions, UnixName,
};

use crate::address::Address;

const EINVAL: i32 = 22;

/// The backlog where the application names none, as Node has it; the kernel caps it at `net.core.somaxconn`.
pub(in crate::primary) const BACKLOG: u32 = 511;

/// A listener that was opened: by one socket, by its slots, or by whatever its dispatch needs.
pub(in crate::primary) struct Opened<By = Arc<OwnedFd>> {
    pub(in crate::primary) address: Address,
    pub(in crate::primary) by: By,
    pub(in crate::primary) udp: bool,
    pub(in crate::primary) file: Option<OwnFile>,
}

impl<By> Opened<By> {
    /// The same listener, with what it was opened by put into something.
    pub(in crate::primary) fn map<To>(self, into: impl FnOnce(By) -> To) -> Opened<To> {
        Opened {
            address: self.address,
            by: into(self.by),
            udp: self.udp,
            file: self.file,
        }
    }
}

/// The file of a Unix listener. It goes with it, if it is still the one that was made.
#[derive(Debug)]
pub(in crate::primary) struct OwnFile(SocketFile);

impl OwnFile {
    pub(in crate::primary) fn of(file: SocketFile) -> Self {
        Self(file)
    }

    /// Which file it is.
    pub(in crate::primary) fn id(&self) -> phalanx_sys::directory::FileId {
        self.0.id()
    }

    /// Do clients find it?
    pub(in crate::primary) fn is_found(&self) -> bool {
        self.0.is_found()
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            let path = self.0.path().display();
            tracing::debug!(%error, %path, "cannot remove a socket's file");
        }
    }
}

/// Binds, and for streams listens at once, so that connections queue from now on and an address in
/// use shows now.
pub(in crate::primary) fn open(request: &ListenRequest) -> io::Result<Opened> {
    let backlog = request.backlog.unwrap_or(BACKLOG);
    let socket = match &request.target {
        Target::Tcp {
            address, only_v6, ..
        } => {
            let options = TcpOptions {
                only_v6: *only_v6,
                backlog,
                reuse_port: false,
            };
            on_address(*address, |ip| {
                let socket = socket::bind_tcp(place_of(request, ip)?, &options)?;
                socket::listen(socket.as_fd(), backlog)?;
                Ok(socket)
            })?
        }
        Target::UnixPath { .. } => return Err(io::ErrorKind::Unsupported.into()),
        Target::UnixAbstract(name) => {
            let socket = socket::bind_unix(&UnixName::Abstract(name.clone()))?;
            socket::listen(socket.as_fd(), backlog)?;
            socket
        }
        Target::Udp {
            address,
            v6,
            only_v6,
            reuse_address,
            ..
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
            socket::bind_udp(place_of(request, address.unwrap_or(any))?, &options)?
        }
        Target::Descriptor(number) => inherited(*number, backlog)?,
        Target::DatagramDescriptor(number) => inherited_datagrams(*number)?,
    };
    Ok(Opened {
        udp: socket::socket_kind(socket.as_fd())? == SocketKind::Udp,
        address: from_sys(socket::local_address(socket.as_fd())?),
        by: Arc::new(socket),
        file: None,
    })
}

pub(in crate::primary) fn open_path(
    path: &Path,
    place: SocketPlace,
    options: &PathOptions,
) -> io::Result<Opened> {
    let (socket, file) = place.listen(options)?;
    Ok(Opened {
        address: Address::Unix(path.to_owned()),
        by: Arc::new(socket),
        udp: false,
        file: Some(OwnFile(file)),
    })
}

/// What Node's `readableAll` and `writableAll` add.
pub(in crate::primary) fn more_mode(readable: bool, writable: bool) -> u32 {
    (if readable { 0o444 } else { 0 }) | (if writable { 0o222 } else { 0 })
}

/// Where the request is bound, at this address.
///
/// # Errors
/// `EINVAL` when the interface that it names is not there, as Node has it.
pub(in crate::primary) fn place_of(request: &ListenRequest, ip: IpAddr) -> io::Result<SocketAddr> {
    let port = match request.target {
        Target::Tcp { port, .. } | Target::Udp { port, .. } => port,
        Target::UnixPath { .. }
        | Target::UnixAbstract(_)
        | Target::Descriptor(_)
        | Target::DatagramDescriptor(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut place = SocketAddr::new(ip, port);
    if let (SocketAddr::V6(place), Some(scope)) = (&mut place, &request.scope) {
        let number = socket::interface_number(scope);
        place.set_scope_id(number.map_err(|_| io::Error::from_raw_os_error(EINVAL))?);
    }
    Ok(place)
}

/// The interface of an address, as a request has it.
pub(in crate::primary) fn scope_of(address: &SocketAddr) -> Option<String> {
    match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => Some(address.scope_id().to_string()),
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    }
}

/// A socket that the primary was started with; one that does not listen yet is made to.
fn inherited(number: i32, backlog: u32) -> io::Result<OwnedFd> {
    let socket = socket::inherited_socket(number)?;
    match socket::socket_kind(socket.as_fd())? {
        SocketKind::TcpListener | SocketKind::UnixListener | SocketKind::Udp => {}
        SocketKind::TcpStream | SocketKind::UnixStream => socket::listen(socket.as_fd(), backlog)?,
        SocketKind::Other | _ => return Err(io::Error::from_raw_os_error(EINVAL)),
    }
    Ok(socket)
}

/// A UDP socket that the primary was started with.
fn inherited_datagrams(number: i32) -> io::Result<OwnedFd> {
    let socket = socket::inherited_socket(number)?;
    if socket::socket_kind(socket.as_fd())? != SocketKind::Udp {
        return Err(io::Error::from_raw_os_error(EINVAL));
    }
    Ok(socket)
}

pub(crate) fn from_sys(address: socket::Address) -> Address {
    match address {
        socket::Address::Inet(address) => Address::Inet(address),
        socket::Address::Unix(UnixName::Path(path)) => Address::Unix(path),
        socket::Address::Unix(UnixName::Abstract(name)) => Address::Abstract(name),
        socket::Address::Unnamed | _ => Address::Unnamed,
    }
}

/// The addresses to try for a TCP listener: none named means any, in dual stack, or IPv4 where there
/// is no IPv6.
pub(in crate::primary) fn on_address<T>(
    address: Option<IpAddr>,
    mut open: impl FnMut(IpAddr) -> io::Result<T>,
) -> io::Result<T> {
    /// "No IPv6 here" (Linux, all architectures but MIPS and SPARC): `EAFNOSUPPORT`, `EADDRNOTAVAIL`.
    const NO_V6: [i32; 2] = [97, 99];
    match address {
        Some(address) => open(address),
        None => open(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| {
            if error
                .raw_os_error()
                .is_some_and(|code| NO_V6.contains(&code))
            {
                open(Ipv4Addr::UNSPECIFIED.into())
            } else {
                Err(error)
            }
        }),
    }
}
