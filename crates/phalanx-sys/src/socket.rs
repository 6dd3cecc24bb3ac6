//! Listening sockets: made, inherited, examined, and accepted from.
//!
//! All descriptors are non-blocking and close-on-exec. Binding and listening are separate
//! steps, because a slot may be handed to a worker that listens itself, and because a
//! `SO_REUSEPORT` group takes part in the kernel's choice only from `listen` on.

mod accept;
mod address;
mod bind;
mod inherit;
mod path;
mod slots;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketType};

pub use accept::{AcceptError, accept};
pub use address::{Address, Credentials, UnixName, local_address, peer_address, peer_credentials};
pub use bind::{TcpOptions, UdpOptions, bind_tcp, bind_udp, bind_unix, listen};
pub use inherit::inherited_socket;
pub use path::{PathOptions, SocketFile, SocketPlace};
pub(crate) use slots::{Classic, attach_classic};
pub use slots::{
    add_slot, bind_slots, detach_choice, empty_slot, is_awaited, queue_length, refuse_newcomers,
};

/// What a socket is, as far as phalanx makes a difference.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SocketKind {
    /// A TCP socket that listens (multipath TCP included).
    TcpListener,
    /// Any other TCP socket, connected or not.
    TcpStream,
    /// A Unix stream socket that listens.
    UnixListener,
    /// Any other Unix stream socket, connected or not.
    UnixStream,
    /// A UDP socket.
    Udp,
    /// Anything else: Unix datagram or seqpacket, SCTP, netlink …
    Other,
}

/// Tells what the socket `fd` is (`SO_DOMAIN`, `SO_TYPE`, `SO_PROTOCOL`, `SO_ACCEPTCONN`;
/// socket(7)).
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn socket_kind(fd: BorrowedFd<'_>) -> io::Result<SocketKind> {
    let family = sockopt::socket_domain(fd)?;
    let is_inet = family == AddressFamily::INET || family == AddressFamily::INET6;
    let is_unix = family == AddressFamily::UNIX;
    let kind = sockopt::socket_type(fd)?;
    let protocol = sockopt::socket_protocol(fd)?.map_or(0, |protocol| protocol.as_raw().get());
    let is_tcp = [libc::IPPROTO_TCP, libc::IPPROTO_MPTCP].map(i32::unsigned_abs);
    let is_udp = protocol == libc::IPPROTO_UDP.unsigned_abs();
    let listens = is_listening(fd)?;
    Ok(
        if is_inet && kind == SocketType::STREAM && is_tcp.contains(&protocol) {
            if listens {
                SocketKind::TcpListener
            } else {
                SocketKind::TcpStream
            }
        } else if is_unix && kind == SocketType::STREAM {
            if listens {
                SocketKind::UnixListener
            } else {
                SocketKind::UnixStream
            }
        } else if is_inet && kind == SocketType::DGRAM && is_udp {
            SocketKind::Udp
        } else {
            SocketKind::Other
        },
    )
}

/// Whether the socket listens (`SO_ACCEPTCONN`, socket(7)).
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn is_listening(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_acceptconn(fd)?)
}

/// The number of a network interface, by its name or number (`if_nametoindex(3)`).
///
/// # Errors
///
/// `ENODEV` when there is none of that name.
pub fn interface_number(interface: &str) -> io::Result<u32> {
    if let Ok(number) = interface.parse() {
        return Ok(number);
    }
    let socket = bind::socket(AddressFamily::INET6, SocketType::DGRAM)
        .or_else(|_| bind::socket(AddressFamily::INET, SocketType::DGRAM))?;
    Ok(rustix::net::netdevice::name_to_index(&socket, interface)?)
}

/// Whether this is a TCP connection whose own end has this port.
///
/// # Errors
///
/// As getsockopt(2) and [`local_address`]; `ENOTSOCK` when it is no socket.
pub fn is_tcp_connection_at(fd: BorrowedFd<'_>, port: u16) -> io::Result<bool> {
    let at = |address: Address| matches!(address, Address::Inet(at) if at.port() == port);
    let is_stream = socket_kind(fd)? == SocketKind::TcpStream;
    Ok(is_stream && at(local_address(fd)?) && peer_address(fd).is_ok())
}

/// Tells sockets apart, as long as the system runs: no two ever have the same (`SO_COOKIE`, Linux 4.12).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(u64);

impl SocketId {
    /// For sockets of which only the file's number is to be had. Cookies are counted from 1 for each processor
    /// and never reach this half.
    pub(crate) fn of_inode(inode: u64) -> Self {
        Self(inode | 1 << 63)
    }
}

/// Which socket this is, whatever its descriptor.
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn socket_id(fd: BorrowedFd<'_>) -> io::Result<SocketId> {
    Ok(SocketId(sockopt::socket_cookie(fd)?))
}

/// Whether an IPv6 socket leaves IPv4 alone (`IPV6_V6ONLY`, ipv6(7)).
///
/// # Errors
///
/// `ENOPROTOOPT` when it is no IPv6 socket.
pub fn is_only_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::ipv6_v6only(fd)?)
}

/// Whether other sockets may listen on the same address (`SO_REUSEPORT`, socket(7)).
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn shares_port(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_reuseport(fd)?)
}

/// Makes a socket that is bound, or is going to be, one of a group: others with the same option may listen on its
/// address. It counts as this process's user's: the kernel wants all of a group to belong to one.
///
/// # Errors
///
/// Those of setsockopt(2) and fchown(2): `EPERM` when it belongs to somebody else and this process lacks `CAP_CHOWN`.
pub fn join_group(fd: BorrowedFd<'_>) -> io::Result<()> {
    let own = rustix::process::geteuid();
    if rustix::fs::fstat(fd)?.st_uid != own.as_raw() {
        rustix::fs::fchown(fd, Some(own), None)?;
    }
    Ok(sockopt::set_socket_reuseport(fd, true)?)
}

/// Whether a connection waits on this listener, as far as can be told without taking it (poll(2)). When in
/// doubt, one does.
#[must_use]
pub fn has_waiting(fd: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    !matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0))
}

/// Makes reads, writes and accepts on `fd` return `EAGAIN` instead of waiting (`O_NONBLOCK`).
/// The mode belongs to the open file, so it changes for every process that shares it.
///
/// # Errors
///
/// Those of ioctl(2).
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(ioctl_fionbio(fd, true)?)
}

/// Makes them wait again, as programs expect of sockets that they are given (`sd_listen_fds(3)`).
/// For sockets that this process never accepts from.
///
/// # Errors
///
/// Those of ioctl(2).
pub fn set_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(ioctl_fionbio(fd, false)?)
}
