//! Making a socket like the one that it takes the place of.
//!
//! Connections inherit most options of their listener, so what a program has set before it listens must
//! be set on the socket that is planted. What a program did not touch has the system's default on both,
//! and is not set: that alone could change something (a buffer that was set is not tuned any more).
#![allow(unsafe_code, reason = "socket options as bytes, of any length")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::ioctl_fionbio;

use crate::fd;

/// `SO_BUF_LOCK` (Linux 5.14): which buffers the program has given a size.
const SO_BUF_LOCK: libc::c_int = 72;
const SO_BINDTOIFINDEX: libc::c_int = 62;
const SEND_LOCKED: i32 = 1;
const RECEIVE_LOCKED: i32 = 2;

/// Options that mean the same for a socket that listens and for one that does not yet.
const OPTIONS: [(libc::c_int, libc::c_int); 26] = [
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
];

/// The longest value: the name of a congestion control, or a `timeval`.
const ROOM: usize = 16;

/// Copies what can be copied. An option that cannot is left as it is: it would be one that takes a
/// privilege which this process lacks, or that this kernel does not have.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    if let Ok(flags) = fcntl_getfl(from) {
        set_mode(to, flags.contains(OFlags::NONBLOCK));
    }
    for (level, option) in OPTIONS {
        let (Ok(wanted), Ok(present)) = (value(from, level, option), value(to, level, option))
        else {
            continue;
        };
        if wanted != present {
            let _set = set(to, level, option, wanted.bytes());
        }
    }
    copy_buffers(from, to);
}

/// Whether calls return instead of waiting. The mode belongs to the open file.
pub(super) fn set_mode(to: BorrowedFd<'_>, is_nonblocking: bool) {
    // Fails for no socket.
    let _set = ioctl_fionbio(to, is_nonblocking);
}

/// The kernel doubles what is set, and tells the doubled size.
fn copy_buffers(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let locked = number(from, SO_BUF_LOCK).unwrap_or(0);
    for (lock, option) in [
        (SEND_LOCKED, libc::SO_SNDBUF),
        (RECEIVE_LOCKED, libc::SO_RCVBUF),
    ] {
        if locked & lock == 0 {
            continue;
        }
        if let Some(size) = number(from, option) {
            let _set = set(to, libc::SOL_SOCKET, option, &(size / 2).to_ne_bytes());
        }
    }
}

/// Whether the socket is bound to an interface (`SO_BINDTODEVICE`, socket(7)).
pub(super) fn is_tied(socket: BorrowedFd<'_>) -> bool {
    number(socket, SO_BINDTOIFINDEX).is_some_and(|index| index != 0)
}

/// The value of an option, as bytes.
#[derive(PartialEq, Eq)]
struct Value {
    room: [u8; ROOM],
    length: usize,
}

impl Value {
    fn bytes(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }
}

fn number(socket: BorrowedFd<'_>, option: libc::c_int) -> Option<i32> {
    let value = value(socket, libc::SOL_SOCKET, option).ok()?;
    Some(i32::from_ne_bytes(*value.bytes().first_chunk()?))
}

fn value(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<Value> {
    let mut room = [0; ROOM];
    let mut length = length_of(&room)?;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to the room.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            room.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    fd::check(result)?;
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Value { room, length })
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    bytes: &[u8],
) -> io::Result<()> {
    let length = length_of(bytes)?;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of `bytes`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            bytes.as_ptr().cast(),
            length,
        )
    };
    fd::check(result).map(drop)
}

fn length_of(bytes: &[u8]) -> io::Result<libc::socklen_t> {
    let length = mem::size_of_val(bytes);
    libc::socklen_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::sockopt;

    use super::*;
    use crate::socket::{TcpOptions, bind_tcp, listen};

    #[test]
    fn a_socket_takes_over_what_was_set_and_nothing_else() {
        let loopback = ([127, 0, 0, 1], 0).into();
        let program = bind_tcp(loopback, &TcpOptions::default()).unwrap();
        let slot = bind_tcp(loopback, &TcpOptions::default()).unwrap();
        listen(slot.as_fd(), 5).unwrap();
        ioctl_fionbio(&program, false).unwrap();
        sockopt::set_tcp_nodelay(&program, true).unwrap();
        sockopt::set_socket_keepalive(&program, true).unwrap();
        sockopt::set_tcp_keepidle(&program, std::time::Duration::from_secs(33)).unwrap();
        sockopt::set_socket_send_buffer_size(&program, 40_000).unwrap();
        let linger = std::time::Duration::from_secs(3);
        sockopt::set_socket_linger(&program, Some(linger)).unwrap();

        copy(program.as_fd(), slot.as_fd());
        assert!(!fcntl_getfl(&slot).unwrap().contains(OFlags::NONBLOCK));
        assert!(sockopt::tcp_nodelay(&slot).unwrap());
        assert!(sockopt::socket_keepalive(&slot).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&slot).unwrap().as_secs(), 33);
        assert_eq!(sockopt::socket_linger(&slot).unwrap(), Some(linger));
        let size = sockopt::socket_send_buffer_size(&slot).unwrap();
        assert_eq!(size, sockopt::socket_send_buffer_size(&program).unwrap());
        assert_eq!(number(slot.as_fd(), SO_BUF_LOCK), Some(SEND_LOCKED));

        // A slot that another release had set up otherwise.
        let plain = bind_tcp(loopback, &TcpOptions::default()).unwrap();
        copy(plain.as_fd(), slot.as_fd());
        assert!(fcntl_getfl(&slot).unwrap().contains(OFlags::NONBLOCK));
        assert!(!sockopt::tcp_nodelay(&slot).unwrap());
        assert_eq!(sockopt::socket_linger(&slot).unwrap(), None);
        assert!(!is_tied(slot.as_fd()));
    }
}
