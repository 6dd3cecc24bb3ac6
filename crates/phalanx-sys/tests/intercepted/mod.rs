//! Programs that are intercepted: this test program, started again with a word that says what to do.
//! They use raw system calls, and panic, which ends them with a status, when something is amiss.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::exit,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "raw system calls of programs that are up to no good"
)]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr;

use phalanx_sys::intercept::{Interception, available};
use phalanx_sys::process::{Process, SpawnPlan, spawn};
use phalanx_sys::socket::{Address, TcpOptions, bind_slots, local_address};

/// What a program is to do.
const WORD: &str = "PHALANX_TEST_PROGRAM";

pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) calls: Interception,
}

/// Where the kernel has no notifications, there is nothing to test.
#[track_caller]
pub(crate) fn is_available() -> bool {
    let fault = available().err();
    if let Some(error) = &fault {
        assert!(env::var_os("CI").is_none(), "NOT RUN: {error}");
        eprintln!("NOT RUN: {error}");
    }
    fault.is_none()
}

/// A socket that listens, and its address.
pub(crate) fn slot() -> (OwnedFd, SocketAddr) {
    let loopback = ([127, 0, 0, 1], 0).into();
    let slot = bind_slots(loopback, 1, &TcpOptions::default())
        .unwrap()
        .remove(0);
    let Address::Inet(address) = local_address(slot.as_fd()).unwrap() else {
        panic!("no address");
    };
    (slot, address)
}

/// Starts a program under interception.
#[track_caller]
pub(crate) fn start(word: &str) -> Started {
    let mut plan = SpawnPlan::new(PathBuf::from("/proc/self/exe"));
    plan.program = env::current_exe().unwrap();
    let words = [
        "intercepted::programs",
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ];
    plan.args.extend(words.map(OsString::from));
    plan.env.push((WORD.into(), word.into()));
    plan.intercept = true;
    let mut process = spawn(plan).unwrap();
    let calls = process.take_interception().unwrap();
    Started { process, calls }
}

/// The programs' side of all tests: does what the word says, and nothing in the test program itself.
#[test]
fn programs() {
    let Ok(word) = env::var(WORD) else {
        return;
    };
    match word.split_once(' ').unwrap_or((&word, "")) {
        ("serve", _) => serve(),
        ("others", _) => others(),
        ("answers", _) => answers(),
        ("family", _) => family(),
        ("signalled", _) => signalled(),
        ("wild", seed) => wild(seed.parse().unwrap()),
        other => panic!("{other:?}"),
    }
    std::process::exit(0);
}

fn socket(domain: i32, kind: i32) -> i32 {
    let fd = unsafe { libc::socket(domain, kind, 0) };
    assert!(fd >= 0);
    fd
}

fn loopback() -> libc::sockaddr_in {
    let mut address: libc::sockaddr_in = unsafe { mem::zeroed() };
    address.sin_family = u16::try_from(libc::AF_INET).unwrap();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    address
}

fn bind<T>(fd: i32, address: &T) -> i32 {
    let length = u32::try_from(mem::size_of::<T>()).unwrap();
    unsafe { libc::bind(fd, ptr::from_ref(address).cast(), length) }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn number_option(fd: i32, level: i32, option: i32) -> i32 {
    let (mut value, mut length) = (0_i32, 4);
    let pointer = (&raw mut value).cast();
    assert_eq!(
        unsafe { libc::getsockopt(fd, level, option, pointer, &raw mut length) },
        0
    );
    value
}

/// Accepts one connection and tells it what its listener looks like.
fn serve() {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = socket(libc::AF_INET, kind);
    let one = 1_i32;
    let pointer = (&raw const one).cast();
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, pointer, 4) };
    assert_eq!(bind(fd, &loopback()), 0);
    assert_eq!(unsafe { libc::listen(fd, 7) }, 0);
    let listener = unsafe { std::net::TcpListener::from_raw_fd(fd) };
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 20_000) }, 1);
    let (mut connection, _) = listener.accept().unwrap();
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let text = format!(
        "{} nonblock={} cloexec={} nodelay={} ",
        listener.local_addr().unwrap(),
        i32::from(flags & libc::O_NONBLOCK != 0),
        unsafe { libc::fcntl(fd, libc::F_GETFD) },
        number_option(connection.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY)
    );
    let mut greeting = [0; 5];
    connection.set_nonblocking(false).unwrap();
    connection.read_exact(&mut greeting).unwrap();
    connection.write_all(text.as_bytes()).unwrap();
    connection.write_all(&greeting).unwrap();
}

