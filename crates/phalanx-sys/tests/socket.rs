//! Listening sockets: addresses, conflicts, kinds, and who is seen to listen.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use phalanx_sys::listening::listens;
use phalanx_sys::process::{ExitStatus, FdMapping, spawn};
use phalanx_sys::socket::{
    AcceptError, Address, SocketKind, TcpOptions, UdpOptions, UnixName, accept, bind_tcp, bind_udp,
    bind_unix, inherited_socket, is_listening, listen, local_address, peer_credentials,
    socket_kind,
};
use phalanx_testkit::LIMIT;
use phalanx_testkit::wait::try_eventually;
use rustix::fs::{OFlags, fcntl_getfl};
use support::{end_of, pipe, read_line, shell, wait_readable};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn listener(address: SocketAddr, options: &TcpOptions) -> io::Result<OwnedFd> {
    let socket = bind_tcp(address, options)?;
    listen(socket.as_fd(), options.backlog)?;
    Ok(socket)
}

fn inet(fd: &OwnedFd) -> SocketAddr {
    let Address::Inet(address) = local_address(fd.as_fd()).unwrap() else {
        panic!("no internet socket");
    };
    address
}

/// `None`, and a word about it, where there is no IPv6.
fn any_v6(only_v6: bool) -> Option<OwnedFd> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let options = TcpOptions {
        only_v6,
        ..TcpOptions::default()
    };
    match listener(address, &options) {
        Ok(fd) => Some(fd),
        Err(error) => {
            eprintln!("SKIPPED: no IPv6 here: {error}");
            None
        }
    }
}

