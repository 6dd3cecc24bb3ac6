//! A link that takes time: two network namespaces of its own, joined by a relay that passes each packet on after a
//! delay. For tests and the drill, on kernels with and without `netem` alike. Needs root.
//!
//! INVARIANT: nothing is left behind. The namespaces and their interfaces live as long as descriptors and threads
//! refer to them; the relay ends with its value.
#![allow(
    unsafe_code,
    reason = "TUNSETIFF has no safe counterpart, and unshare(2) changes the thread"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::retry_on_intr;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::fd;

/// The server's end.
pub const SERVER: &str = "10.77.0.1";
/// The client's end.
pub const CLIENT: &str = "10.77.0.2";

/// Packets on their way in one direction at most; what comes on top is lost, as on any link.
const QUEUE_MAX: usize = 16_384;
/// The longest packet of the interface, and some room.
const PACKET_BYTES: usize = 2048;

/// Two namespaces and the relay between them.
#[derive(Debug)]
pub struct DelayLink {
    server: OwnedFd,
    client: OwnedFd,
    /// Closed to end the relay.
    stop: Option<OwnedFd>,
    relay: Option<JoinHandle<()>>,
}

impl DelayLink {
    /// A link with this delay in each direction: a round trip takes twice as long.
    ///
    /// # Errors
    /// `PermissionDenied` without root; `NotFound` without `/dev/net/tun` or the program `ip`.
    pub fn new(delay: Duration) -> io::Result<Self> {
        let (server, server_tun) = end(SERVER)?;
        let (client, client_tun) = end(CLIENT)?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let relay = thread::Builder::new().name("delay-link".to_owned());
        let relay = relay.spawn(move || {
            // A link that breaks loses packets, which shows in whatever uses it.
            drop(pass_on(&server_tun, &client_tun, &stopped, delay));
        })?;
        Ok(Self {
            server,
            client,
            stop: Some(stop),
            relay: Some(relay),
        })
    }

    /// The calling thread, and what it starts from now on, is where the server is.
    ///
    /// # Errors
    /// Those of setns(2).
    pub fn enter_server(&self) -> io::Result<()> {
        enter(&self.server)
    }

    /// The calling thread, and what it starts from now on, is where the client is.
    ///
    /// # Errors
    /// Those of setns(2).
    pub fn enter_client(&self) -> io::Result<()> {
        enter(&self.client)
    }
}

impl Drop for DelayLink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(relay) = self.relay.take() {
            drop(relay.join());
        }
    }
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
}

/// A namespace with one interface that has this address. It is made by a thread of its own, which ends afterwards.
fn end(address: &'static str) -> io::Result<(OwnedFd, File)> {
    let made = thread::spawn(move || {
        // SAFETY: only this thread leaves the network namespace; it ends here and uses no socket made before.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = open("/proc/thread-self/ns/net", flags, Mode::empty())?;
        let tun = open_tun()?;
        for words in [
            "link set lo up".to_owned(),
            format!("addr add {address}/24 dev delay0"),
            format!("link set delay0 up txqueuelen {QUEUE_MAX}"),
        ] {
            let status = Command::new("ip").args(words.split(' ')).status()?;
            if !status.success() {
                return Err(io::Error::other(format!("`ip {words}` failed: {status}")));
            }
        }
        Ok((namespace, tun))
    });
    made.join().unwrap_or_else(|_| {
        Err(io::Error::other(
            "the thread that makes a namespace panicked",
        ))
    })
}

/// An interface `delay0` in the thread's namespace, whose packets are read and written here (`tun.rst` of the
/// kernel's documentation).
fn open_tun() -> io::Result<File> {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    const IFF_TUN: u16 = 1;
    const IFF_NO_PI: u16 = 0x1000;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tun = open("/dev/net/tun", flags, Mode::empty())?;
    // `struct ifreq`: the name, and what shall be made.
    let mut request = [0u8; 40];
    request[..6].copy_from_slice(b"delay0");
    request[16..18].copy_from_slice(&(IFF_TUN | IFF_NO_PI).to_ne_bytes());
    // SAFETY: the descriptor is open, and the kernel reads and writes one `struct ifreq`, which is 40 bytes.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    fd::check(result)?;
    Ok(File::from(tun))
}

/// Packets that have been read and wait for their time.
type Queue = VecDeque<(Instant, Vec<u8>)>;

/// Passes packets on until the other end of `stopped` is closed.
fn pass_on(server: &File, client: &File, stopped: &OwnedFd, delay: Duration) -> io::Result<()> {
    let (mut to_client, mut to_server) = (Queue::new(), Queue::new());
    loop {
        let next = [to_client.front(), to_server.front()];
        let next = next.into_iter().flatten().map(|(at, _)| *at).min();
        let wait = next.map(|at| at.saturating_duration_since(crate::clock::now()));
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut asked = [
            PollFd::new(server, PollFlags::IN),
            PollFd::new(client, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut asked, wait.as_ref()))?;
        if !asked[2].revents().is_empty() {
            return Ok(());
        }
        take(server, &mut to_client, delay);
        take(client, &mut to_server, delay);
        give(client, &mut to_client);
        give(server, &mut to_server);
    }
}

/// Reads what there is.
fn take(mut from: &File, queue: &mut Queue, delay: Duration) {
    let mut packet = [0; PACKET_BYTES];
    while let Ok(length) = from.read(&mut packet) {
        if queue.len() < QUEUE_MAX {
            let due = crate::clock::now() + delay;
            queue.push_back((due, packet[..length].to_vec()));
        }
    }
}

/// Writes what is due. An interface that takes nothing just now loses it, as a link does.
fn give(mut to: &File, queue: &mut Queue) {
    let now = crate::clock::now();
    while let Some((_, packet)) = queue.pop_front_if(|(due, _)| *due <= now) {
        drop(to.write(&packet));
    }
}
