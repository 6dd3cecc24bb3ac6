//! Opens what a listener consists of where it has no slots: one socket, and for a Unix path its file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use phalanx_core::dispatch::allow::Wanted;
use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::socket::{
    self, PathOptions, SocketFile, SocketKind, SocketPlace, TcpOptions, UdpOptions, UnixName,
};

use crate::address::Address;
use crate::primary::state::Hub;
use crate::primary::state::choice::on_address;
use crate::primary::state::listeners::BACKLOG;
use crate::settings::UnixFile;

const EINVAL: i32 = 22;

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

/// Who wants a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Asker {
    /// Whoever started the primary.
    Operator,
    /// A worker, which may have fewer rights than the primary.
    Worker,
}

impl Hub {
    /// Opens what needs no slots, if who asks for it may have it.
    ///
    /// # Errors
    /// `PermissionDenied`; as bind(2) and listen(2).
    pub(in crate::primary) fn open_one(
        &mut self,
        request: &ListenRequest,
        by: Asker,
    ) -> io::Result<Opened> {
        let Target::UnixPath {
            path,
            readable_all,
            writable_all,
        } = &request.target
        else {
            return open(request);
        };
        // What is judged is what is opened, wherever the path leads by then.
        let place = SocketPlace::find(path)?;
        if by == Asker::Worker {
            self.judge_path(&place)?;
        }
        let UnixFile { mode, owner, group } = self.settings.unix;
        let options = PathOptions {
            mode,
            more_mode: more_mode(*readable_all, *writable_all),
            owner,
            group,
            backlog: request.backlog.unwrap_or(BACKLOG),
        };
        open_path(path, place, &options)
    }

    fn judge_path(&mut self, place: &SocketPlace) -> io::Result<()> {
        let real = place.real_path()?;
        let directory = self.settings.cwd.as_deref().unwrap_or(Path::new("."));
        let directory = std::fs::canonicalize(directory)?;
        let wanted = Wanted::Path {
            is_inside: real.starts_with(directory),
            real: &real,
        };
        self.judge(&wanted)
    }

    fn judge(&mut self, wanted: &Wanted<'_>) -> io::Result<()> {
        let judged = self.allowance.judge(wanted, first_free_port());
        judged.map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal))
    }

    /// May a worker have this? Of a path, [`Hub::open_one`] judges.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(in crate::primary) fn judge_target(&mut self, target: &Target) -> io::Result<()> {
        let wanted = match target {
            // The operator has said where it is opened instead.
            Target::Tcp { port, .. } if self.is_published(*port) => return Ok(()),
            Target::Tcp { address, port, .. } | Target::Udp { address, port, .. } => {
                Wanted::Port(*address, *port)
            }
            Target::UnixPath { .. } => return Ok(()),
            Target::UnixAbstract(name) => Wanted::Abstract(name),
            Target::Descriptor(number) | Target::DatagramDescriptor(number) => {
                Wanted::Descriptor(*number)
            }
        };
        self.judge(&wanted)
    }
}

/// The first port that needs no privilege (`ip_unprivileged_port_start`, ip(7)).
fn first_free_port() -> u16 {
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// Binds, and for streams listens at once, so that connections queue from now on and an address in
/// use shows now.
fn open(request: &ListenRequest) -> io::Result<Opened> {
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

fn open_path(path: &Path, place: SocketPlace, options: &PathOptions) -> io::Result<Opened> {
    let (socket, file) = place.listen(options)?;
    Ok(Opened {
        address: Address::Unix(path.to_owned()),
        by: Arc::new(socket),
        udp: false,
        file: Some(OwnFile(file)),
    })
}

/// What Node's `readableAll` and `writableAll` add.
fn more_mode(readable: bool, writable: bool) -> u32 {
    (if readable { 0o444 } else { 0 }) | (if writable { 0o222 } else { 0 })
}

/// Where the request is bound, at this address.
///
/// # Errors
/// `EINVAL` when the interface that it names is not there, as Node has it.
pub(super) fn place_of(request: &ListenRequest, ip: IpAddr) -> io::Result<SocketAddr> {
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
pub(super) fn scope_of(address: &SocketAddr) -> Option<String> {
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
