//! Slots: the listening sockets of one listener, one a position, in one `SO_REUSEPORT` group.
//!
//! # Keeping others out
//!
//! `SO_REUSEPORT` lets any socket of the same user that asks for it into a group, without a word to
//! those who are in it. Between clusters that is ruled out, without a gap: the first slot of each
//! binds and listens *without* `SO_REUSEPORT`, which fails while anybody else listens there, and
//! joins the group only then. Of two that start at the same moment, the kernel lets one listen. The
//! same goes for every program that does not ask for `SO_REUSEPORT`.
//!
//! A program of the same user that does ask, and is no cluster, gets in; nothing can prevent that.
//! With a steering program, it receives nothing: the program knows the slots, and chooses no other.
#![allow(unsafe_code, reason = "socket options that rustix has no types for")]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{Shutdown, shutdown, sockopt};

use super::bind::{TcpOptions, bind_tcp, listen};
use super::{Address, local_address};
use crate::fd;

/// Binds the slots of a listener; all of them listen. With port 0, the kernel chooses one port for
/// all. [`TcpOptions::reuse_port`] makes no difference: slots always form a group, even one alone.
///
/// # Errors
///
/// `EADDRINUSE` when anybody listens on the address, another cluster included; those of
/// [`bind_tcp`]. `InvalidInput` for no slots.
pub fn bind_slots(
    address: SocketAddr,
    count: usize,
    options: &TcpOptions,
) -> io::Result<Vec<OwnedFd>> {
    if count == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut slots = vec![bind_first(address, options)?];
    while slots.len() < count {
        let next = add_slot(slots[0].as_fd(), options.backlog)?;
        slots.push(next);
    }
    Ok(slots)
}

/// Adds a slot to the group of `member`, which must be one of [`bind_slots`] and listen. It takes
/// part in the kernel's choice at once; a steering program chooses it when it knows it.
///
/// # Errors
///
/// `EADDRINUSE` when the group belongs to another user; those of [`bind_tcp`].
pub fn add_slot(member: BorrowedFd<'_>, backlog: u32) -> io::Result<OwnedFd> {
    let Address::Inet(address) = local_address(member)? else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let options = TcpOptions {
        only_v6: address.is_ipv6() && sockopt::ipv6_v6only(member)?,
        reuse_port: true,
        backlog,
    };
    let slot = bind_tcp(address, &options)?;
    listen(slot.as_fd(), backlog)?;
    Ok(slot)
}

/// Moves what waits in a slot to the other slots of the group, whoever has the slot open, and has it
/// listen again. For positions whose worker does not accept: hung, or long without successor.
///
/// The connections are lost unless the kernel may move them: with a steering program attached, or
/// with the sysctl `net.ipv4.tcp_migrate_req`. Take the position out of the plan first. A steering
/// program forgets the slot by this and has to be told again. A worker that waits in accept(2) just
/// now sees it fail with `EINVAL`.
///
/// # Errors
///
/// `ENOTCONN` when it does not listen; those of listen(2).
pub fn empty_slot(slot: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    shutdown(slot, Shutdown::Read)?;
    listen(slot, backlog)
}

/// Nobody new reaches the listening TCP socket any more: the kernel refuses who connects, if no other socket
/// listens there. What waits in it can be accepted, and handshakes that have begun end as they would have. There is no
/// way back, and whoever has the socket open shares in it.
///
/// It is bound to a network interface that there is not (`SO_BINDTOIFINDEX`, socket(7)): that only matters to
/// who begins a handshake.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 5.0; `EPERM` where it needs `CAP_NET_RAW`: before Linux 5.7, or when the socket is
/// bound to an interface already.
pub fn refuse_newcomers(listener: BorrowedFd<'_>) -> io::Result<()> {
    const SO_BINDTOIFINDEX: libc::c_int = 62;
    set_option(listener, SO_BINDTOIFINDEX, &libc::c_int::MAX)
}

/// Whether a connection waits in a listening socket to be accepted, whatever its kind (poll(2)).
///
/// # Errors
///
/// Those of poll(2).
pub fn is_awaited(listener: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    let now = Timespec::default();
    let ready = retry_on_intr(|| poll(&mut asked, Some(&now)))?;
    Ok(ready > 0)
}

