//! What a program says of itself in the protocol of `sd_notify(3)`: lines `NAME=VALUE` in a datagram.
//!
//! Lines that nobody here has use for are passed over, as the protocol demands.

use std::time::Duration;

/// The longest status text that is kept, in bytes.
const STATUS_BYTES_MAX: usize = 512;

/// What one datagram says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// `READY=1`: it serves.
    pub ready: bool,
    /// `STOPPING=1`: it has begun to end.
    pub stopping: bool,
    /// `STATUS=`: what it is doing, for people.
    pub status: Option<String>,
    /// `WATCHDOG=`: it is alive, or it has given itself up.
    pub watchdog: Option<Watchdog>,
    /// `EXTEND_TIMEOUT_USEC=`: so long from now on it asks for patience.
    pub extend: Option<Duration>,
}

/// What a program says to its watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watchdog {
    /// `1`: it is alive.
    Alive,
    /// `trigger`: it has noticed itself that it does not work.
    Trigger,
}

impl Notice {
    /// Reads a datagram. Anything is one: what is not understood says nothing.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Self {
        let text = String::from_utf8_lossy(datagram);
        let mut notice = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            match name {
                "READY" => notice.ready |= value == "1",
                "STOPPING" => notice.stopping |= value == "1",
                "STATUS" => notice.status = Some(cleaned(value)),
                "WATCHDOG" => notice.watchdog = watchdog(value).or(notice.watchdog),
                "EXTEND_TIMEOUT_USEC" => {
                    notice.extend = value.parse().ok().map(Duration::from_micros);
                }
                _ => {}
            }
        }
        notice
    }
}

fn watchdog(value: &str) -> Option<Watchdog> {
    match value {
        "1" => Some(Watchdog::Alive),
        "trigger" => Some(Watchdog::Trigger),
        _ => None,
    }
}

/// A status is shown on terminals: without control characters, and not endless.
fn cleaned(status: &str) -> String {
    let mut text: String = status.chars().filter(|char| !char.is_control()).collect();
    let end = (0..=STATUS_BYTES_MAX.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_says_several_things() {
        let notice = Notice::parse(b"STATUS=serving 3 clients\nREADY=1\nWATCHDOG=1\nMAINPID=4\n");
        assert!(notice.ready && !notice.stopping);
        assert_eq!(notice.status.as_deref(), Some("serving 3 clients"));
        assert_eq!(notice.watchdog, Some(Watchdog::Alive));
        let notice = Notice::parse(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nWATCHDOG=trigger");
        assert!(notice.stopping);
        assert_eq!(notice.extend, Some(Duration::from_millis(1500)));
        assert_eq!(notice.watchdog, Some(Watchdog::Trigger));
    }

    #[test]
    fn what_is_not_understood_says_nothing() {
        for datagram in [
            &b""[..],
            b"READY",
            b"READY=0",
            b"\xff\xfe=1\n=\n==",
            b"EXTEND_TIMEOUT_USEC=soon",
            b"ready=1",
        ] {
            assert_eq!(Notice::parse(datagram), Notice::default(), "{datagram:?}");
        }
    }

    #[test]
    fn a_status_is_fit_to_be_shown() {
        let mut datagram = "STATUS=\u{1b}[31m".as_bytes().to_vec();
        datagram.extend("ä".repeat(600).as_bytes());
        let status = Notice::parse(&datagram).status.unwrap();
        assert!(status.starts_with("[31mä"), "{status}");
        assert_eq!(status.len(), STATUS_BYTES_MAX);
    }
}
