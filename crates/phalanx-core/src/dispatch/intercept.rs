//! Verdicts on the calls of intercepted programs: how a socket that is to listen becomes a worker's.
//!
//! There are two ways. Its *own* socket joins the listener's group: nothing that the program did to it is lost, and the
//! primary keeps a duplicate. Or the worker's slot is *planted* in the place of the program's socket, which can be done
//! without a duplicate and gives the worker what waits in a slot that others have left; but whatever stands for the
//! old socket, an epoll registration or a copy of the descriptor, is cut off.
//!
//! INVARIANT: a socket is never planted when something is attached to the one that it replaces.
//!
//! Which listener a socket belongs to is told by its key: what the same server asks for in every worker.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const PREFIX: &str = "intercept:";
/// Begins the keys of listeners on port 0.
const ANY_PORT: &str = "intercept:any:";

/// What a socket is bound for.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the caller, field by field"
)]
pub struct Asked {
    /// The listener's key.
    pub key: String,
    /// The port was named, by the program or by the primary.
    pub is_numbered: bool,
}

/// How often a worker has bound port 0 of each address.
///
/// Port 0 lets the kernel choose. The n-th bind of one worker to port 0 of an address is taken for the
/// same server as the n-th of another, so all workers of a program get the same port.
#[derive(Debug, Default)]
pub struct AnyPorts(BTreeMap<(IpAddr, bool), u32>);

impl AnyPorts {
    /// What a worker that binds here asks for. `only_v6`: the socket leaves IPv4 alone.
    pub fn asked(&mut self, address: SocketAddr, only_v6: bool) -> Asked {
        let is_numbered = address.port() != 0;
        let key = if is_numbered {
            key(address, only_v6)
        } else {
            self.next_key(address.ip(), only_v6)
        };
        Asked { key, is_numbered }
    }

    fn next_key(&mut self, ip: IpAddr, only_v6: bool) -> String {
        let count = self.0.entry((ip, only_v6)).or_default();
        *count = count.saturating_add(1);
        let address = place(SocketAddr::new(ip, 0), only_v6);
        format!("{ANY_PORT}{address}:{count}")
    }
}

/// Whether it is the key of a bind to port 0.
#[must_use]
pub fn is_any_port(key: &str) -> bool {
    key.starts_with(ANY_PORT)
}

/// Whether a socket that was planted under this key is what a bind to this address asks for.
#[must_use]
pub fn is_key_of(planted: &str, address: SocketAddr, only_v6: bool) -> bool {
    match planted.strip_prefix(ANY_PORT) {
        Some(rest) => {
            let count = rest.strip_prefix(&place(address, only_v6));
            count.is_some_and(|count| count.starts_with(':'))
        }
        None => planted == key(address, only_v6),
    }
}

fn key(address: SocketAddr, only_v6: bool) -> String {
    format!("{PREFIX}{}", place(address, only_v6))
}

/// The kernel counts every socket that is bound to one IPv6 address as one that leaves IPv4 alone
/// (`inet6_bind`), but tells so only afterwards.
fn place(address: SocketAddr, only_v6: bool) -> String {
    let is_one = matches!(address, SocketAddr::V6(one) if !one.ip().is_unspecified());
    let v6 = if only_v6 || is_one { "v6:" } else { "" };
    format!("{v6}{address}")
}

/// What is known of the socket that a worker wants to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the caller, field by field"
)]
pub struct Candidate {
    /// The primary has a duplicate.
    pub is_visible: bool,
    /// Something stands for it that planting would cut off; nothing before it was looked for.
    pub is_attached: Option<bool>,
    /// The port was asked for by its number. A socket whose port the kernel chose loses it when it stops to listen
    /// for a moment.
    pub is_numbered: bool,
}

