//! Listeners that are to be shared.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A listener that all workers share, although phalanx would leave it to its worker.
///
/// As text: `HOST:0`, with HOST an IP address, an IPv6 address in brackets, or `localhost`; `:0`, port 0 of whatever
/// address; or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Share {
    /// One on port 0 of this address; nothing: of whatever address.
    AnyPort(Option<IpAddr>),
    /// One on this Unix path.
    Path(PathBuf),
}

impl Share {
    /// Does the rule name a listener on port 0 of this address?
    #[must_use]
    pub fn names(&self, ip: IpAddr) -> bool {
        match self {
            Self::AnyPort(host) => host.is_none_or(|host| host == ip),
            Self::Path(_) => false,
        }
    }

    /// The Unix path that it names.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::AnyPort(_) => None,
            Self::Path(path) => Some(path),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyPort(Some(host)) => SocketAddr::new(*host, 0).fmt(f),
            Self::AnyPort(None) => f.write_str(":0"),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that names no such listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no listener that could be private: use HOST:0, as 127.0.0.1:0, :0 for every address, or unix:PATH"
)]
pub struct BadShare(String);

impl FromStr for Share {
    type Err = BadShare;

    fn from_str(text: &str) -> Result<Self, BadShare> {
        let bad = || BadShare(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Path(path.into()));
        }
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
        Ok(Self::AnyPort(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written() {
        for text in ["127.0.0.1:0", "[::1]:0", ":0", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        let local: Share = "localhost:0".parse().unwrap();
        assert!(local.names([127, 0, 0, 1].into()));
        assert!(!local.names([127, 0, 0, 2].into()));
        for text in [
            "",
            "0",
            "127.0.0.1",
            "127.0.0.1:80",
            "::1:0",
            "host:0",
            "unix:",
        ] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
