//! What can be seen of a caller's socket.
//!
//! Best by a duplicate of it (`pidfd_getfd(2)`). Default profiles of containers forbid that call, so there is
//! another way, which needs `/proc` only: the kind of the socket is an extended attribute of its file
//! (`system.sockprotoname`), its flags stand in `fdinfo`, and the address and the options that matter are
//! remembered from the calls that set them ([`Memory`]). Options that are not among those are not known then.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{fstat, getxattr};

use super::{caller, socket_options};
use crate::process::Pid;
use crate::socket::{self, Address, SocketId, SocketKind};

/// So many sockets are remembered. They are few: those between their creation and listen(2).
const REMEMBERED: usize = 256;

/// A socket of a caller.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what the kernel says of a socket, each independent of the others"
)]
pub(super) struct SocketView {
    /// It is a Unix stream socket: the addresses below say nothing.
    pub(super) is_unix: bool,
    /// Nothing where duplicates are not to be had.
    pub(super) duplicate: Option<Arc<OwnedFd>>,
    pub(super) id: SocketId,
    /// Where it is bound; port 0 if it is not.
    pub(super) local: SocketAddr,
    pub(super) only_v6: bool,
    pub(super) shares_port: bool,
    pub(super) is_listening: bool,
}

/// What callers have told of sockets that cannot be duplicated.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<SocketId, Known>>);

#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Known {
    pub(super) only_v6: Option<bool>,
    pub(super) shares_port: bool,
    pub(super) bound: Option<SocketAddr>,
}

impl Memory {
    pub(super) fn note(&self, id: SocketId, note: impl FnOnce(&mut Known)) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        note(known.entry(id).or_default());
        if known.len() > REMEMBERED {
            // By and large the oldest.
            known.pop_first();
        }
    }

    fn of(&self, id: SocketId) -> Known {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&id).copied().unwrap_or_default()
    }
}

impl SocketView {
    /// Looks at a descriptor of the caller; nothing for what is no TCP socket (multipath TCP included) and no Unix
    /// stream socket, or is tied to an interface.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` when the caller may not be looked into at all.
    pub(super) fn of(
        thread: Pid,
        process: Pid,
        number: i32,
        memory: &Memory,
    ) -> io::Result<Option<Self>> {
        if !can_duplicate() {
            return Self::from_outside(thread, number, memory);
        }
        let socket = caller::descriptor(thread, process, number)?;
        Self::from_duplicate(socket)
    }

    fn from_duplicate(socket: OwnedFd) -> io::Result<Option<Self>> {
        let is_listening = match socket::socket_kind(socket.as_fd())? {
            SocketKind::TcpListener => true,
            SocketKind::TcpStream => false,
            SocketKind::UnixListener => return Self::unix(socket, true).map(Some),
            SocketKind::UnixStream => return Self::unix(socket, false).map(Some),
            SocketKind::Udp | SocketKind::Other => return Ok(None),
        };
        let Address::Inet(local) = socket::local_address(socket.as_fd())? else {
            return Ok(None);
        };
        if socket_options::is_tied(socket.as_fd()) {
            return Ok(None);
        }
        Ok(Some(Self {
            is_unix: false,
            id: socket::socket_id(socket.as_fd())?,
            local,
            only_v6: local.is_ipv6() && socket::is_only_v6(socket.as_fd())?,
            shares_port: socket::shares_port(socket.as_fd())?,
            is_listening,
            duplicate: Some(Arc::new(socket)),
        }))
    }

    fn unix(socket: OwnedFd, is_listening: bool) -> io::Result<Self> {
        Ok(Self {
            is_unix: true,
            id: socket::socket_id(socket.as_fd())?,
            local: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            only_v6: false,
            shares_port: false,
            is_listening,
            duplicate: Some(Arc::new(socket)),
        })
    }

