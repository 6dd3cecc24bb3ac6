//! On what workers may listen that have fewer rights than their primary: it opens sockets for them, and would
//! otherwise lend them its rights.
//!
//! Without patterns a worker may have what the first generation asked for while it started, but no privileged port
//! and no path outside of the working directory. With patterns, it may have what they name and nothing else. Port 0 is
//! anybody's.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

/// What a worker wants to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there is nothing else to listen on"
)]
pub enum Wanted<'a> {
    /// A port of TCP or UDP; no address means every one.
    Port(Option<IpAddr>, u16),
    /// A path, without links.
    Path {
        /// Where it is.
        real: &'a Path,
        /// Whether it lies in the working directory.
        is_inside: bool,
    },
    /// A name in the abstract namespace.
    Abstract(&'a [u8]),
    /// A descriptor that the primary was started with.
    Descriptor(i32),
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(None, port) => write!(f, "{port}"),
            Self::Port(Some(IpAddr::V6(address)), port) => write!(f, "[{address}]:{port}"),
            Self::Port(Some(address), port) => write!(f, "{address}:{port}"),
            Self::Path { real, .. } => write!(f, "unix:{}", real.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

/// What may be listened on: `[HOST:]PORT`, `[HOST:]FIRST-LAST`, `[HOST:]*`, `unix:/PATH`, `unix:@NAME`, `fd:N`. In
/// paths and names, `*` stands for anything without a `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Ports {
        address: Option<IpAddr>,
        first: u16,
        last: u16,
    },
    Path(String),
    Abstract(String),
    Descriptor(i32),
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern: use [HOST:]PORT, [HOST:]FIRST-LAST, [HOST:]*, unix:/PATH, unix:@NAME or fd:N"
)]
pub struct BadPattern(String);

impl FromStr for ListenPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        parse(text)
            .map(Self)
            .ok_or_else(|| BadPattern(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Pattern> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.strip_prefix('@') {
            Some(name) if !name.is_empty() => Some(Pattern::Abstract(name.to_owned())),
            None if path.starts_with('/') => Some(Pattern::Path(path.to_owned())),
            Some(_) | None => None,
        };
    }
    if let Some(number) = text.strip_prefix("fd:") {
        return number.parse().ok().map(Pattern::Descriptor);
    }
    let (host, ports) = text.rsplit_once(':').unwrap_or(("*", text));
    let address = match host {
        "" | "*" => None,
        _ => {
            let host = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host);
            Some(host.parse().ok()?)
        }
    };
    let (first, last) = match ports.split_once('-') {
        _ if ports == "*" => (0, u16::MAX),
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => (ports.parse().ok()?, ports.parse().ok()?),
    };
    (first <= last).then_some(Pattern::Ports {
        address,
        first,
        last,
    })
}

impl ListenPattern {
    fn matches(&self, wanted: &Wanted<'_>) -> bool {
        match (&self.0, wanted) {
            (
                Pattern::Ports {
                    address,
                    first,
                    last,
                },
                Wanted::Port(asked, port),
            ) => (address.is_none() || address == asked) && (first..=last).contains(&port),
            (Pattern::Path(pattern), Wanted::Path { real, .. }) => real
                .to_str()
                .is_some_and(|real| is_like(pattern.as_bytes(), real.as_bytes())),
            (Pattern::Abstract(pattern), Wanted::Abstract(name)) => {
                is_like(pattern.as_bytes(), name)
            }
            (Pattern::Descriptor(number), Wanted::Descriptor(asked)) => number == asked,
            (
                Pattern::Ports { .. }
                | Pattern::Path(_)
                | Pattern::Abstract(_)
                | Pattern::Descriptor(_),
                Wanted::Port(..)
                | Wanted::Path { .. }
                | Wanted::Abstract(_)
                | Wanted::Descriptor(_),
            ) => false,
        }
    }
}

/// A star stands for anything without a slash.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            let reach = text
                .iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(text.len());
            (0..=reach).any(|taken| is_like(rest, &text[taken..]))
        }
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(byte, text)| byte == first && is_like(rest, text)),
    }
}

/// Why a worker may not listen there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No pattern names it.
    #[error("{0} is not among what --allow-listen names")]
    NotNamed(String),
    /// Its port is privileged.
    #[error(
        "{0} is a privileged port, and workers run as another user: --allow-listen {0} would allow it"
    )]
    Privileged(String),
    /// It lies outside of the working directory.
    #[error(
        "{0} lies outside of the working directory, and workers run as another user: --allow-listen {0} would allow it"
    )]
    Outside(String),
    /// The first generation did not ask for it.
    #[error(
        "the first generation did not ask for {0} while it started: --allow-listen {0} would allow it"
    )]
    New(String),
}

/// What workers may listen on.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    is_limited: bool,
    patterns: Vec<ListenPattern>,
    /// What was asked for while the first generation started.
    asked: BTreeSet<String>,
    has_started: bool,
}

