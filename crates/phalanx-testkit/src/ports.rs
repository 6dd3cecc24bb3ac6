//! Ports for programs that cannot be told to let the kernel choose.
//!
//! A port that the kernel has given and that was closed again is soon given to somebody else: to a listener of another test
//! on port 0, or to a client. So these lie below the range from which the kernel gives (`ip(7)`, `ip_local_port_range`).

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below are those of well-known servers, and those for privileged users.
const FIRST: u16 = 10_000;
/// From here on, if the system does not say so, the kernel gives ports.
const KERNELS: u16 = 32_768;

/// Between two of them: whoever counts on from one (Node's inspectors do) does not soon meet the next.
const STRIDE: u16 = 7;

/// A port that nobody listens on, on any address, and that no other call of this process has returned or will return soon.
///
/// # Panics
/// When there is none.
#[must_use]
#[track_caller]
pub fn free_port() -> u16 {
    // Other runs of the tests begin elsewhere.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let [low, high, ..] = RandomState::new().hash_one(()).to_ne_bytes();
        AtomicU16::new(u16::from_ne_bytes([low, high]))
    });
    let range = ours();
    let count = range.end - range.start;
    let mut tried =
        (0..count).map(|_| range.start + NEXT.fetch_add(STRIDE, Ordering::Relaxed) % count);
    tried.find(|&port| is_free(port)).expect("a free port")
}

/// The ports that the kernel gives to nobody.
fn ours() -> Range<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let begins = range
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    FIRST..begins.unwrap_or(KERNELS).max(FIRST + 1_000)
}

fn is_free(port: u16) -> bool {
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    // Without IPv6 nobody has it there.
    let is_taken = |error: std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() && !v6.is_err_and(is_taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_free_differ_and_are_none_that_the_kernel_gives() {
        let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 50);
        for port in ports {
            assert!(ours().contains(&port), "{port}");
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let taken = TcpListener::bind(address).unwrap();
            assert!(!is_free(taken.local_addr().unwrap().port()), "{address}");
        }
    }
}
