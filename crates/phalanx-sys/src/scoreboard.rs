//! The scoreboard: shared memory in which workers publish their load.
//!
//! Each position has a row. Whoever chooses a position (the kernel program, or the primary that
//! hands connections over) counts what it gives to it, and the worker what it closes; the difference is
//! open. So a worker whose event loop is blocked looks as busy as it is. Workers need no privilege and
//! no system call: the memory is an eBPF map ([`crate::steering::Steering::scoreboard`]) or a memfd
//! ([`Scoreboard::anonymous`]), inherited as a descriptor ([`Scoreboard::from_fd`]).
//!
//! # Invariants
//!
//! * Nothing that is read here or by the kernel program is trusted: negative counts are none, and
//!   values beyond reason are cut, so no worker can wedge the choice or overflow a score.
//! * The two count in different cache lines: a worker that counts for a policy which goes by no load
//!   disturbs nobody, and is disturbed by nobody.
//! * A worker writes to its *lane* of the row alone, but for what it closed and answered. A successor at the same
//!   position has the other lane, so what a dead worker leaves behind is known and taken off at once
//!   ([`Scoreboard::worker_gone`]).

mod drift;
mod row;
mod seat;

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

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

/// The memory, as `struct board` of `bpf/steer.bpf.c` has it.
#[repr(C)]
struct Board {
    /// Connections that were given to each position, less those that came to nothing. It counts on for ever.
    given: [AtomicI32; ROWS],
    rows: [Row; ROWS],
}

/// What there is of one position.
struct Place<'a> {
    given: &'a AtomicI32,
    row: &'a Row,
}

impl Place<'_> {
    fn open(&self) -> i32 {
        self.row.open(self.given.load(Relaxed))
    }

    /// Counts what workers hold and nobody was seen to give: connections that came while no position was
    /// eligible, and left the choice to the kernel. Uncounted, they would hide as many others for ever.
    fn recount(&self) {
        // INVARIANT: a connection is given before it is held, and not held any more before it is closed. So
        // in this order of reading, too little was given only if something was not counted.
        let closed = self.row.closed.load(Acquire);
        let held = self
            .row
            .held
            .each_ref()
            .map(|held| held.load(Acquire).max(0));
        let held = held[0].saturating_add(held[1]);
        let given = self.given.load(Relaxed);
        let missing = held.saturating_sub(given.wrapping_sub(closed));
        if missing > 0 {
            // Where somebody counts meanwhile, the next time will do.
            let whole = given.wrapping_add(missing);
            _ = self.given.compare_exchange(given, whole, Relaxed, Relaxed);
        }
    }
}

const _: () = assert!(mem::size_of::<Row>() == 64 && mem::size_of::<Board>() == 68 * ROWS);

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
        self.place(position).map_or_else(Load::default, |place| {
            place.row.load(place.given.load(Relaxed), tick)
        })
    }

    /// Counts a connection that the primary hands over. The kernel program does so itself.
    pub fn chosen(&self, position: u32) {
        if let Some(place) = self.place(position) {
            if place.row.outstanding(place.given.load(Relaxed)) == 0 {
                place.row.busy_from(tick_now());
            }
            place.given.fetch_add(1, Relaxed);
        }
    }

    /// Takes back [`Scoreboard::chosen`]: the worker never got the connection.
    pub fn not_chosen(&self, position: u32) {
        self.correct(position, 1);
    }

    /// A seat for the worker at this position; none beyond [`POSITIONS_MAX`].
    #[must_use]
    pub fn seat(self: &Arc<Self>, position: u32, lane: Lane) -> Option<Seat> {
        self.place(position)?;
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
        let Some(Place { given, row }) = self.place(position) else {
            return;
        };
        let held = row.held[lane.index()].swap(0, Relaxed);
        given.fetch_sub(held.max(0), Relaxed);
        row.outstanding[lane.index()].store(0, Relaxed);
        let other = lane.other().index();
        if row.held[other].load(Relaxed) <= 0 && row.outstanding[other].load(Relaxed) <= 0 {
            row.forget_response();
        }
    }

    /// The position is empty: no worker, and no queue (its slot was closed, and what waited there
    /// has moved).
    pub fn reset_load(&self, position: u32) {
        if let Some(Place { given, row }) = self.place(position) {
            given.store(row.closed.load(Relaxed), Relaxed);
            for lane in [Lane::Even, Lane::Odd] {
                row.held[lane.index()].store(0, Relaxed);
                row.outstanding[lane.index()].store(0, Relaxed);
            }
            row.forget_response();
        }
    }

    /// For a program that reports nothing: what was found out about it by other means.
    pub fn set_open(&self, position: u32, open: u32) {
        if let Some(Place { given, row }) = self.place(position) {
            let open = i32::try_from(open).unwrap_or(i32::MAX);
            given.store(row.closed.load(Relaxed).wrapping_add(open), Relaxed);
        }
    }

    /// Connections that were counted and that no worker holds, less those that wait to be accepted:
    /// handshakes under way, and those that never came to an end. See [`Drift`].
    #[must_use]
    pub fn surplus(&self, position: u32, waiting: u32) -> i32 {
        let Some(place) = self.place(position) else {
            return 0;
        };
        let held = place.row.held[0]
            .load(Relaxed)
            .saturating_add(place.row.held[1].load(Relaxed));
        let waiting = i32::try_from(waiting).unwrap_or(i32::MAX);
        place.open().saturating_sub(held).saturating_sub(waiting)
    }

    /// Takes `surplus` off the open connections; a negative one is added.
    pub fn correct(&self, position: u32, surplus: i32) {
        if let Some(place) = self.place(position) {
            place.given.fetch_sub(surplus, Relaxed);
        }
    }

    fn place(&self, position: u32) -> Option<Place<'_>> {
        let index = usize::try_from(position).ok()?;
        Some(Place {
            given: self.board.given.get(index)?,
            row: self.board.rows.get(index)?,
        })
    }
}

impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
