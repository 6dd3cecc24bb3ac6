//! A listener that is opened elsewhere than the program asks for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where a port of the program is published.
///
/// As text: `[HOST:]PORT:APP_PORT`. Without a host, on the address that the program asks for; an IPv6
/// address is in brackets. Port 0 lets the kernel choose one. `[HOST:]0:*` is for all ports that no other
/// rule names: each on its own number where that is free, else on one that the kernel chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publish {
    /// The address to listen on; the program's own unless told otherwise.
    pub host: Option<IpAddr>,
    /// The port to listen on.
    pub port: u16,
    /// The TCP port that the program asks for; nothing: whatever port it asks for.
    pub app_port: Option<u16>,
}

impl Publish {
    /// Where a program may listen that asks for this address, the preferred place first; nowhere if the
    /// rule is for another port. No address means any.
    #[must_use]
    pub fn places(&self, ip: Option<IpAddr>, port: u16) -> Vec<(Option<IpAddr>, u16)> {
        let host = self.host.or(ip);
        match self.app_port {
            Some(app_port) if app_port == port => vec![(host, self.port)],
            Some(_) => Vec::new(),
            None if port == self.port => vec![(host, port)],
            None => vec![(host, port), (host, self.port)],
        }
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(IpAddr::V6(host)) => write!(f, "[{host}]:")?,
            Some(IpAddr::V4(host)) => write!(f, "{host}:")?,
            None => {}
        }
        write!(f, "{}:", self.port)?;
        match self.app_port {
            Some(app_port) => write!(f, "{app_port}"),
            None => f.write_str("*"),
        }
    }
}

/// A text that publishes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} publishes no port: use [HOST:]PORT:APP_PORT, as 80:8080 or 127.0.0.1:80:8080, or [HOST:]0:*"
)]
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
        let port = number(port)?;
        let app_port = match app_port {
            // All of them cannot be published on one.
            "*" if port == 0 => None,
            named => Some(number(named)?)
                .filter(|&port| port != 0)
                .map(Some)
                .ok_or_else(bad)?,
        };
        Ok(Self {
            host: host.transpose()?,
            port,
            app_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn places(text: &str, ip: &str, port: u16) -> Vec<String> {
        let places = text
            .parse::<Publish>()
            .unwrap()
            .places(ip.parse().ok(), port);
        let place = |(ip, port): (Option<IpAddr>, u16)| {
            ip.map_or_else(
                || format!("any:{port}"),
                |ip| SocketAddr::new(ip, port).to_string(),
            )
        };
        places.into_iter().map(place).collect()
    }

    #[test]
    fn ports_are_published_as_they_are_written() {
        for text in [
            "80:8080",
            "0:3000",
            "127.0.0.1:80:8080",
            "[::1]:80:8080",
            "0:*",
            "127.0.0.1:0:*",
        ] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), text);
        }
        assert_eq!(places("80:8080", "0.0.0.0", 8080), ["0.0.0.0:80"]);
        assert_eq!(places("80:8080", "", 8080), ["any:80"]);
        assert_eq!(places("localhost:80:8080", "::", 8080), ["127.0.0.1:80"]);
        assert!(places("80:8081", "0.0.0.0", 8080).is_empty());
    }

    #[test]
    fn whatever_is_asked_for_keeps_its_number_where_that_is_free() {
        let text = "127.0.0.1:0:*";
        assert_eq!(places(text, "::", 8080), ["127.0.0.1:8080", "127.0.0.1:0"]);
        assert_eq!(places(text, "127.0.0.1", 0), ["127.0.0.1:0"]);
        assert_eq!(places("0:*", "", 80), ["any:80", "any:0"]);
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
            "80:*",
            "*:80",
            "*",
        ] {
            let error = text.parse::<Publish>().unwrap_err().to_string();
            assert!(error.contains("80:8080"), "{error}");
        }
    }
}