#[test]
fn a_listener_accepts_and_says_when_there_is_nothing() {
    let fd = bind_tcp(LOOPBACK, &TcpOptions::default()).unwrap();
    assert!(!is_listening(fd.as_fd()).unwrap());
    assert!(matches!(accept(fd.as_fd()), Err(AcceptError::Fatal(_))));
    listen(fd.as_fd(), 16).unwrap();
    assert!(is_listening(fd.as_fd()).unwrap());
    assert!(matches!(accept(fd.as_fd()), Err(AcceptError::WouldBlock)));
    let client = TcpStream::connect(inet(&fd)).unwrap();
    wait_readable(&fd);
    let connection = accept(fd.as_fd()).unwrap();
    assert!(fcntl_getfl(&connection).unwrap().contains(OFlags::NONBLOCK));
    let peer = TcpStream::from(connection).peer_addr().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[test]
fn an_address_in_use_is_refused() {
    let first = listener(LOOPBACK, &TcpOptions::default()).unwrap();
    let error = listener(inet(&first), &TcpOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    // Neither does a group let others in that ask for it alone.
    let grouped = TcpOptions {
        reuse_port: true,
        ..TcpOptions::default()
    };
    let error = listener(inet(&first), &grouped).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_group_shares_an_address() {
    let options = TcpOptions {
        reuse_port: true,
        ..TcpOptions::default()
    };
    let first = listener(LOOPBACK, &options).unwrap();
    let second = listener(inet(&first), &options).unwrap();
    assert_eq!(inet(&first), inet(&second));
}

#[test]
fn dual_stack_takes_both_versions() {
    let Some(fd) = any_v6(false) else { return };
    let port = inet(&fd).port();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
}

#[test]
fn only_v6_leaves_the_other_version_alone() {
    let Some(fd) = any_v6(true) else { return };
    let port = inet(&fd).port();
    TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

#[test]
fn a_unix_listener_lives_at_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let name = UnixName::Path(path.clone());
    let fd = bind_unix(&name).unwrap();
    listen(fd.as_fd(), 16).unwrap();
    assert_eq!(
        local_address(fd.as_fd()).unwrap(),
        Address::Unix(name.clone())
    );
    let client = UnixStream::connect(&path).unwrap();
    let connection = accept(fd.as_fd()).unwrap();
    let peer = peer_credentials(connection.as_fd()).unwrap();
    assert_eq!(peer.pid, Some(phalanx_sys::process::Pid::current()));
    assert_eq!(local_address(client.as_fd()).unwrap(), Address::Unnamed);
    let error = bind_unix(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn an_abstract_name_needs_no_file() {
    let name = UnixName::Abstract(format!("phalanx-sys-{}", std::process::id()).into_bytes());
    let fd = bind_unix(&name).unwrap();
    listen(fd.as_fd(), 16).unwrap();
    let address = local_address(fd.as_fd()).unwrap();
    assert!(address.to_string().starts_with("unix:@phalanx-sys-"));
    assert_eq!(address, Address::Unix(name.clone()));
    let error = bind_unix(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(fd);
    // A child that another test forks has a copy until it executes its program.
    let again = try_eventually(LIMIT, || bind_unix(&name).ok());
    assert!(again.is_some());
}

#[test]
fn udp_is_shared_on_request_only() {
    let first = bind_udp(LOOPBACK, &UdpOptions::default()).unwrap();
    let error = bind_udp(inet(&first), &UdpOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let options = UdpOptions {
        reuse_addr: true,
        ..UdpOptions::default()
    };
    let first = bind_udp(LOOPBACK, &options).unwrap();
    bind_udp(inet(&first), &options).unwrap();
}

#[test]
fn kinds_are_told_apart() {
    let tcp = bind_tcp(LOOPBACK, &TcpOptions::default()).unwrap();
    assert_eq!(socket_kind(tcp.as_fd()).unwrap(), SocketKind::TcpStream);
    listen(tcp.as_fd(), 1).unwrap();
    assert_eq!(socket_kind(tcp.as_fd()).unwrap(), SocketKind::TcpListener);
    let udp = bind_udp(LOOPBACK, &UdpOptions::default()).unwrap();
    assert_eq!(socket_kind(udp.as_fd()).unwrap(), SocketKind::Udp);
    let (stream, _other) = UnixStream::pair().unwrap();
    assert_eq!(socket_kind(stream.as_fd()).unwrap(), SocketKind::UnixStream);
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    assert_eq!(socket_kind(datagram.as_fd()).unwrap(), SocketKind::Other);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(
        socket_kind(file.as_fd()).unwrap_err().raw_os_error(),
        Some(88),
        "ENOTSOCK"
    );
    assert!(peer_credentials(tcp.as_fd()).is_err());
}

#[test]
fn a_number_that_is_not_open_is_no_inherited_socket() {
    assert!(inherited_socket(987_654).is_err());
}

/// Whether a worker that holds `socket` is seen to listen.
fn worker_listens(socket: Option<Arc<OwnedFd>>) -> bool {
    let mut plan = shell("echo up; read line");
    let (output, writer) = pipe();
    let (reader, input) = pipe();
    plan.fds.push(FdMapping::owned(reader, 0));
    plan.fds.push(FdMapping::owned(writer, 1));
    plan.fds.extend(socket.map(|fd| FdMapping::shared(fd, 9)));
    let mut worker = spawn(plan).unwrap();
    assert_eq!(read_line(&output), "up");
    let result = listens(worker.pid()).unwrap();
    drop(input);
    assert_eq!(end_of(&mut worker), ExitStatus::Code(1), "end of input");
    result
}

#[test]
fn a_worker_listens_when_it_holds_a_listener() {
    assert!(!worker_listens(None));
    let tcp = Arc::new(bind_tcp(LOOPBACK, &TcpOptions::default()).unwrap());
    assert!(!worker_listens(Some(Arc::clone(&tcp))));
    listen(tcp.as_fd(), 16).unwrap();
    assert!(worker_listens(Some(Arc::clone(&tcp))));
    let client: OwnedFd = TcpStream::connect(inet(&tcp)).unwrap().into();
    assert!(!worker_listens(Some(Arc::new(client))));
    let udp = bind_udp(LOOPBACK, &UdpOptions::default()).unwrap();
    assert!(!worker_listens(Some(Arc::new(udp))));
}

#[test]
fn a_worker_listens_on_any_family() {
    let dir = tempfile::tempdir().unwrap();
    let unix = bind_unix(&UnixName::Path(dir.path().join("sock"))).unwrap();
    let unix = Arc::new(unix);
    assert!(!worker_listens(Some(Arc::clone(&unix))));
    listen(unix.as_fd(), 16).unwrap();
    assert!(worker_listens(Some(unix)));
    let (stream, _other) = UnixStream::pair().unwrap();
    assert!(!worker_listens(Some(Arc::new(stream.into()))));
    if let Some(v6) = any_v6(false) {
        assert!(worker_listens(Some(Arc::new(v6))));
    }
}
