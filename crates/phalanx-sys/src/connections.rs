//! How many connections a process has in its hands: its work as seen from outside, for programs that
//! tell nothing of it.
//!
//! The kernel lists the connections of a port (`sock_diag(7)`) and the sockets that a process holds
//! (`/proc/PID/fd`); the inode number is what they have in common. A connection that nobody has accepted yet
//! has none. Before that, while its handshake is under way, it is a request, which the kernel lists too.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::listening::sockets_of;
use crate::process::{Pid, family_of};
use crate::socket::{Address, UnixName, local_address};

/// How many connections to these local TCP ports are open in the hands of the process and of those that
/// descend from it. One that the process itself has closed or shut down is not open.
///
/// Costs a walk through the kernel's table of connections for each port, and a directory listing for each process.
///
/// # Errors
/// `PermissionDenied` when the process belongs to another user and this one is not root; those of
/// netlink(7), where the kernel has no `inet_diag`.
pub fn open_connections(pid: Pid, ports: &[u16]) -> io::Result<usize> {
    let mut accepted = Vec::new();
    for &port in ports {
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            list(family, port, OPEN, |answer| {
                let inode = number(answer, INODE_AT).unwrap_or(0);
                if inode != 0 {
                    accepted.push(u64::from(inode));
                }
            })?;
        }
    }
    count_held(pid, accepted)
}

/// Whether the process, or one that descends from it, has a connection in its hands that came by this listening socket
/// or by another at its address. Of a process that shares the address with others this tells that it accepts.
///
/// Costs as much as [`open_connections`] of one port.
///
/// # Errors
/// As [`open_connections`], and those of getsockname(2).
pub fn has_connection_of(pid: Pid, listener: BorrowedFd<'_>) -> io::Result<bool> {
    let accepted = match local_address(listener)? {
        Address::Inet(address) => accepted_at(address)?,
        Address::Unix(UnixName::Path(path)) => {
            let table = match std::fs::read(format!("/proc/{pid}/net/unix")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                table => table?,
            };
            unix_connections(&table, path.as_os_str().as_bytes())
        }
        Address::Unix(UnixName::Abstract(_)) | Address::Unnamed => Vec::new(),
    };
    Ok(count_held(pid, accepted)? > 0)
}

/// How many of these sockets, by their inode numbers, the process and those that descend from it hold.
fn count_held(pid: Pid, mut sockets: Vec<u64>) -> io::Result<usize> {
    if sockets.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    for member in family_of(pid) {
        let held = match sockets_of(member) {
            Ok(held) => held,
            // It is gone by now, and what it held with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // What a family shares is one connection, and counts once.
        let before = sockets.len();
        sockets.retain(|inode| !held.contains(inode));
        count += before - sockets.len();
    }
    Ok(count)
}

/// The accepted connections to a local address; to any of the machine's where it is the unspecified one.
fn accepted_at(address: SocketAddr) -> io::Result<Vec<u64>> {
    let mut accepted = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let wanted = address_bytes(address.ip(), family);
        list(family, address.port(), OPEN, |answer| {
            let local = answer.get(LOCAL_AT..LOCAL_AT + wanted.len());
            let is_at = address.ip().is_unspecified() || local == Some(wanted.as_slice());
            let inode = number(answer, INODE_AT).filter(|inode| is_at && *inode != 0);
            accepted.extend(inode.map(u64::from));
        })?;
    }
    Ok(accepted)
}

/// The inode numbers of the connections that were accepted at a path, of the table `/proc/net/unix` (`proc_pid_net(5)`): the
/// accepting end has the path of its listener, the other end none.
fn unix_connections(table: &[u8], path: &[u8]) -> Vec<u64> {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| unix_connection(line, path))
        .collect()
}

/// `address: references protocol flags type state inode path`
fn unix_connection(line: &[u8], path: &[u8]) -> Option<u64> {
    const CONNECTED: &str = "03";
    let line = line.strip_suffix(path)?.strip_suffix(b" ")?;
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let is_connected = fields.nth(5)? == CONNECTED;
    let inode = fields.next()?.parse().ok()?;
    (is_connected && fields.next().is_none()).then_some(inode)
}

/// A connection whose handshake is under way, by its two addresses.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handshake([u8; ADDRESSES_BYTES]);

/// The connections to these local TCP ports whose handshake is under way (`TCP_NEW_SYN_RECV`): the kernel has
/// chosen the listening socket that they will wait in, and will not choose again. With `TCP_DEFER_ACCEPT` (tcp(7)) a
/// handshake ends only when the client has sent something.
///
/// Costs a walk through the kernel's table of connections for each port.
///
/// # Errors
/// Those of netlink(7), where the kernel has no `inet_diag`.
pub fn handshakes(ports: &[u16]) -> io::Result<BTreeSet<Handshake>> {
    let mut found = BTreeSet::new();
    for &port in ports {
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            list(family, port, BEGUN, |answer| {
                let addresses = answer.get(ADDRESSES_AT..ADDRESSES_AT + ADDRESSES_BYTES);
                found.extend(addresses.and_then(|bytes| bytes.try_into().ok().map(Handshake)));
            })?;
        }
    }
    Ok(found)
}

/// The user whose socket has the other end of a TCP connection within this machine; nothing if no open socket of this network
/// namespace has it.
///
/// Costs a walk through the kernel's table of connections.
///
/// # Errors
/// Those of netlink(7), where the kernel has no `inet_diag`.
pub fn owner_of_peer(peer: SocketAddr, own: SocketAddr) -> io::Result<Option<u32>> {
    let mut owner = None;
    // A socket of the other family may have mapped addresses.
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        list(family, peer.port(), HELD, |answer| {
            if names(answer, family, peer, own) {
                owner = number(answer, OWNER_AT);
            }
        })?;
    }
    Ok(owner)
}

