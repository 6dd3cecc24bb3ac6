//! The controlling terminal of this process (tty(4)), and whether it is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};

/// Opens the controlling terminal; nothing where there is none. Nothing is read from it, so a process in the background
/// may hold it.
#[must_use]
pub fn controlling() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open("/dev/tty", flags, Mode::empty()).ok()
}

/// Whether this terminal was hung up: closed, disconnected, or given up by its session.
///
/// # Errors
/// As poll(2).
pub fn is_hung_up(terminal: impl AsFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(&terminal, PollFlags::empty())];
    poll(&mut asked, Some(&Timespec::default()))?;
    Ok(asked[0]
        .revents()
        .intersects(PollFlags::HUP | PollFlags::ERR))
}
