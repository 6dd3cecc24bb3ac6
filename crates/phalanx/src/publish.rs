//! A listener that is opened elsewhere than the program asks for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Where a port of the program is published.
///
/// As text: `[HOST:]PORT:APP_PORT`. Without a host, on the address that the program asks for; an IPv6
/// address is in brackets. Port 0 lets the kernel choose one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publish {
    /// The address to listen on; the program's own unless told otherwise.
    pub host: Option<IpAddr>,
    /// The port to listen on.
    pub port: u16,
    /// The TCP port that the program asks for.
    pub app_port: u16,
}

impl Publish {
    /// Where the program listens, if it asks for this address.
    #[must_use]
    pub fn apply(&self, ip: IpAddr, port: u16) -> Option<SocketAddr> {
        (port == self.app_port).then(|| SocketAddr::new(self.host.unwrap_or(ip), self.port))
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(IpAddr::V6(host)) => write!(f, "[{host}]:")?,
            Some(IpAddr::V4(host)) => write!(f, "{host}:")?,
            None => {}
        }
        write!(f, "{}:{}", self.port, self.app_port)
    }
}

/// A text that publishes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} publishes no port: use [HOST:]PORT:APP_PORT, as 80:8080 or 127.0.0.1:80:8080")]
pub struct BadPublish(String);

impl FromStr for Publish {
    type Err = BadPublish;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadPublish(text.to_owned());
        let (rest, app_port) = text.rsplit_once(':').ok_or_else(bad)?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (Some(host), port),
            None => (None, rest),
        };
        let host = host.map(|host| match host.strip_prefix('[') {
            Some(v6) => {
                let v6 = v6.strip_suffix(']').ok_or_else(bad)?;
                v6.parse().map(IpAddr::V6).map_err(|_| bad())
            }
            None if host == "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
            None => host.parse().map(IpAddr::V4).map_err(|_| bad()),
        });
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_number).ok_or_else(bad)
        };
        let app_port = number(app_port)?;
        if app_port == 0 {
            return Err(bad());
        }
        Ok(Self {
            host: host.transpose()?,
            port: number(port)?,
            app_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_published_as_they_are_written() {
        for text in ["80:8080", "0:3000", "127.0.0.1:80:8080", "[::1]:80:8080"] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), text);
        }
        let own: IpAddr = [0, 0, 0, 0].into();
        let apply = |text: &str| text.parse::<Publish>().unwrap().apply(own, 8080);
        assert_eq!(apply("80:8080"), Some(SocketAddr::new(own, 80)));
        assert_eq!(apply("localhost:80:8080"), "127.0.0.1:80".parse().ok());
        assert_eq!(apply("80:8081"), None);
    }

    #[test]
    fn what_publishes_nothing_is_refused_with_the_form_that_does() {
        for text in [
            "",
            "80",
            ":",
            "80:",
            ":80",
            "80:0",
            "80:70000",
            "-1:80",
            "+80:80",
            "::1:80:8080",
            "host:80:8080",
            "[::1:80:8080",
            "[127.0.0.1]:80:8080",
            "1:2:3:4",
        ] {
            let error = text.parse::<Publish>().unwrap_err().to_string();
            assert!(error.contains("80:8080"), "{error}");
        }
    }
}
