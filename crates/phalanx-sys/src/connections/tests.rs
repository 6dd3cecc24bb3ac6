//! Connections of this very process.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

#[test]
fn connections_count_from_accept_to_close() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let open = || open_connections(Pid::current(), &[port]).unwrap();
        let mut clients = Vec::new();
        let mut accepted = Vec::new();
        while accepted.len() < 300 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            if accepted.len() < 2 {
                assert_eq!(open(), accepted.len(), "nobody has accepted the last");
            }
            accepted.push(listener.accept().unwrap());
        }
        assert_eq!(open(), 300);
        clients.truncate(100);
        assert_eq!(open(), 300, "it is for this side to close them");
        accepted.truncate(100);
        assert_eq!(open(), 100);
        drop(accepted);
        assert_eq!(open(), 0);
    }
}

#[test]
fn the_other_end_of_a_connection_has_an_owner_while_it_is_open() {
    let own = rustix::process::geteuid().as_raw();
    for (bound, dialled) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("127.0.0.1:0", "[::ffff:127.0.0.1]"),
        ("[::1]:0", "[::1]"),
    ] {
        let Ok(listener) = TcpListener::bind(bound) else {
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(format!("{dialled}:{port}")).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let local = accepted.local_addr().unwrap();
        assert_eq!(owner_of_peer(peer, local).unwrap(), Some(own), "{dialled}");
        let other = SocketAddr::new(peer.ip(), peer.port() ^ 1);
        assert_eq!(owner_of_peer(other, local).unwrap(), None);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(owner_of_peer(peer, local).unwrap(), Some(own));
    }
}

#[test]
fn the_other_ends_of_sockets_are_found_and_listeners_have_none() {
    let own_sockets = || sockets_of(Pid::current()).unwrap().into_iter().collect();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            continue;
        };
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        // The client's own end is a socket of this process too; its other end is the listener's port.
        let found = remote_ports(&own_sockets()).unwrap();
        assert!(!found.contains(&port), "it waits to be accepted");
        let accepted = listener.accept().unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(remote_ports(&own_sockets()).unwrap().contains(&port));
        assert!(remote_ports(&BTreeSet::new()).unwrap().is_empty());
        drop((accepted, client));
        assert!(!remote_ports(&own_sockets()).unwrap().contains(&port));
    }
}

#[expect(unsafe_code, reason = "rustix has no name for this option")]
fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 10;
    // SAFETY: the descriptor is open and the pointer is valid for reading four bytes.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            4,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn a_handshake_is_seen_until_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let begun = || handshakes(&[address.port()]).unwrap().len();
    assert_eq!(begun(), 0);
    // The handshake ends when something was sent.
    defer_accept(&listener);
    let mut client = TcpStream::connect(address).unwrap();
    assert_eq!(begun(), 1);
    client.write_all(b"x").unwrap();
    let _accepted = listener.accept().unwrap();
    assert_eq!(begun(), 0);
}

#[test]
fn whoever_has_accepted_has_a_connection_of_the_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("with a blank");
    let listener = UnixListener::bind(&path).unwrap();
    let has = || has_connection_of(Pid::current(), listener.as_fd()).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    assert!(!has(), "nobody has accepted it");
    let accepted = listener.accept().unwrap();
    assert!(has());
    drop(accepted);
    assert!(!has());

    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let has = || has_connection_of(Pid::current(), listener.as_fd()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!has(), "{address}");
        let _accepted = listener.accept().unwrap();
        assert!(has(), "{address}");
        if let Ok(other) = TcpListener::bind(("127.0.0.2", port)) {
            assert!(!has_connection_of(Pid::current(), other.as_fd()).unwrap());
        }
    }
}

#[test]
fn connections_of_others_do_not_count() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let _accepted = listener.accept().unwrap();
    let other = client.local_addr().unwrap().port();
    assert_eq!(open_connections(Pid::current(), &[]).unwrap(), 0);
    assert_eq!(open_connections(Pid::current(), &[other, 1]).unwrap(), 1);
}
