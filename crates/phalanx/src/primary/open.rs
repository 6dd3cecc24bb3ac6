//! Opens what a listener consists of where it has no slots: one socket, and for a Unix path its file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::socket::{
    self, PathOptions, SocketFile, SocketKind, SocketPlace, TcpOptions, UdpOptions, UnixName,
};

use super::choice::on_address;
use super::listeners::BACKLOG;
use super::slots::Slots;
use crate::address::Address;
use crate::settings::UnixFile;

const EINVAL: i32 = 22;

/// A listener that was opened.
pub(super) struct Opened {
    pub(super) address: Address,
    /// The one socket, or the slots.
    pub(super) handle: Option<Arc<OwnedFd>>,
    pub(super) slots: Option<Slots>,
    pub(super) udp: bool,
    pub(super) file: Option<OwnFile>,
}

/// The file of a Unix listener. It goes with it, if it is still the one that was made.
#[derive(Debug)]
pub(super) struct OwnFile(SocketFile);

impl OwnFile {
    /// Which file it is.
    pub(super) fn id(&self) -> phalanx_sys::directory::FileId {
        self.0.id()
    }

    /// Do clients find it?
    pub(super) fn is_found(&self) -> bool {
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
pub(super) fn open(request: &ListenRequest, unix: UnixFile) -> io::Result<Opened> {
    let backlog = request.backlog.unwrap_or(BACKLOG);
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
            let options = PathOptions {
                mode: unix.mode,
                more_mode: more_mode(*readable_all, *writable_all),
                owner: unix.owner,
                group: unix.group,
                backlog,
            };
            return open_path(path, &options);
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
    Ok(Opened {
        udp: socket::socket_kind(socket.as_fd())? == SocketKind::Udp,
        address: from_sys(socket::local_address(socket.as_fd())?),
        handle: Some(Arc::new(socket)),
        slots: None,
        file: None,
    })
}

fn open_path(path: &Path, options: &PathOptions) -> io::Result<Opened> {
    let (socket, file) = SocketPlace::find(path)?.listen(options)?;
    Ok(Opened {
        address: Address::Unix(path.to_owned()),
        handle: Some(Arc::new(socket)),
        slots: None,
        udp: false,
        file: Some(OwnFile(file)),
    })
}

/// What Node's `readableAll` and `writableAll` add.
fn more_mode(readable: bool, writable: bool) -> u32 {
    (if readable { 0o444 } else { 0 }) | (if writable { 0o222 } else { 0 })
}

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
    on_address(address, |address| {
        let socket = socket::bind_tcp(SocketAddr::new(address, port), &options)?;
        socket::listen(socket.as_fd(), backlog)?;
        Ok(socket)
    })
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

pub(crate) fn from_sys(address: socket::Address) -> Address {
    match address {
        socket::Address::Inet(address) => Address::Inet(address),
        socket::Address::Unix(UnixName::Path(path)) => Address::Unix(path),
        socket::Address::Unix(UnixName::Abstract(name)) => Address::Abstract(name),
        socket::Address::Unnamed | _ => Address::Unnamed,
    }
}