/// How many connections wait in a listening socket to be accepted (`TCP_INFO`, tcp(7)).
///
/// # Errors
///
/// `EOPNOTSUPP` when it is no TCP socket.
pub fn queue_length(listener: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: integers without any invalid value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = option_length(&info)?;
    // SAFETY: the descriptor is open, and both pointers are valid for writing as much as
    // `length` says.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    fd::check(result)?;
    // For a listener, this field has another meaning than its name (net/ipv4/tcp.c).
    Ok(info.tcpi_unacked)
}

/// A slot that proves the address free by listening alone, and forms a group afterwards.
fn bind_first(address: SocketAddr, options: &TcpOptions) -> io::Result<OwnedFd> {
    let alone = TcpOptions {
        reuse_port: false,
        ..options.clone()
    };
    let (address, _place) = with_port(address, &alone)?;
    let slot = super::bind::unbound_tcp(address, &alone)?;
    // The kernel makes a group when a socket with the option listens, which this one must not have
    // yet, or when a program is attached to one that is not bound yet. The program goes again.
    sockopt::set_socket_reuseport(&slot, true)?;
    attach_placeholder(slot.as_fd())?;
    sockopt::set_socket_reuseport(&slot, false)?;
    rustix::net::bind(&slot, &address)?;
    listen(slot.as_fd(), options.backlog)?;
    sockopt::set_socket_reuseport(&slot, true)?;
    detach_choice(slot.as_fd())?;
    Ok(slot)
}

/// The address with a port, which the kernel chooses for port 0, and the socket that keeps it until
/// the slot has it. A slot must be bound to a port by its number: one that was bound to port 0 loses
/// the port when it stops to listen for a moment ([`empty_slot`]; `SOCK_BINDPORT_LOCK` in
/// `net/ipv4/inet_connection_sock.c`).
fn with_port(
    address: SocketAddr,
    options: &TcpOptions,
) -> io::Result<(SocketAddr, Option<OwnedFd>)> {
    if address.port() != 0 {
        return Ok((address, None));
    }
    // Several sockets may be bound to one port with `SO_REUSEADDR`, as long as none listens.
    let place = bind_tcp(address, options)?;
    match local_address(place.as_fd())? {
        Address::Inet(address) => Ok((address, Some(place))),
        Address::Unix(_) | Address::Unnamed => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A classic BPF program that needs no privilege and always chooses the first socket.
fn attach_placeholder(socket: BorrowedFd<'_>) -> io::Result<()> {
    attach_classic(socket, &[(libc::BPF_RET | libc::BPF_K, 0, 0, 0)])
}

/// One instruction of classic BPF: operation, jumps if true and if false, operand.
pub(crate) type Classic = (u32, u8, u8, u32);

/// Has a classic BPF program choose among the sockets of the group, in place of any before
/// (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)).
pub(crate) fn attach_classic(socket: BorrowedFd<'_>, code: &[Classic]) -> io::Result<()> {
    let mut instructions = Vec::with_capacity(code.len());
    for &(operation, jt, jf, k) in code {
        let code = u16::try_from(operation).map_err(|_| io::ErrorKind::InvalidData)?;
        instructions.push(libc::sock_filter { code, jt, jf, k });
    }
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: instructions.as_mut_ptr(),
    };
    // The kernel reads the instructions before the call returns.
    set_option(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// No program chooses among the sockets of the group any more: the kernel's hash does.
///
/// # Errors
///
/// `ENOENT` when there is none.
pub fn detach_choice(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option::<libc::c_int>(socket, libc::SO_DETACH_REUSEPORT_BPF, &0)
}

fn set_option<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = option_length(value)?;
    // SAFETY: the descriptor is open and `value` is valid for reading `length` bytes; what a
    // program's description points to lives as long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    fd::check(result).map(drop)
}

fn option_length<T>(value: &T) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(mem::size_of_val(value))
        .map_err(|_| io::ErrorKind::InvalidInput.into())
}
