//! Descriptors that are known by number only: what this process inherited.
#![allow(unsafe_code, reason = "a number is no proof of an open descriptor")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

/// A close-on-exec duplicate of descriptor `number`, with a number of at least `lowest`
/// (fcntl(2), `F_DUPFD_CLOEXEC`).
///
/// # Errors
///
/// `EBADF` when `number` is not open, `EMFILE` when there is no free number, `EINVAL` when
/// `lowest` is above the limit of open files.
pub(crate) fn duplicate(number: i32, lowest: i32) -> io::Result<OwnedFd> {
    // SAFETY: with any number, open or not, this call only reads the descriptor table and
    // adds a new entry to it.
    let copy = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: `copy` was opened by the call above and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A close-on-exec duplicate of descriptor `number` of another process (`pidfd_getfd(2)`, Linux 5.6).
///
/// # Errors
///
/// `EBADF` when it has no such descriptor; `EPERM` when it may not be looked into (`ptrace(2)`).
pub(crate) fn of_process(process: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only, and makes a new descriptor.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    let copy = check(i32::try_from(copy).map_err(|_| io::ErrorKind::InvalidData)?)?;
    // SAFETY: the call has just made the descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Proves that descriptor `number` is open and was inherited: it lacks the close-on-exec flag,
/// which descriptors made by this process always have.
///
/// # Errors
///
/// `EBADF` when it is not open, or when it is close-on-exec.
pub(crate) fn check_inherited(number: i32) -> io::Result<()> {
    // SAFETY: with any number, open or not, this call only reads the descriptor table.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EBADF))
    }
}

/// Takes the inherited descriptor `number` over, once: from then on it is close-on-exec, and so
/// not inherited any more.
///
/// # Errors
///
/// `EBADF`, as for [`check_inherited`].
pub(crate) fn adopt_inherited(number: i32) -> io::Result<OwnedFd> {
    static ADOPTING: Mutex<()> = Mutex::new(());

    let _one_at_a_time = ADOPTING.lock().unwrap_or_else(PoisonError::into_inner);
    check_inherited(number)?;
    // SAFETY: changes a flag of a descriptor that, being inherited, no code here owns.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the descriptor is open; it was inherited and is marked as taken now, so nobody
    // else owns it or will.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes a standard descriptor a duplicate of `source` (dup2(2)). What it was is closed.
///
/// # Errors
///
/// `EINVAL` when `number` is none of 0, 1 and 2.
pub(crate) fn replace_standard(number: i32, source: BorrowedFd<'_>) -> io::Result<()> {
    let replaced = match number {
        0 => rustix::stdio::dup2_stdin(source),
        1 => rustix::stdio::dup2_stdout(source),
        2 => rustix::stdio::dup2_stderr(source),
        _ => Err(Errno::INVAL),
    };
    Ok(replaced?)
}

/// The result of a C library call: -1 means that `errno` tells why it failed.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
