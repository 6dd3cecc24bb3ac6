//! Where a worker wants to listen, in words: for the log.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Target;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, port, .. } => inet(f, *address, *port),
            Self::Udp { address, port, .. } => {
                f.write_str("udp:")?;
                inet(f, *address, *port)
            }
            Self::UnixPath { path, .. } => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Self::Descriptor(number) | Self::DatagramDescriptor(number) => {
                write!(f, "descriptor {number}")
            }
        }
    }
}

/// No address is any: `:3000`.
fn inet(f: &mut fmt::Formatter<'_>, address: Option<IpAddr>, port: u16) -> fmt::Result {
    match address {
        Some(address) => write!(f, "{}", SocketAddr::new(address, port)),
        None => write!(f, ":{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_addresses() {
        let tcp = |address: Option<&str>| Target::Tcp {
            address: address.map(|address| address.parse().unwrap()),
            port: 4101,
            only_v6: false,
        };
        assert_eq!(tcp(Some("127.0.0.1")).to_string(), "127.0.0.1:4101");
        assert_eq!(tcp(Some("::1")).to_string(), "[::1]:4101");
        assert_eq!(tcp(None).to_string(), ":4101");
        let name = Target::UnixAbstract(b"a\x1b".to_vec());
        assert_eq!(name.to_string(), "unix:@a\\x1b");
    }
}