/// The sockets of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are no others")]
pub enum Sockets {
    /// One for each worker.
    Slots {
        /// What waits in a socket that is closed moves to the others.
        migrate: bool,
    },
    /// One for all.
    One,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are no others")]
pub enum Way {
    /// The socket itself joins the listener's.
    Own,
    /// The worker's slot takes its place.
    Plant,
    /// Find out first whether something is attached to it.
    Look,
    /// Neither can be done: the program would wait on a socket that nobody reaches.
    Refuse(Refusal),
}

/// Why a socket can become no worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are no others")]
pub enum Refusal {
    /// It has attachments, and no duplicate of it can be made.
    Hidden,
    /// It has attachments, and all workers share one socket.
    Shared,
}

/// How `candidate` becomes a worker's socket of a listener. `again`: the worker has one of this listener already.
#[must_use]
pub fn way(candidate: Candidate, sockets: Sockets, again: bool) -> Way {
    let own = match sockets {
        Sockets::Slots { .. } if candidate.is_visible => Ok(()),
        Sockets::Slots { .. } => Err(Refusal::Hidden),
        Sockets::One => Err(Refusal::Shared),
    };
    // Without migration, a slot that was left keeps what waits in it until somebody inherits it.
    let moves = sockets == Sockets::Slots { migrate: true };
    let prefers_own = moves && candidate.is_numbered && !again;
    match (candidate.is_attached, own) {
        (_, Ok(())) if prefers_own => Way::Own,
        (None, _) => Way::Look,
        (Some(false), _) => Way::Plant,
        (Some(true), Ok(())) => Way::Own,
        (Some(true), Err(refusal)) => Way::Refuse(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVING: Sockets = Sockets::Slots { migrate: true };
    const STAYING: Sockets = Sockets::Slots { migrate: false };
    const ALL: [Sockets; 3] = [MOVING, STAYING, Sockets::One];

    fn candidates() -> impl Iterator<Item = Candidate> {
        [true, false].into_iter().flat_map(|is_visible| {
            [None, Some(true), Some(false)]
                .into_iter()
                .flat_map(move |is_attached| {
                    [true, false].map(move |is_numbered| Candidate {
                        is_visible,
                        is_attached,
                        is_numbered,
                    })
                })
        })
    }

    #[test]
    fn nothing_that_is_attached_is_ever_cut_off() {
        for candidate in candidates() {
            for sockets in ALL {
                for again in [true, false] {
                    let way = way(candidate, sockets, again);
                    let context = format!("{candidate:?} {sockets:?} {again}");
                    match way {
                        Way::Plant => assert_eq!(candidate.is_attached, Some(false), "{context}"),
                        Way::Own => {
                            assert!(candidate.is_visible && sockets != Sockets::One, "{context}");
                        }
                        Way::Look => assert_eq!(candidate.is_attached, None, "{context}"),
                        Way::Refuse(_) => {
                            assert_eq!(candidate.is_attached, Some(true), "{context}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_socket_of_its_own_needs_no_look_where_queues_move() {
        let candidate = Candidate {
            is_visible: true,
            is_attached: None,
            is_numbered: true,
        };
        assert_eq!(way(candidate, MOVING, false), Way::Own);
        assert_eq!(way(candidate, STAYING, false), Way::Look);
        assert_eq!(way(candidate, MOVING, true), Way::Look);
    }

    #[test]
    fn a_refusal_names_what_stands_in_the_way() {
        let mut candidate = Candidate {
            is_visible: false,
            is_attached: Some(true),
            is_numbered: true,
        };
        assert_eq!(way(candidate, STAYING, false), Way::Refuse(Refusal::Hidden));
        candidate.is_visible = true;
        let shared = way(candidate, Sockets::One, false);
        assert_eq!(shared, Way::Refuse(Refusal::Shared));
    }

    #[test]
    fn the_same_server_has_the_same_key_in_every_worker() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (mut one, mut other) = (AnyPorts::default(), AnyPorts::default());
        for _ in 0..3 {
            let Asked { key, is_numbered } = one.asked(any, false);
            assert_eq!(key, other.asked(any, false).key);
            assert!(!is_numbered && is_any_port(&key));
            assert!(is_key_of(&key, any, false));
            assert!(!is_key_of(&key, any, true));
            assert!(!is_key_of(&key, "127.0.0.1:80".parse().unwrap(), false));
        }
        let one: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(key(one, true), key(one, false));
        let v6: SocketAddr = "[::]:80".parse().unwrap();
        assert_ne!(key(v6, true), key(v6, false));
        assert!(!is_any_port(&key(v6, true)) && !is_any_port(&key(v6, false)));
        assert!(is_key_of(&key(v6, true), v6, true));
        assert!(!is_key_of(
            &key(v6, false),
            "[::]:8".parse().unwrap(),
            false
        ));
    }
}
