//! Interception: a process and all its descendants ask before they bind and listen.
//!
//! A process that is started with [`SpawnPlan::intercept`](crate::process::SpawnPlan::intercept) has a
//! seccomp filter (seccomp(2), `seccomp_unotify(2)`) that stops it in bind(2) and listen(2) until this
//! process has answered. Everything that it starts inherits the filter. What cannot be a TCP socket's
//! address is not even asked about (`filter`), so a running server costs nothing.
//!
//! [`Interception`] receives the calls. A [`Call`] has looked at the socket (`socket_view`) and, for bind, at the
//! address; it is answered once: let pass, refused, carried out by this process on a duplicate of the socket, or
//! answered by *planting*: the caller's descriptor becomes another socket, under the same number, with the flags
//! and options of the one it replaces (`socket_options`). A call that is dropped passes, so nothing that goes wrong here
//! hangs the caller.
//!
//! Where a sandbox forbids duplicates, as default containers do, there is planting only, and most options that were
//! set before it are lost.
//!
//! # Time
//!
//! Nothing here waits for the caller's good will, with one exception: its memory is read, and memory
//! can be made to take for ever (userfaultfd(2), FUSE). So [`Interception::next`] and the answers belong
//! on a thread that may block, one caller at a time.
//!
//! # What is left alone
//!
//! 32-bit programs on a 64-bit kernel (another system call table), sockets of another network namespace,
//! link-local addresses with a scope and sockets bound to a device: they bind as if nobody watched.
//!
//! Needs Linux 5.9, on x86-64 or `AArch64`. Without `CAP_SYS_ADMIN` the process can gain no privileges any
//! more (`PR_SET_NO_NEW_PRIVS`, prctl(2)).

mod call;
mod caller;
mod filter;
mod notice;
mod socket_options;
mod socket_view;
mod unlink;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

pub use call::{Act, Call};
pub(crate) use filter::install;
use socket_view::Memory;
pub use unlink::Unlink;

use crate::socket::SocketId;

/// Why a process cannot be intercepted here. Concerns every process; no retry helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// There is no filter for this kind of processor.
    #[error("interception knows x86-64 and AArch64 only")]
    Processor,
    /// The kernel cannot stop system calls for another process, or a sandbox does not let it.
    #[error("the kernel or the sandbox does not allow seccomp user notification (Linux 5.9)")]
    Refused(#[source] io::Error),
}

/// Whether processes can be intercepted here, as far as it can be known without starting one.
///
/// # Errors
///
/// [`Unavailable`].
pub fn available() -> Result<(), Unavailable> {
    if !filter::knows_processor() {
        return Err(Unavailable::Processor);
    }
    notice::check_support().map_err(Unavailable::Refused)
}

/// What [`Call::socket_id`] says of a socket of this process's when it was planted.
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn id_of(socket: BorrowedFd<'_>) -> io::Result<SocketId> {
    socket_view::id_of(socket, can_duplicate())
}

/// The calls of one process and its descendants, as they come.
#[derive(Debug)]
pub struct Interception {
    channel: Arc<Channel>,
}

/// Where calls come in, and what is remembered of them.
#[derive(Debug)]
struct Channel {
    fd: Arc<OwnedFd>,
    memory: Memory,
    /// Unix paths are heard of too.
    with_paths: bool,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether sockets of other processes can be duplicated here (`pidfd_getfd(2)`, Linux 5.6). Where they cannot,
/// because a sandbox forbids it, interception works, with limits.
#[must_use]
pub fn can_duplicate() -> bool {
    socket_view::can_duplicate()
}

/// What [`Interception::next`] found.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing else to find")]
pub enum Next {
    /// A call, to be answered.
    Call(Call),
    /// A removal of a Unix socket's file, to be answered.
    Unlink(Unlink),
    /// A call that is none of ours, or whose caller has gone: it is answered. There may be more.
    Passed,
    /// A call whose caller this process may not look into: it has passed. It has become another user,
    /// and this process is not root or lacks `CAP_SYS_PTRACE`.
    Hidden,
    /// No call waits: wait until the descriptor is readable.
    Nothing,
    /// Nobody is left who could call.
    Ended,
}

impl Interception {
    /// Takes the descriptor that [`install`] made.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the kernel cannot plant sockets (before 5.9).
    pub(crate) fn new(fd: OwnedFd, with_paths: bool) -> io::Result<Interception> {
        notice::check_planting(fd.as_fd())?;
        let channel = Channel {
            fd: Arc::new(fd),
            memory: Memory::default(),
            with_paths,
        };
        Ok(Interception {
            channel: Arc::new(channel),
        })
    }

    /// The descriptor, which is readable when a call waits, for an event loop.
    #[must_use]
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.channel.fd)
    }

    /// The next call. Does not wait for one. May wait for the caller's memory.
    ///
    /// # Errors
    ///
    /// Those of poll(2) and ioctl(2), which come up only when this process is out of something.
    pub fn next(&self) -> io::Result<Next> {
        let mut fds = [PollFd::new(&self.channel.fd, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())))?;
        let ready = fds[0].revents();
        if !ready.contains(PollFlags::IN) {
            // The last one with the filter is gone (`POLLHUP`).
            let is_over = ready.intersects(PollFlags::HUP | PollFlags::ERR);
            return Ok(if is_over { Next::Ended } else { Next::Nothing });
        }
        let notice = match notice::receive(self.as_fd()) {
            Ok(notice) => notice,
            // It died, or a signal took it out of the call, since it was seen.
            Err(Errno::NOENT | Errno::INTR) => return Ok(Next::Passed),
            Err(errno) => return Err(errno.into()),
        };
        let unlink = Unlink::examine(&self.channel, &notice);
        Ok(unlink.unwrap_or_else(|| Call::examine(&self.channel, &notice)))
    }
}

impl AsFd for Interception {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
