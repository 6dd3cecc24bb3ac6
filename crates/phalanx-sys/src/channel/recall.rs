//! Taking back what was sent on a channel and has not been read.
//!
//! What was sent waits in the kernel, in the receive queue of the worker's end. Whoever has a descriptor
//! of that end may read it; the primary gets one from the worker for a moment (`pidfd_getfd(2)`). Each read
//! is done under the socket's lock, so a message is read by one of the two and never by both: what was
//! taken back here, no worker will ever see.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, recv};

use super::receive;
use crate::fd;

/// Which socket a descriptor stands for: the same for all its duplicates, in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u64);

impl Identity {
    /// That of this socket.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(fstat(socket)?.st_ino))
    }

    /// The one of this number, for a process that goes on with another's sockets.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number: that of the inode.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The worker's end of a channel, in the primary's hands. It keeps the channel from ending: drop it soon.
#[derive(Debug)]
pub struct WorkerEnd(OwnedFd);

impl WorkerEnd {
    /// Gets the descriptor `number` of the process, provided that it is the socket `identity`.
    ///
    /// # Errors
    ///
    /// `EPERM` where the process may not be looked into (another user, a container without
    /// `CAP_SYS_PTRACE` or whose seccomp filter forbids it), `ENOSYS` before Linux 5.6, `EBADF` when it has no
    /// such descriptor; `NotFound` when that is another socket.
    pub fn of(process: BorrowedFd<'_>, number: i32, identity: Identity) -> io::Result<Self> {
        let end = fd::of_process(process, number)?;
        if Identity::of(end.as_fd())? != identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self(end))
    }

    /// What comes next, without taking it, as far as it fits.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when everything was read.
    pub fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        // A descriptor that comes with it is not asked for, so the kernel makes none.
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (count, _) = retry_on_intr(|| recv(&self.0, &mut *bytes, flags))?;
        Ok(count)
    }

    /// Takes what comes next, up to and with the first message that carries a descriptor.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when everything was read.
    pub fn take(&self, bytes: &mut [u8], handles: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
        Ok(receive(self.0.as_fd(), bytes, handles)?.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::super::{pair, send};
    use super::*;

    #[test]
    fn what_was_not_read_is_taken_back_with_its_descriptor() {
        let (ours, theirs) = pair().unwrap();
        let identity = Identity::of(theirs.as_fd()).unwrap();
        let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let end = WorkerEnd::of(own.as_fd(), theirs.as_raw_fd(), identity);
        if end
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        {
            return;
        }
        let end = end.unwrap();
        let wrong = WorkerEnd::of(own.as_fd(), ours.as_raw_fd(), identity);
        assert_eq!(wrong.unwrap_err().kind(), io::ErrorKind::NotFound);
        send(ours.as_fd(), b"one\n", Some(ours.as_fd())).unwrap();
        send(ours.as_fd(), b"two\n", Some(ours.as_fd())).unwrap();
        let (mut bytes, mut handles) = ([0; 64], VecDeque::new());
        assert_eq!(end.peek(&mut bytes).unwrap(), 4);
        assert_eq!(&bytes[..4], b"one\n");
        assert_eq!(end.take(&mut bytes, &mut handles).unwrap(), 4);
        assert_eq!((&bytes[..4], handles.len()), (&b"one\n"[..], 1));
        let read = receive(theirs.as_fd(), &mut bytes, &mut handles).unwrap();
        assert_eq!((&bytes[..read.bytes], handles.len()), (&b"two\n"[..], 2));
        let nothing = end.peek(&mut bytes).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
