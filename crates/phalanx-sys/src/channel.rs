//! The socket between primary and worker: bytes, and descriptors riding on them.
//!
//! What the bytes mean is the codec's business. A stream socket keeps no boundaries, but the
//! kernel ends a read behind the first piece that carries descriptors (unix(7)), so a read
//! yields those of one [`send`] at most.

mod inherited;
mod recall;

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

pub use inherited::{inherited_copy, receive_within, replace_inherited};
pub use recall::{Identity, WorkerEnd};

use crate::fd;
use crate::socket::{SocketKind, socket_kind};

/// The most descriptors that one message can carry (`SCM_MAX_FD`, unix(7)).
const MOST_HANDLES: usize = 253;

/// What [`receive`] got.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Received {
    /// How many bytes were written to the buffer; 0 when the peer has closed its end.
    pub bytes: usize,
    /// Whether descriptors were lost, because this process has too many files open or the
    /// sender attached more than possible. They are closed, so a connection among them is lost.
    pub truncated: bool,
}

/// A pair of connected stream sockets (socketpair(2)), both close-on-exec. The first is for the
/// primary and non-blocking; the second is for the worker, which sets its own mode.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Sends `bytes`, and with them a duplicate of `handle` (sendmsg(2), `SCM_RIGHTS`). Returns how
/// many bytes were taken; if any were, then so was the handle. Allocates nothing, raises no
/// SIGPIPE. `bytes` must not be empty when there is a handle: a stream carries none without.
///
/// # Errors
///
/// `EAGAIN` when the buffer is full: wait until writable. `EPIPE` or `ECONNRESET` when the peer
/// is gone. `ETOOMANYREFS` when too many handles are on their way (the limit of open files):
/// try later. `InvalidInput` for a handle without bytes.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], handle: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    if bytes.is_empty() && handle.is_some() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let handles = handle.as_slice();
    if !handles.is_empty() && !control.push(SendAncillaryMessage::ScmRights(handles)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(bytes)];
    let sent = retry_on_intr(|| sendmsg(fd, &parts, &mut control, SendFlags::NOSIGNAL));
    Ok(sent?)
}

/// Receives bytes into `buf` and appends the descriptors that came with them, all
/// close-on-exec, to `handles` (recvmsg(2)). Never waits.
///
/// # Errors
///
/// `EAGAIN` when there is nothing: wait until readable. `ECONNRESET` when the peer went away
/// with unread data.
pub fn receive(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    handles: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_HANDLES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut parts = [IoSliceMut::new(buf)];
    let message = retry_on_intr(|| recvmsg(fd, &mut parts, &mut control, flags))?;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = ancillary {
            handles.extend(fds);
        }
    }
    Ok(Received {
        bytes: message.bytes,
        truncated: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// Adopts the channel that this process inherited as descriptor `number`, makes it
/// close-on-exec and non-blocking. If the number is that of a standard descriptor, which the
/// standard library goes on using, the channel moves and `/dev/null` takes its place.
///
/// # Errors
///
/// `EBADF` when the descriptor is not open, or was not inherited (or has been taken over
/// already); `ENOTSOCK`, or `EPROTOTYPE` for a socket that is no Unix stream.
pub fn take_over(number: i32) -> io::Result<OwnedFd> {
    fd::check_inherited(number)?;
    // Judged on a copy, so that nothing is closed if it turns out to be something else.
    let copy = fd::duplicate(number, FIRST_NON_STANDARD)?;
    if socket_kind(copy.as_fd())? != SocketKind::UnixStream {
        return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE));
    }
    let channel = if number < FIRST_NON_STANDARD {
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        fd::replace_standard(number, null.as_fd())?;
        copy
    } else {
        fd::adopt_inherited(number)?
    };
    fcntl_setfd(&channel, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&channel, true)?;
    Ok(channel)
}

/// Below it are stdin, stdout and stderr.
const FIRST_NON_STANDARD: i32 = 3;