    fn from_outside(thread: Pid, number: i32, memory: &Memory) -> io::Result<Option<Self>> {
        let path = format!("/proc/{thread}/fd/{number}");
        let mut room = [0_u8; 32];
        let name = match getxattr(&path, "system.sockprotoname", &mut room) {
            Ok(length) => room.get(..length).unwrap_or_default(),
            Err(errno) if errno == rustix::io::Errno::ACCESS => return Err(errno.into()),
            // No descriptor, or no socket.
            Err(_) => return Ok(None),
        };
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let is_unix = name == b"UNIX-STREAM";
        let any: std::net::IpAddr = match name {
            b"TCP" | b"MPTCP" | b"UNIX-STREAM" => Ipv4Addr::UNSPECIFIED.into(),
            b"TCPv6" | b"MPTCPv6" => Ipv6Addr::UNSPECIFIED.into(),
            _ => return Ok(None),
        };
        let id = SocketId::of_inode(fs::metadata(&path)?.ino());
        let known = memory.of(id);
        Ok(Some(Self {
            is_unix,
            duplicate: None,
            id,
            local: known.bound.unwrap_or(SocketAddr::new(any, 0)),
            only_v6: any.is_ipv6() && known.only_v6.unwrap_or_else(is_only_v6_by_default),
            shares_port: known.shares_port,
            is_listening: false,
        }))
    }
}

/// What [`SocketView`] calls a socket of this process's, with or without duplicates.
pub(super) fn id_of(socket: BorrowedFd<'_>, with_duplicates: bool) -> io::Result<SocketId> {
    if with_duplicates {
        socket::socket_id(socket)
    } else {
        Ok(SocketId::of_inode(fstat(socket)?.st_ino))
    }
}

/// Whether sockets of other processes can be duplicated at all: asked once, of this process itself.
pub(super) fn can_duplicate() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let own = Pid::current();
        // Standard input may be closed, but then the call itself is allowed.
        let denied = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
            )
        };
        !caller::descriptor(own, own, 0).is_err_and(|error| denied(&error))
    })
}

/// `net.ipv6.bindv6only` (ipv6(7)).
fn is_only_v6_by_default() -> bool {
    let text = fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap_or_default();
    text.trim() == "1"
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::socket::{TcpOptions, bind_tcp};

    #[test]
    fn what_is_seen_from_outside_is_what_a_duplicate_shows() {
        let own = Pid::current();
        for address in ["127.0.0.1:0", "[::]:0"] {
            let Ok(socket) = bind_tcp(address.parse().unwrap(), &TcpOptions::default()) else {
                continue;
            };
            let number = socket.as_raw_fd();
            let memory = Memory::default();
            let blank = SocketView::from_outside(own, number, &memory)
                .unwrap()
                .unwrap();
            assert_eq!(blank.local.port(), 0);
            assert_eq!(id_of(socket.as_fd(), false).unwrap(), blank.id);
            let Address::Inet(bound) = socket::local_address(socket.as_fd()).unwrap() else {
                panic!("no address");
            };
            memory.note(blank.id, |known| {
                known.bound = Some(bound);
                known.only_v6 = Some(false);
            });
            let outside = SocketView::from_outside(own, number, &memory)
                .unwrap()
                .unwrap();
            let inside = SocketView::from_duplicate(socket).unwrap().unwrap();
            assert_eq!(outside.local, inside.local);
            assert_eq!(outside.only_v6, inside.only_v6);
        }
    }

    #[test]
    fn what_is_no_tcp_socket_is_not_seen() {
        let own = Pid::current();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
        for number in [udp.as_raw_fd(), unix.as_raw_fd(), 1_000_000, -1] {
            let seen = SocketView::from_outside(own, number, &Memory::default());
            assert!(seen.unwrap().is_none(), "{number}");
        }
        // A stream is one that could still listen.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let seen = SocketView::from_outside(own, stream.as_raw_fd(), &Memory::default());
        assert!(seen.unwrap().is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory::default();
        for inode in 0..1_000 {
            memory.note(SocketId::of_inode(inode), |known| known.shares_port = true);
        }
        assert!(memory.0.lock().unwrap().len() <= REMEMBERED);
        assert!(memory.of(SocketId::of_inode(999)).shares_port);
    }
}