/// Binds everything that is no TCP socket, and connects to where it listens itself.
fn others() {
    assert_eq!(
        bind(socket(libc::AF_INET, libc::SOCK_DGRAM), &loopback()),
        0
    );
    let name = format!("phalanx-intercepted-{}", std::process::id());
    for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
        let fd = socket(libc::AF_UNIX, kind);
        let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
        address.sun_family = u16::try_from(libc::AF_UNIX).unwrap();
        for (place, byte) in address.sun_path.iter_mut().skip(1).zip(name.bytes()) {
            *place = byte.cast_signed();
        }
        address.sun_path[100] = i8::try_from(kind).unwrap();
        assert_eq!(bind(fd, &address), 0, "{}", errno());
        assert_eq!(unsafe { libc::listen(fd, 1) }, 0);
    }
    let fd = socket(libc::AF_NETLINK, libc::SOCK_RAW);
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap();
    assert_eq!(bind(fd, &address), 0);
    // Nothing that could be looked at.
    assert_eq!(bind(-1, &loopback()), -1);
    assert_eq!(errno(), libc::EBADF);
    assert_eq!(bind(1, &loopback()), -1);
    let tcp = socket(libc::AF_INET, libc::SOCK_STREAM);
    for pointer in [ptr::null(), ptr::without_provenance(8)] {
        assert_eq!(unsafe { libc::bind(tcp, pointer, 16) }, -1);
        assert_eq!(errno(), libc::EFAULT);
    }
    let mut unspecific = loopback();
    unspecific.sin_family = 77;
    assert_eq!(bind(tcp, &unspecific), -1);
    assert_eq!(errno(), libc::EAFNOSUPPORT);
}

/// Expects the answers 0, `EADDRINUSE`, and those of the kernel.
fn answers() {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM);
    let taken = std::ptr::without_provenance::<libc::sockaddr>(0);
    assert_eq!(bind(fd, &loopback()), 0);
    assert_eq!(bind(fd, &loopback()), -1);
    assert_eq!(errno(), libc::EADDRINUSE);
    assert_eq!(bind(fd, &loopback()), 0);
    assert_eq!(unsafe { libc::bind(fd, taken, 16) }, -1);
    // It was bound by the third, and no other.
    let mut address = loopback();
    let mut length = 16;
    let pointer = (&raw mut address).cast();
    assert_eq!(
        unsafe { libc::getsockname(fd, pointer, &raw mut length) },
        0
    );
    assert_ne!(address.sin_port, 0);
}

fn listen_once() {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM);
    assert_eq!(bind(fd, &loopback()), 0);
    assert_eq!(unsafe { libc::listen(fd, 5) }, 0);
    assert_eq!(number_option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN), 1);
}

/// Four threads listen, and four processes.
fn family() {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(listen_once)).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    for _ in 0..4 {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            listen_once();
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
    }
}

extern "C" fn heed(_: i32) {}

/// Binds with a handler that does not restart system calls.
fn signalled() {
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = heed as *const () as usize;
    unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM);
    assert_eq!(bind(fd, &loopback()), 0);
}

/// System calls in any order, with arguments of any kind.
fn wild(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut fds = vec![-1, 0, i32::MAX];
    for step in 0..200 {
        let fd = fds[rng.usize(..fds.len())];
        match rng.u32(..12) {
            0 | 1 => fds.push(socket(libc::AF_INET, libc::SOCK_STREAM)),
            2 => fds.push(socket(libc::AF_INET6, libc::SOCK_STREAM)),
            3 => fds.push(socket(libc::AF_INET, libc::SOCK_DGRAM)),
            4 if fd > 2 => drop(unsafe { libc::close(fd) }),
            5 => drop(unsafe { libc::listen(fd, i32::from_ne_bytes([step; 4])) }),
            6 => {
                let pointer = ptr::without_provenance(rng.usize(..));
                let length = rng.u32(..200);
                unsafe { libc::bind(fd, pointer, length) };
            }
            7 => {
                let length = rng.u32(..);
                let address = loopback();
                unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), length) };
            }
            8 if fd > 2 => drop(unsafe { libc::shutdown(fd, libc::SHUT_RDWR) }),
            9 if fd > 2 => drop(unsafe { libc::dup(fd) }),
            10 if rng.u32(..40) == 0 => drop(unsafe { libc::raise(libc::SIGKILL) }),
            11 => concurrently(fd),
            _ => drop(bind(fd, &loopback())),
        }
    }
}

/// The descriptor is closed while it is being bound.
fn concurrently(fd: i32) {
    let binder = std::thread::spawn(move || {
        bind(fd, &loopback());
        unsafe { libc::listen(fd, 1) };
    });
    if fd > 2 {
        unsafe { libc::close(fd) };
    }
    binder.join().unwrap();
    // A stream that connects to nowhere, from where it was told to.
    drop(TcpStream::connect("127.0.0.1:1"));
}