/// The ports at the other ends of the TCP connections of these sockets, by their inode numbers; of sockets in this network namespace.
///
/// Costs a walk through the kernel's table of connections. Those that wait for their time to pass (`TIME_WAIT`) are not shown, so it is fast
/// where there are many of them, and `/proc/net/tcp` is slow.
///
/// # Errors
/// Those of netlink(7), where the kernel has no `inet_diag`.
pub fn remote_ports(sockets: &BTreeSet<u64>) -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        list(family, ANY_PORT, CONNECTED, |answer| {
            let inode = number(answer, INODE_AT).map(u64::from);
            let port = answer.get(ADDRESSES_AT + 2..ADDRESSES_AT + 4);
            let is_one = inode.is_some_and(|inode| sockets.contains(&inode));
            let port = port
                .filter(|_| is_one)
                .and_then(|port| port.try_into().ok());
            ports.extend(port.map(u16::from_be_bytes));
        })?;
    }
    Ok(ports)
}

/// Whether an answer is about the socket at `local` that is connected to `remote`.
fn names(answer: &[u8], family: AddressFamily, local: SocketAddr, remote: SocketAddr) -> bool {
    let bytes = |address| address_bytes(address, family);
    let mut expected = Vec::with_capacity(ADDRESSES_BYTES);
    expected.extend(local.port().to_be_bytes());
    expected.extend(remote.port().to_be_bytes());
    expected.extend(bytes(local.ip()));
    expected.extend(bytes(remote.ip()));
    answer.get(ADDRESSES_AT..ADDRESSES_AT + ADDRESSES_BYTES) == Some(&expected)
}

/// An address as the kernel writes it for sockets of this family.
fn address_bytes(address: IpAddr, family: AddressFamily) -> [u8; 16] {
    match (address, family) {
        (IpAddr::V4(address), AddressFamily::INET) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        (IpAddr::V4(address), _) => address.to_ipv6_mapped().octets(),
        (IpAddr::V6(address), _) => address.octets(),
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_AND_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TCP: u8 = 6;
/// `ESTABLISHED` and `CLOSE_WAIT`: this side has not closed.
const OPEN: u32 = 1 << 1 | 1 << 8;
/// As [`OPEN`], or this side has closed for writing: `FIN_WAIT1` and `FIN_WAIT2`.
const HELD: u32 = OPEN | 1 << 4 | 1 << 5;
/// As [`HELD`], or both sides have closed: `CLOSING` and `LAST_ACK`.
const CONNECTED: u32 = HELD | 1 << 9 | 1 << 11;
/// For questions about the connections of all ports.
const ANY_PORT: u16 = 0;
/// `SYN_RECV`, by which the kernel means requests here.
const BEGUN: u32 = 1 << 3;

/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// `struct nlmsghdr` and `struct inet_diag_req_v2` (`linux/inet_diag.h`).
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Where the inode is in an answer: after the header, in `struct inet_diag_msg`.
const INODE_AT: usize = HEADER_BYTES + 68;
/// Where the owner's user id is, just before it.
const OWNER_AT: usize = INODE_AT - 4;
/// Where both ports and addresses are in it: `struct inet_diag_sockid`.
const ADDRESSES_AT: usize = HEADER_BYTES + 4;
const ADDRESSES_BYTES: usize = 36;
/// Where the local address is among them: after both ports.
const LOCAL_AT: usize = ADDRESSES_AT + 4;
/// The kernel fills up to this much at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// Shows the answers about the connections to a local port that are in one of these states.
fn list(
    family: AddressFamily,
    port: u16,
    states: u32,
    mut show: impl FnMut(&[u8]),
) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(netlink::SOCK_DIAG);
    let diag = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    send(&diag, &request(family, port, states)?, SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER_BYTES];
    while read_part(&diag, &mut buffer, &mut show)? {}
    Ok(())
}

fn request(family: AddressFamily, port: u16, states: u32) -> io::Result<[u8; REQUEST_BYTES]> {
    let mut bytes = [0; REQUEST_BYTES];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    let length = u32::try_from(REQUEST_BYTES).map_err(|_| io::ErrorKind::InvalidInput)?;
    put(&length.to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST_AND_DUMP.to_ne_bytes());
    // The sequence number and the sender, which one question in one socket does not need.
    put(&[0; 8]);
    let family = u8::try_from(family.as_raw()).map_err(|_| io::ErrorKind::InvalidInput)?;
    put(&[family, TCP, 0, 0]);
    put(&states.to_ne_bytes());
    put(&port.to_be_bytes());
    Ok(bytes)
}

/// Reads one datagram of the answer. True if there is more to come.
fn read_part(diag: &OwnedFd, buffer: &mut [u8], show: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    let (length, _) = retry_on_intr(|| recv(diag, &mut *buffer, RecvFlags::empty()))?;
    let mut rest = buffer.get(..length).unwrap_or_default();
    while let (Some(size), Some(kind)) = (number(rest, 0), rest.get(4..6)) {
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        if kind == NLMSG_DONE {
            return Ok(false);
        }
        if kind == NLMSG_ERROR {
            let errno = number(rest, HEADER_BYTES).unwrap_or(0).cast_signed();
            return Err(io::Error::from_raw_os_error(-errno));
        }
        show(rest);
        // Messages are aligned to four bytes.
        let size = usize::try_from(size).unwrap_or(0).max(HEADER_BYTES);
        let next = size.checked_next_multiple_of(4).unwrap_or(size);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(length > 0)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests;
