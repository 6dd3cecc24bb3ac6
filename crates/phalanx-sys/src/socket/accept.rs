//! Accepting a connection, and what to do about it when that fails.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

/// Why there is no connection: each variant asks for another reaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The queue is empty: wait until the listener is readable.
    #[error("no connection is waiting")]
    WouldBlock,
    /// This one connection failed before it was accepted: go on with the next.
    #[error("a connection was lost before it was accepted")]
    Connection(#[source] io::Error),
    /// This process or the system is out of files or memory: pause, and try again when some
    /// are free. The connection stays in the queue, so trying at once would spin.
    #[error("no resources to accept a connection")]
    Exhausted(#[source] io::Error),
    /// The descriptor cannot accept, now or later: it is closed, or no listener.
    #[error("the listener cannot accept")]
    Fatal(#[source] io::Error),
}

/// Accepts a connection, which is non-blocking and close-on-exec (accept4(2)).
///
/// # Errors
///
/// [`AcceptError`], by reaction.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, AcceptError> {
    loop {
        match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(connection) => return Ok(connection),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(classify(errno)),
        }
    }
}

/// Linux passes errors that are pending on the new connection through accept (accept(2), "Error
/// handling"); `EPERM` comes from a firewall. `EOPNOTSUPP`, listed there as well, is what every
/// later call returns too if the socket is no stream, so it counts as fatal.
fn classify(errno: Errno) -> AcceptError {
    match errno {
        Errno::AGAIN => AcceptError::WouldBlock,
        Errno::CONNABORTED
        | Errno::CONNRESET
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::PERM
        | Errno::TIMEDOUT
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NONET => AcceptError::Connection(errno.into()),
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
            AcceptError::Exhausted(errno.into())
        }
        _ => AcceptError::Fatal(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_asks_for_waiting() {
        assert!(matches!(classify(Errno::AGAIN), AcceptError::WouldBlock));
        assert!(matches!(
            classify(Errno::WOULDBLOCK),
            AcceptError::WouldBlock
        ));
    }

    #[test]
    fn a_lost_connection_does_not_stop_the_listener() {
        for errno in [
            Errno::CONNABORTED,
            Errno::PROTO,
            Errno::NETDOWN,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::NONET,
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::PERM,
        ] {
            let class = classify(errno);
            assert!(matches!(class, AcceptError::Connection(_)), "{errno:?}");
        }
    }

    #[test]
    fn exhaustion_asks_for_a_pause() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            let class = classify(errno);
            assert!(matches!(class, AcceptError::Exhausted(_)), "{errno:?}");
        }
    }

    #[test]
    fn what_will_not_change_is_fatal() {
        for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP] {
            let class = classify(errno);
            assert!(matches!(class, AcceptError::Fatal(_)), "{errno:?}");
        }
    }
}
