//! Where a cluster listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// An address to listen on, or of a peer.
///
/// As text: `127.0.0.1:3000`, `[::1]:3000`, `:3000` (any address), `unix:/run/app.sock`,
/// `unix:@name` (abstract namespace), and `unix:` for a peer without a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// TCP or UDP.
    Inet(SocketAddr),
    /// TCP on every address of the machine: `::` in dual stack, or `0.0.0.0` where there is no IPv6.
    AnyInet(u16),
    /// A Unix socket in the file system.
    Unix(PathBuf),
    /// A Unix socket in the abstract namespace, without the leading NUL.
    Abstract(Vec<u8>),
    /// The unnamed end of a Unix socket, as peers have it.
    Unnamed,
}

impl Address {
    /// The IP address and port, if it has them.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::AnyInet(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port)),
            Self::Unix(_) | Self::Abstract(_) | Self::Unnamed => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::AnyInet(port) => write!(f, ":{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
            Self::Unnamed => f.write_str("unix:"),
        }
    }
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: use 127.0.0.1:3000, [::1]:3000, :3000, unix:/path or unix:@name")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadAddress(text.to_owned());
        if let Some(name) = text.strip_prefix("unix:") {
            return match name.strip_prefix('@') {
                Some("") => Err(bad()),
                Some(name) => Ok(Self::Abstract(name.as_bytes().to_vec())),
                None if name.is_empty() => Err(bad()),
                None => Ok(Self::Unix(PathBuf::from(name))),
            };
        }
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::AnyInet).map_err(|_| bad());
        }
        let text = text
            .strip_prefix("localhost:")
            .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().map(Self::Inet).map_err(|_| bad())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What [`ThisWorker::listen`](crate::ThisWorker::listen) takes. It is implemented here alone, so that it can grow.
pub trait ToAddress: sealed::Sealed {
    /// The address.
    ///
    /// # Errors
    /// When a text is no address.
    fn to_address(&self) -> Result<Address, BadAddress>;
}

mod sealed {
    use std::net::{IpAddr, SocketAddr};
    use std::path::{Path, PathBuf};

    #[expect(unnameable_types, reason = "that is what seals the trait")]
    pub trait Sealed {}

    impl Sealed for str {}
    impl Sealed for String {}
    impl Sealed for SocketAddr {}
    impl Sealed for (IpAddr, u16) {}
    impl Sealed for Path {}
    impl Sealed for PathBuf {}
    impl Sealed for super::Address {}
    impl<T: Sealed + ?Sized> Sealed for &T {}
}

impl ToAddress for str {
    fn to_address(&self) -> Result<Address, BadAddress> {
        self.parse()
    }
}

impl ToAddress for String {
    fn to_address(&self) -> Result<Address, BadAddress> {
        self.parse()
    }
}

impl ToAddress for SocketAddr {
    fn to_address(&self) -> Result<Address, BadAddress> {
        Ok(Address::Inet(*self))
    }
}

impl ToAddress for (IpAddr, u16) {
    fn to_address(&self) -> Result<Address, BadAddress> {
        Ok(Address::Inet((*self).into()))
    }
}

impl ToAddress for Path {
    fn to_address(&self) -> Result<Address, BadAddress> {
        Ok(Address::Unix(self.to_path_buf()))
    }
}

impl ToAddress for PathBuf {
    fn to_address(&self) -> Result<Address, BadAddress> {
        self.as_path().to_address()
    }
}

impl ToAddress for Address {
    fn to_address(&self) -> Result<Address, BadAddress> {
        Ok(self.clone())
    }
}

impl<T: ToAddress + ?Sized> ToAddress for &T {
    fn to_address(&self) -> Result<Address, BadAddress> {
        (**self).to_address()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "127.0.0.1:3000",
            "[::1]:80",
            ":8080",
            "unix:/run/a.sock",
            "unix:@name",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(
            "localhost:1".parse::<Address>().unwrap().to_string(),
            "127.0.0.1:1"
        );
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_that_are() {
        for text in [
            "",
            "3000",
            "host:80",
            ":70000",
            "unix:",
            "unix:@",
            "127.0.0.1",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("127.0.0.1:3000"), "{error}");
        }
    }
}