impl Allowance {
    /// For workers with the primary's own rights, unless there are patterns; or with fewer. What was asked for
    /// before stays.
    pub fn change(&mut self, patterns: Vec<ListenPattern>, have_fewer_rights: bool) {
        self.is_limited = have_fewer_rights || !patterns.is_empty();
        self.patterns = patterns;
    }

    /// The first generation is complete: nothing is added any more.
    pub fn started(&mut self) {
        self.has_started = true;
    }

    /// May a worker listen there? `first_free_port` is the first that needs no privilege.
    ///
    /// # Errors
    /// Why it may not.
    pub fn judge(&mut self, wanted: &Wanted<'_>, first_free_port: u16) -> Result<(), Refusal> {
        if !self.is_limited || matches!(wanted, Wanted::Port(_, 0)) {
            return Ok(());
        }
        let shown = wanted.to_string();
        if !self.patterns.is_empty() {
            let is_named = self.patterns.iter().any(|pattern| pattern.matches(wanted));
            return if is_named {
                Ok(())
            } else {
                Err(Refusal::NotNamed(shown))
            };
        }
        match wanted {
            Wanted::Port(_, port) if *port < first_free_port => {
                return Err(Refusal::Privileged(shown));
            }
            Wanted::Path {
                is_inside: false, ..
            } => return Err(Refusal::Outside(shown)),
            Wanted::Port(..)
            | Wanted::Path { .. }
            | Wanted::Abstract(_)
            | Wanted::Descriptor(_) => {}
        }
        if self.has_started && !self.asked.contains(&shown) {
            return Err(Refusal::New(shown));
        }
        self.asked.insert(shown);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: u16 = 1024;

    fn allowance(patterns: Vec<ListenPattern>, have_fewer_rights: bool) -> Allowance {
        let mut allowance = Allowance::default();
        allowance.change(patterns, have_fewer_rights);
        allowance
    }

    fn port(port: u16) -> Wanted<'static> {
        Wanted::Port(None, port)
    }

    fn path(real: &str, is_inside: bool) -> Wanted<'_> {
        Wanted::Path {
            real: Path::new(real),
            is_inside,
        }
    }

    fn patterns(texts: &[&str]) -> Vec<ListenPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn workers_with_the_primarys_rights_may_do_as_it_may() {
        let mut all = allowance(Vec::new(), false);
        all.started();
        assert_eq!(all.judge(&port(80), FREE), Ok(()));
        assert_eq!(all.judge(&path("/etc/x", false), FREE), Ok(()));
    }

    #[test]
    fn others_keep_to_what_the_first_generation_asked_for() {
        let mut limited = allowance(Vec::new(), true);
        assert_eq!(limited.judge(&port(8080), FREE), Ok(()));
        assert_eq!(limited.judge(&path("/srv/app/x", true), FREE), Ok(()));
        assert!(matches!(
            limited.judge(&port(80), FREE),
            Err(Refusal::Privileged(_))
        ));
        assert!(matches!(
            limited.judge(&path("/etc/x", false), FREE),
            Err(Refusal::Outside(_))
        ));
        limited.started();
        assert_eq!(limited.judge(&port(8080), FREE), Ok(()));
        assert_eq!(limited.judge(&port(0), FREE), Ok(()));
        assert!(matches!(
            limited.judge(&port(8081), FREE),
            Err(Refusal::New(_))
        ));
        let other = Wanted::Port(Some("127.0.0.1".parse().unwrap()), 8080);
        assert!(matches!(limited.judge(&other, FREE), Err(Refusal::New(_))));
    }

    #[test]
    fn patterns_are_all_there_is() {
        let texts = [
            "443",
            "127.0.0.1:8000-8002",
            "unix:/run/app/*.sock",
            "unix:@app*",
            "fd:3",
        ];
        let mut limited = allowance(patterns(&texts), true);
        let loopback = Some("127.0.0.1".parse().unwrap());
        let good = [
            port(443),
            Wanted::Port(loopback, 443),
            Wanted::Port(loopback, 8002),
            path("/run/app/a.sock", false),
            Wanted::Abstract(b"app-1"),
            Wanted::Descriptor(3),
        ];
        for wanted in &good {
            assert_eq!(limited.judge(wanted, FREE), Ok(()), "{wanted}");
        }
        let bad = [
            port(80),
            port(8000),
            Wanted::Port(loopback, 8003),
            path("/run/app/b/a.sock", true),
            path("/run/app/a.socks", true),
            Wanted::Abstract(b"other"),
            Wanted::Descriptor(4),
        ];
        for wanted in &bad {
            let refused = limited.judge(wanted, FREE);
            assert!(matches!(refused, Err(Refusal::NotNamed(_))), "{wanted}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for text in [
            "", "x", "80-79", "70000", "host:80", "unix:x", "unix:@", "fd:x", "1:2:3",
        ] {
            assert!(text.parse::<ListenPattern>().is_err(), "{text}");
        }
        for text in ["*", ":80", "*:80", "[::1]:80", "[::]:*", "1-65535"] {
            assert!(text.parse::<ListenPattern>().is_ok(), "{text}");
        }
    }
}
