//! A channel that this process was given and hands on to the program that it becomes.
#![allow(
    unsafe_code,
    reason = "dup2 to a number that this process does not own"
)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::{FIRST_NON_STANDARD, Received, receive};
use crate::fd;
use crate::socket::{SocketKind, socket_kind};

/// A close-on-exec duplicate of the inherited channel with this number, which stays what it is.
///
/// # Errors
///
/// `EBADF` when the number was not inherited; `EPROTOTYPE` when it is no Unix stream socket.
pub fn inherited_copy(number: i32) -> io::Result<OwnedFd> {
    fd::check_inherited(number)?;
    let copy = fd::duplicate(number, FIRST_NON_STANDARD)?;
    if socket_kind(std::os::fd::AsFd::as_fd(&copy))? != SocketKind::UnixStream {
        return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE));
    }
    Ok(copy)
}

/// Puts a duplicate of `end` in the place of the inherited descriptor `number`, for the program that this process
/// becomes (dup2(2)).
///
/// # Errors
///
/// `EBADF` when the number was not inherited.
pub fn replace_inherited(number: i32, end: BorrowedFd<'_>) -> io::Result<()> {
    fd::check_inherited(number)?;
    // SAFETY: the number is open and inherited, so nothing here owns it; it goes on being inherited.
    fd::check(unsafe { libc::dup2(end.as_raw_fd(), number) })?;
    Ok(())
}

/// As [`receive`], and waits until there is something, for this long at most.
///
/// # Errors
///
/// As [`receive`]; `TimedOut`.
pub fn receive_within(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    handles: &mut VecDeque<OwnedFd>,
    limit: std::time::Duration,
) -> io::Result<Received> {
    let limit = Timespec::try_from(limit).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut watched = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    if retry_on_intr(|| poll(&mut watched, Some(&limit)))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    receive(fd, buf, handles)
}
