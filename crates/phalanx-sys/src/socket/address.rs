//! Who a socket is, and who is at its other end.
#![allow(
    unsafe_code,
    reason = "rustix's peer credentials cannot hold a foreign pid"
)]

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, getpeername, getsockname};

use crate::fd;
use crate::process::Pid;

/// The name of a Unix socket (unix(7)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(clippy::exhaustive_enums, reason = "unix(7) knows no other names")]
pub enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name outside of the file system, without the leading NUL; at most 107 bytes.
    Abstract(Vec<u8>),
}

/// The address of a socket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// IPv4 or IPv6 and a port.
    Inet(SocketAddr),
    /// A Unix socket with a name.
    Unix(UnixName),
    /// A Unix socket without a name, as one of a pair.
    Unnamed,
}

/// Shows a path as it is and an abstract name with a leading `@`.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixName::Path(path) => path.display().fmt(f),
            UnixName::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// Shows a Unix socket with a leading `unix:`, and one without a name as `unix:` alone.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(name) => write!(f, "unix:{name}"),
            Address::Unnamed => f.write_str("unix:"),
        }
    }
}

/// The address that the socket is bound to (getsockname(2)), with the port that the kernel chose
/// if 0 was asked for.
///
/// # Errors
///
/// `ENOTSOCK`; `EAFNOSUPPORT` when it is neither an internet nor a Unix socket.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    read_address(getsockname(fd)?)
}

/// The address of the socket's peer (getpeername(2)).
///
/// # Errors
///
/// `ENOTCONN` when it is not connected, or not any more; otherwise as [`local_address`].
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    let peer = getpeername(fd)?;
    peer.map_or(Ok(Address::Unnamed), read_address)
}

fn read_address(address: SocketAddrAny) -> io::Result<Address> {
    match address.address_family() {
        AddressFamily::INET | AddressFamily::INET6 => {
            Ok(Address::Inet(SocketAddr::try_from(address)?))
        }
        AddressFamily::UNIX => unix_address(address),
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}

fn unix_address(address: SocketAddrAny) -> io::Result<Address> {
    // Judged here: rustix 1.1 takes no name for an empty abstract one.
    let name_begins = mem::offset_of!(libc::sockaddr_un, sun_path);
    if usize::try_from(address.addr_len()).is_ok_and(|length| length <= name_begins) {
        return Ok(Address::Unnamed);
    }
    let address = SocketAddrUnix::try_from(address)?;
    let name = match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => UnixName::Path(PathBuf::from(OsStr::from_bytes(path))),
        (None, name) => UnixName::Abstract(name.unwrap_or_default().to_vec()),
    };
    Ok(Address::Unix(name))
}

/// Who connected, or who made the pair: as the kernel saw it then, not as it is now.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// The process; `None` when it lives outside of this pid namespace.
    pub pid: Option<Pid>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// The credentials of the process at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
///
/// # Errors
///
/// `ENOTSOCK`; `ENOTCONN` when the socket is no connected Unix socket.
pub fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: libc::uid_t::MAX,
        gid: libc::gid_t::MAX,
    };
    let mut length = libc::socklen_t::try_from(mem::size_of_val(&peer))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open, and both pointers are valid for writing as much as
    // `length` says.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    fd::check(result)?;
    if peer.uid == libc::uid_t::MAX {
        return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    }
    Ok(Credentials {
        pid: Pid::from_raw(peer.pid),
        uid: peer.uid,
        gid: peer.gid,
    })
}
