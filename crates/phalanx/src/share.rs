//! Listeners on port 0 that are to be shared.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A listener on port 0 that all workers share, although the app listens elsewhere too.
///
/// As text: `HOST:0`, with HOST an IP address, an IPv6 address in brackets, or `localhost`; or `:0`, on whatever
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// The address; nothing: whatever address.
    pub host: Option<IpAddr>,
}

impl Share {
    /// Does the rule name a listener on port 0 of this address?
    #[must_use]
    pub fn names(&self, ip: IpAddr) -> bool {
        self.host.is_none_or(|host| host == ip)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(host) => SocketAddr::new(host, 0).fmt(f),
            None => f.write_str(":0"),
        }
    }
}

/// A text that names no listener on port 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no listener on port 0: use HOST:0, as 127.0.0.1:0, or :0 for every address")]
pub struct BadShare(String);

impl FromStr for Share {
    type Err = BadShare;

    fn from_str(text: &str) -> Result<Self, BadShare> {
        let bad = || BadShare(text.to_owned());
        let host = text.strip_suffix(":0").ok_or_else(bad)?;
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match (host, inner) {
            ("", _) => None,
            ("localhost", _) => Some(IpAddr::from([127, 0, 0, 1])),
            (_, Some(inner)) => Some(inner.parse::<Ipv6Addr>().map_err(|_| bad())?.into()),
            (host, None) => Some(
                host.parse::<std::net::Ipv4Addr>()
                    .map_err(|_| bad())?
                    .into(),
            ),
        };
        Ok(Self { host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written() {
        for text in ["127.0.0.1:0", "[::1]:0", ":0"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        let local: Share = "localhost:0".parse().unwrap();
        assert!(local.names([127, 0, 0, 1].into()));
        assert!(!local.names([127, 0, 0, 2].into()));
        for text in ["", "0", "127.0.0.1", "127.0.0.1:80", "::1:0", "host:0"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
