//! Whom the drill aims at: pure reading of addresses and of an app's status.
//!
//! INVARIANT: a target is on this machine. A drill is a load, and nobody else's server is to get it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use phalanx_control::api::{Status, WorkerState};

use phalanx_control::exit::Exit;
use phalanx_control::failure::{Failure, Outcome};

/// The loopback address that `http://HOST:PORT` names, and what goes into `Host`.
pub(super) fn of_url(url: &str) -> Outcome<(SocketAddr, String)> {
    let usage = |reason: String| Failure::new(Exit::Usage, reason);
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        usage(format!(
            "--url {url}: use http://127.0.0.1:PORT; the drill speaks plain HTTP/1.1"
        ))
    })?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() {
        return Err(usage(format!(
            "--url {url}: give the path by --path /{path}"
        )));
    }
    let address = if authority.parse::<SocketAddr>().is_ok() || authority.contains(':') {
        authority.replacen("localhost:", "127.0.0.1:", 1)
    } else {
        format!("{}:80", authority.replace("localhost", "127.0.0.1"))
    };
    let address: SocketAddr = address.parse().map_err(|_| {
        usage(format!(
            "--url {url}: use an address of this machine: http://127.0.0.1:PORT"
        ))
    })?;
    if !address.ip().is_loopback() {
        return Err(usage(format!(
            "--url {url}: {} is no loopback address; a drill is run only against this machine (127.0.0.1, [::1])",
            address.ip()
        )));
    }
    Ok((address, authority.to_owned()))
}

/// This machine.
pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where an app is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where to reach an app: its first TCP listener, or the one on this `port`, by loopback where it listens everywhere;
/// else its first Unix path.
pub(super) fn of_status(status: &Status, port: Option<u16>) -> Option<Place> {
    let addresses = || {
        let listeners = status.listeners.iter();
        listeners.map(|listener| listener.address.as_str())
    };
    let mut tcp = addresses().filter_map(|address| address.parse::<SocketAddr>().ok());
    let tcp = tcp.find(|address| port.is_none_or(|port| port == address.port()));
    let unix = || addresses().find_map(|address| address.strip_prefix("unix:"));
    if port.is_some() {
        return tcp.map(reachable).map(Place::Tcp);
    }
    tcp.map(|address| Place::Tcp(reachable(address)))
        .or_else(|| unix().map(|path| Place::Unix(path.into())))
}

/// The server's address at the far end of a link.
pub(super) fn far() -> IpAddr {
    phalanx_sys::delay::SERVER.parse().unwrap_or(LOOPBACK)
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Whether the app is complete: all workers that it shall have are ready.
pub(super) fn is_complete(status: &Status) -> bool {
    let ready = status
        .workers
        .iter()
        .filter(|worker| worker.state == WorkerState::Ready)
        .count();
    u32::try_from(ready).is_ok_and(|ready| ready >= status.target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_loopback_address() {
        let of = |url| of_url(url).map(|(address, host)| (address.to_string(), host));
        let ok = |address: &str, host: &str| Ok((address.to_owned(), host.to_owned()));
        assert_eq!(
            of("http://127.0.0.1:3000"),
            ok("127.0.0.1:3000", "127.0.0.1:3000")
        );
        assert_eq!(
            of("http://localhost:3000/"),
            ok("127.0.0.1:3000", "localhost:3000")
        );
        assert_eq!(of("http://[::1]:80"), ok("[::1]:80", "[::1]:80"));
        assert_eq!(of("http://127.0.0.1"), ok("127.0.0.1:80", "127.0.0.1"));
    }

    #[test]
    fn other_machines_and_other_protocols_are_refused() {
        for (url, part) in [
            ("https://127.0.0.1:443", "plain HTTP"),
            ("127.0.0.1:80", "plain HTTP"),
            ("http://192.0.2.1:80", "only against this machine"),
            ("http://0.0.0.0:80", "only against this machine"),
            ("http://example.com:80", "an address of this machine"),
            (
                "http://localhost.example.com:80",
                "an address of this machine",
            ),
            ("http://127.0.0.1:80/x", "--path /x"),
        ] {
            let failure = of_url(url).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.reason.contains(part), "{failure}");
        }
    }

    #[test]
    fn an_app_is_reached_by_its_first_tcp_listener_else_by_its_unix_path() {
        let status = |addresses: &[&str]| -> Status {
            let listeners: Vec<_> = addresses
                .iter()
                .map(|address| serde_json::json!({"address": address, "dispatch": "handoff", "workers": 1}))
                .collect();
            serde_json::from_value(serde_json::json!({
                "name": "a", "pid": 1, "policy": "none", "dispatch": "handoff", "target": 0, "generation": 1,
                "reloading": false, "stopping": false, "listeners": listeners, "workers": [],
            }))
            .unwrap()
        };
        let several = status(&["udp:127.0.0.1:53", "unix:/x", "[::]:80", "127.0.0.1:81"]);
        let found = of_status(&several, None);
        assert_eq!(found, "[::1]:80".parse().ok().map(Place::Tcp));
        let found = of_status(&several, Some(81));
        assert_eq!(found, "127.0.0.1:81".parse().ok().map(Place::Tcp));
        assert_eq!(of_status(&several, Some(53)), None);
        let found = of_status(&status(&["udp:127.0.0.1:53", "unix:/x"]), None);
        assert_eq!(found, Some(Place::Unix("/x".into())));
        assert_eq!(of_status(&status(&["udp:127.0.0.1:53"]), None), None);
    }
}
