//! Addresses and client sockets, TCP and Unix alike, each operation with a limit.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, net};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Where a server listens. Parsed from `127.0.0.1:80`, `[::1]:80`, `tcp://…`, `/path` or
/// `unix:/path`; an unspecified address (`0.0.0.0`, `[::]`) becomes loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

impl Target {
    /// The loopback address with this port.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The TCP address; panics for a Unix socket.
    #[must_use]
    #[track_caller]
    pub fn tcp(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) => *address,
            Self::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let address = text.strip_prefix("tcp:").unwrap_or(text);
        let address = address.strip_prefix("//").unwrap_or(address);
        address.parse::<SocketAddr>().map(Self::from)
    }
}

impl From<SocketAddr> for Target {
    fn from(mut address: SocketAddr) -> Self {
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self::Tcp(address)
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

/// A connected stream socket. Every read and write fails with `WouldBlock` after the limit given
/// to [`Socket::connect`].
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(crate) fn connect(target: &Target, limit: Duration) -> io::Result<Self> {
        match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, limit)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                Ok(Self::Tcp(stream))
            }
            Target::Unix(path) => {
                let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
                let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
                // unix(7): connect waits for room in the backlog as long as SO_SNDTIMEO allows.
                set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
                set_socket_timeout(&socket, Timeout::Recv, Some(limit))?;
                connect(&socket, &SocketAddrUnix::new(path)?)?;
                Ok(Self::Unix(UnixStream::from(socket)))
            }
        }
    }

    /// Ends both directions: a reader blocked in another thread sees the end.
    pub(crate) fn shutdown(&self) {
        let both = net::Shutdown::Both;
        let done = match self {
            Self::Tcp(stream) => stream.shutdown(both),
            Self::Unix(stream) => stream.shutdown(both),
        };
        // A socket that the peer has already ended is as shut as it can be.
        done.ok();
    }

    pub(crate) fn set_read_limit(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(limit),
            Self::Unix(stream) => stream.set_read_timeout(limit),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).read(buffer),
            Socket::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).write(bytes),
            Socket::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        let parsed = |text: &str| text.parse::<Target>().unwrap().to_string();
        assert_eq!(parsed("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(parsed("tcp://0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(parsed("[::]:80"), "[::1]:80");
        assert_eq!(parsed("unix:/a/b"), "/a/b");
        assert_eq!(parsed("unix:///a/b"), "/a/b");
        assert_eq!(parsed("/a/b"), "/a/b");
        assert!("nonsense".parse::<Target>().is_err());
    }
}
