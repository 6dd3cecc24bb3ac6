//! Sockets of each kind, to be sent with messages.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;

use phalanx::Handle;
use serde_json::Value;

/// A socket of this `kind`, and where others find it: a connection goes to `at`, what listens does so anywhere.
pub(crate) fn open(command: &Value) -> (Handle, String) {
    let at = command["at"].as_str().unwrap_or("127.0.0.1:0");
    let handle = match command["kind"].as_str() {
        Some("connection") => Handle::from(TcpStream::connect(at).expect("somebody listens")),
        Some("listener") => Handle::from(TcpListener::bind(at).expect("a free address")),
        Some("unix") => Handle::from(UnixListener::bind(at).expect("a free path")),
        Some("udp") => Handle::from(UdpSocket::bind(at).expect("a free address")),
        other => panic!("no kind of handle: {other:?}"),
    };
    let address = about(&handle).1;
    (handle, address)
}

/// What it is, and its address.
pub(crate) fn about(handle: &Handle) -> (&'static str, String) {
    let (name, address) = match handle {
        Handle::TcpStream(socket) => ("TcpStream", socket.local_addr().map(|at| at.to_string())),
        Handle::TcpListener(socket) => {
            ("TcpListener", socket.local_addr().map(|at| at.to_string()))
        }
        Handle::UdpSocket(socket) => ("UdpSocket", socket.local_addr().map(|at| at.to_string())),
        Handle::UnixListener(socket) => {
            let path = socket
                .local_addr()
                .map(|at| format!("{:?}", at.as_pathname()));
            ("UnixListener", path)
        }
        other @ (Handle::UnixStream(_) | _) => panic!("no such handle was sent: {other:?}"),
    };
    (name, address.expect("it has an address"))
}
