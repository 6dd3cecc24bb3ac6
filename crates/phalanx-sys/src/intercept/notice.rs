//! The conversation with the kernel about a stopped system call (`seccomp_unotify(2)`).
//!
//! The kernel's structures may grow: what it reads and writes is as long as it says
//! (`SECCOMP_GET_NOTIF_SIZES`), and what this program knows of it is the beginning.
#![allow(unsafe_code, reason = "ioctls that have no wrapper")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

/// Room for a structure that has grown, in 8 bytes. They have 10 and 3 today.
const ROOM: usize = 64;

/// A system call that waits for its answer.
#[derive(Copy, Clone, Debug)]
pub(super) struct Notice {
    /// Stands for this call, and for no other as long as the filter lives.
    pub(super) id: u64,
    /// The thread that waits; 0 when it is not visible here.
    pub(super) thread: u32,
    pub(super) number: i64,
    pub(super) args: [u64; 6],
}

/// Whether the kernel knows user notification, with structures that fit in here.
pub(super) fn check_support() -> io::Result<()> {
    let mut sizes = libc::seccomp_notif_sizes {
        seccomp_notif: 0,
        seccomp_notif_resp: 0,
        seccomp_data: 0,
    };
    // SAFETY: the pointer is valid for writing the three numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_NOTIF_SIZES,
            0,
            &raw mut sizes,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let longest = sizes.seccomp_notif.max(sizes.seccomp_notif_resp);
    if usize::from(longest) > ROOM * mem::size_of::<u64>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(())
}

/// Whether sockets can be planted: the kernel says of a call that does not exist that it does not
/// (`ENOENT`), unless it does not even know the request.
pub(super) fn check_planting(listener: BorrowedFd<'_>) -> io::Result<()> {
    match plant(listener, u64::MAX, listener, 0, false) {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Receives the next call. Only after poll(2) has told that there is one: otherwise this waits.
pub(super) fn receive(listener: BorrowedFd<'_>) -> Result<Notice, Errno> {
    // Has to be zero, or the kernel refuses.
    let mut room = [0_u64; ROOM];
    control(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_RECV,
        room.as_mut_ptr().cast(),
    )?;
    // SAFETY: the room is aligned and longer than the structure, which is of integers only.
    let notice: libc::seccomp_notif = unsafe { ptr::read(room.as_ptr().cast()) };
    Ok(Notice {
        id: notice.id,
        thread: notice.pid,
        number: notice.data.nr.into(),
        args: notice.data.args,
    })
}

/// Whether the caller still waits: what was read of it meanwhile was its own.
pub(super) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    let mut id = id;
    control(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
        (&raw mut id).cast(),
    )
    .is_ok()
}

/// An answer.
#[derive(Copy, Clone, Debug)]
pub(super) enum Answer {
    /// The kernel carries the call out.
    Pass,
    /// The call returns 0.
    Done,
    /// The call fails.
    Fail(Errno),
}

/// Answers a call. Fails with `ENOENT` when nobody waits for the answer any more.
pub(super) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<(), Errno> {
    let mut room = [0_u64; ROOM];
    let (error, flags) = match answer {
        Answer::Pass => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        Answer::Done => (0, 0),
        Answer::Fail(errno) => (-errno.raw_os_error(), 0),
    };
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error,
        flags: u32::try_from(flags).map_err(|_| Errno::INVAL)?,
    };
    // SAFETY: the room is aligned and longer than the structure.
    unsafe { ptr::write(room.as_mut_ptr().cast(), response) };
    control(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_SEND,
        room.as_mut_ptr().cast(),
    )
}

/// Makes the caller's descriptor `number` a duplicate of `socket`; what it was is closed there.
pub(super) fn plant(
    listener: BorrowedFd<'_>,
    id: u64,
    socket: BorrowedFd<'_>,
    number: u32,
    close_on_exec: bool,
) -> Result<(), Errno> {
    let flag = |flag: libc::c_ulong| u32::try_from(flag).map_err(|_| Errno::INVAL);
    let newfd_flags = if close_on_exec {
        libc::O_CLOEXEC.unsigned_abs()
    } else {
        0
    };
    let mut request = libc::seccomp_notif_addfd {
        id,
        flags: flag(libc::SECCOMP_ADDFD_FLAG_SETFD)?,
        srcfd: socket.as_raw_fd().unsigned_abs(),
        newfd: number,
        newfd_flags,
    };
    control(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_ADDFD,
        (&raw mut request).cast(),
    )
}

fn control(
    listener: BorrowedFd<'_>,
    request: libc::Ioctl,
    argument: *mut libc::c_void,
) -> Result<(), Errno> {
    // SAFETY: all callers pass a pointer to what the request reads or writes, with room for a
    // structure that has grown where the kernel decides the length.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request, argument) };
    if result == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
