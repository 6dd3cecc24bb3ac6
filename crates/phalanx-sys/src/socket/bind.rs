//! Making sockets and binding them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::UnixName;

/// How a TCP listener is bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpOptions {
    /// For IPv6: whether `[::]` leaves IPv4 alone (`IPV6_V6ONLY`, ipv6(7)). Set either way, so
    /// that the system's default does not matter. Default: no.
    pub only_v6: bool,
    /// How many connections may wait to be accepted, for [`listen`]; the kernel caps it at
    /// `net.core.somaxconn`. Default: 511, as Node has it.
    pub backlog: u32,
    /// Whether other sockets of this user may bind the same address, to form a group
    /// (`SO_REUSEPORT`, socket(7)). Default: no.
    pub reuse_port: bool,
}

impl Default for TcpOptions {
    fn default() -> TcpOptions {
        TcpOptions {
            only_v6: false,
            backlog: 511,
            reuse_port: false,
        }
    }
}

/// How a UDP socket is bound.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UdpOptions {
    /// For IPv6: whether `[::]` leaves IPv4 alone, as for [`TcpOptions::only_v6`].
    pub only_v6: bool,
    /// Whether others may bind the same address (`SO_REUSEADDR`; the last one gets the
    /// datagrams).
    pub reuse_addr: bool,
}

/// A TCP socket bound to `address`, not listening yet. Connections of a predecessor that are
/// still in `TIME_WAIT` do not keep it from being bound (`SO_REUSEADDR`).
///
/// Nothing that listens on the address already is tolerated, unless both sides have
/// `reuse_port`. Without it, Linux notices another socket that is bound with `SO_REUSEADDR` and
/// does not listen yet only in [`listen`].
///
/// # Errors
///
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` for a privileged port, `EAFNOSUPPORT` when the system
/// has no IPv6, `EMFILE` and the like (bind(2), socket(2)).
pub fn bind_tcp(address: SocketAddr, options: &TcpOptions) -> io::Result<OwnedFd> {
    let socket = unbound_tcp(address, options)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// A TCP socket that is ready to be bound to `address`.
pub(super) fn unbound_tcp(address: SocketAddr, options: &TcpOptions) -> io::Result<OwnedFd> {
    let socket = inet_socket(address, SocketType::STREAM, options.only_v6)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if options.reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    Ok(socket)
}

/// A UDP socket bound to `address`.
///
/// # Errors
///
/// As for [`bind_tcp`].
pub fn bind_udp(address: SocketAddr, options: &UdpOptions) -> io::Result<OwnedFd> {
    let socket = inet_socket(address, SocketType::DGRAM, options.only_v6)?;
    if options.reuse_addr {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// A Unix stream socket bound to `name`, not listening yet. For a path, the file is made with
/// the permissions that the umask leaves; it is not removed when the socket is closed.
///
/// A path that is too long for the kernel (107 bytes) is written the other way, absolute or
/// relative to the working directory, if that is shorter.
///
/// # Errors
///
/// `EADDRINUSE` when there is such a file, be it a living socket or a dead one;
/// `ENAMETOOLONG`; those of bind(2).
pub fn bind_unix(name: &UnixName) -> io::Result<OwnedFd> {
    let address = match name {
        UnixName::Path(path) => path_address(path)?,
        UnixName::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
    };
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// Starts to listen, or changes the backlog of a listener (listen(2)).
///
/// # Errors
///
/// `EADDRINUSE` when another socket listens on the address already.
pub fn listen(fd: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    Ok(net::listen(fd, backlog)?)
}

fn inet_socket(address: SocketAddr, kind: SocketType, only_v6: bool) -> io::Result<OwnedFd> {
    match address {
        SocketAddr::V4(_) => socket(AddressFamily::INET, kind),
        SocketAddr::V6(_) => {
            let socket = socket(AddressFamily::INET6, kind)?;
            sockopt::set_ipv6_v6only(&socket, only_v6)?;
            Ok(socket)
        }
    }
}

pub(super) fn socket(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, kind, flags, None)?)
}

fn path_address(path: &Path) -> io::Result<SocketAddrUnix> {
    // An empty path would have the kernel choose an abstract name.
    if path.as_os_str().is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    match SocketAddrUnix::new(path) {
        Ok(address) => Ok(address),
        Err(errno) => {
            let cwd = std::env::current_dir().unwrap_or_default();
            let other = written_otherwise(path, &cwd).ok_or(errno)?;
            Ok(SocketAddrUnix::new(&other).map_err(|_| errno)?)
        }
    }
}

/// The same path relative to `cwd` if it is absolute, and absolute if it is relative.
fn written_otherwise(path: &Path, cwd: &Path) -> Option<PathBuf> {
    if path.is_absolute() {
        path.strip_prefix(cwd).ok().map(Path::to_path_buf)
    } else {
        // Normalises `./././a`, and is shorter for that alone.
        Some(cwd.join(path).components().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_written_in_two_ways() {
        let cwd = Path::new("/run/app");
        let otherwise = |path: &str| written_otherwise(Path::new(path), cwd);
        assert_eq!(otherwise("/run/app/a.sock"), Some("a.sock".into()));
        assert_eq!(otherwise("/run/other/a.sock"), None);
        assert_eq!(otherwise("././a.sock"), Some("/run/app/a.sock".into()));
    }

    #[test]
    fn a_path_beyond_help_is_too_long() {
        let name = UnixName::Path(Path::new("/nowhere").join("x".repeat(120)));
        let error = bind_unix(&name).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn an_empty_path_is_no_name() {
        let error = bind_unix(&UnixName::Path(PathBuf::new())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
