//! The scoreboard: shared memory in which workers publish their load.
//!
//! Each position has a row. Whoever chooses a position (the kernel program, or the primary that
//! hands connections over) adds the connection to its row; the worker takes it off when it closes
//! it. So a worker whose event loop is blocked looks as busy as it is. Workers need no privilege and
//! no system call: the memory is an eBPF map ([`crate::steering::Steering::scoreboard`]) or a memfd
//! ([`Scoreboard::anonymous`]), inherited as a descriptor ([`Scoreboard::from_fd`]).
//!
//! # Invariants
//!
//! * Nothing that is read here or by the kernel program is trusted: negative counts are none, and
//!   values beyond reason are cut, so no worker can wedge the choice or overflow a score.
//! * A worker writes to its *lane* of the row alone, but for `open`. A successor at the same
//!   position has the other lane, so what a dead worker leaves behind is known and taken off at once
//!   ([`Scoreboard::worker_gone`]).

mod drift;
mod row;
mod seat;

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{
    FileType, MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create,
};

use crate::mapping::{Mapped, Shared};
pub use drift::Drift;
pub use row::{Lane, Load};
use row::{Row, tick_now};
pub use seat::Seat;

/// A scoreboard has so many rows.
pub const POSITIONS_MAX: u32 = 4096;

const ROWS: usize = 4096;

#[repr(C)]
struct Board {
    rows: [Row; ROWS],
}

const _: () = assert!(mem::size_of::<Row>() == 32 && mem::size_of::<Board>() == 32 * ROWS);

/// How long the memory of a scoreboard is.
pub(crate) const SIZE_BYTES: usize = mem::size_of::<Board>();

#[expect(unsafe_code, reason = "vouches for the layout above")]
// SAFETY: `repr(C)` and atomic integers throughout.
unsafe impl Shared for Board {}

/// See the module's documentation.
#[derive(Debug)]
pub struct Scoreboard {
    fd: OwnedFd,
    board: Mapped<Board>,
}

impl Scoreboard {
    /// A scoreboard that no kernel program reads (`memfd_create(2)`). It cannot be shortened under
    /// the feet of those who have mapped it.
    ///
    /// # Errors
    ///
    /// Those of `memfd_create(2)` and mmap(2).
    pub fn anonymous() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("phalanx-scoreboard", flags)?;
        let length = u64::try_from(SIZE_BYTES).map_err(|_| io::ErrorKind::InvalidInput)?;
        ftruncate(&fd, length)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::from_fd(fd)
    }

    /// The scoreboard that `fd` refers to, as inherited from the primary.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is too short to be one; those of mmap(2) when it cannot be mapped.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let found = fstat(&fd)?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        if is_file && usize::try_from(found.st_size).is_ok_and(|size| size < SIZE_BYTES) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let board = Mapped::new(&fd)?;
        Ok(Self { fd, board })
    }

    /// A further descriptor of the same memory, for a worker to inherit.
    ///
    /// # Errors
    ///
    /// Those of fcntl(2).
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// The position's load now. Idle beyond [`POSITIONS_MAX`].
    #[must_use]
    pub fn load(&self, position: u32) -> Load {
        self.load_at(position, tick_now())
    }

    /// The position's load at this tick of the clock.
    pub(crate) fn load_at(&self, position: u32, tick: u32) -> Load {
        self.row(position)
            .map_or_else(Load::default, |row| row.load(tick))
    }

    /// Counts a connection that the primary hands over. The kernel program does so itself.
    pub fn chosen(&self, position: u32) {
        if let Some(row) = self.row(position) {
            row.open.fetch_add(1, Relaxed);
        }
    }

    /// Takes back [`Scoreboard::chosen`]: the worker never got the connection.
    pub fn not_chosen(&self, position: u32) {
        if let Some(row) = self.row(position) {
            row.open.fetch_sub(1, Relaxed);
        }
    }

    /// A seat for the worker at this position; none beyond [`POSITIONS_MAX`].
    #[must_use]
    pub fn seat(self: &Arc<Self>, position: u32, lane: Lane) -> Option<Seat> {
        self.row(position)?;
        Some(Seat {
            board: Arc::clone(self),
            position,
            lane,
        })
    }

    /// The worker on this lane is gone: what it held open and owed counts no more. What waits in
    /// the slot's queue still does, for it is its successor's now. Its response time is forgotten
    /// unless the other lane is in use, because a successor may have set it.
    pub fn worker_gone(&self, position: u32, lane: Lane) {
        let Some(row) = self.row(position) else {
            return;
        };
        let held = row.held[lane.index()].swap(0, Relaxed);
        row.open.fetch_sub(held.max(0), Relaxed);
        row.outstanding[lane.index()].store(0, Relaxed);
        let other = lane.other().index();
        if row.held[other].load(Relaxed) <= 0 && row.outstanding[other].load(Relaxed) <= 0 {
            row.forget_response();
        }
    }

    /// The position is empty: no worker, and no queue (its slot was closed, and what waited there
    /// has moved).
    pub fn reset_load(&self, position: u32) {
        if let Some(row) = self.row(position) {
            row.open.store(0, Relaxed);
            for lane in [Lane::Even, Lane::Odd] {
                row.held[lane.index()].store(0, Relaxed);
                row.outstanding[lane.index()].store(0, Relaxed);
            }
            row.forget_response();
        }
    }

    /// For a program that reports nothing: what was found out about it by other means.
    pub fn set_open(&self, position: u32, open: u32) {
        if let Some(row) = self.row(position) {
            row.open
                .store(i32::try_from(open).unwrap_or(i32::MAX), Relaxed);
        }
    }

    /// Connections that were counted and that no worker holds, less those that wait to be accepted:
    /// handshakes under way, and those that never came to an end. See [`Drift`].
    #[must_use]
    pub fn surplus(&self, position: u32, waiting: u32) -> i32 {
        let Some(row) = self.row(position) else {
            return 0;
        };
        let held = row.held[0]
            .load(Relaxed)
            .saturating_add(row.held[1].load(Relaxed));
        let waiting = i32::try_from(waiting).unwrap_or(i32::MAX);
        row.open
            .load(Relaxed)
            .saturating_sub(held)
            .saturating_sub(waiting)
    }

    /// Takes `surplus` off the open connections; a negative one is added.
    pub fn correct(&self, position: u32, surplus: i32) {
        if let Some(row) = self.row(position) {
            row.open.fetch_sub(surplus, Relaxed);
        }
    }

    fn row(&self, position: u32) -> Option<&Row> {
        self.board.rows.get(usize::try_from(position).ok()?)
    }
}

impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
