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

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::fs::{
    FileType, MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create,
};
use rustix::time::{ClockId, clock_gettime};

use crate::mapping::{Mapped, Shared};

/// A scoreboard has so many rows.
pub const POSITIONS_MAX: u32 = 4096;

const ROWS: usize = 4096;

/// A tick is 2^20 ns: the kernel program has a shift where it could ill afford a division.
const TICK_SHIFT: u32 = 20;
/// The response time of an idle position halves every 2^4 ticks: see [`Load::response_us`].
const HALVING: u32 = 4;
/// The time constant with which the average of response times follows the newest. So short that a worker
/// which once was slow is not shunned for seconds, while the others are flooded.
const FOLLOWING_TICKS: u64 = 16;
/// The longest response time that is kept, in µs: 18 minutes.
const RESPONSE_MAX_US: u32 = 1 << 30;

/// Which half of a row a worker writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a worker and its successor are two"
)]
pub enum Lane {
    /// The first worker at a position, its successor's successor, and so on.
    Even,
    /// The others.
    Odd,
}

impl Lane {
    /// The lane of a worker's successor.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Even => 0,
            Self::Odd => 1,
        }
    }
}

/// The load of one position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Load {
    /// Open connections, those included that wait to be accepted.
    pub open: u32,
    /// What awaits an answer: requests that were read, and connections that were not yet accepted.
    pub outstanding: u32,
    /// Response time in µs, as a peak-sensitive average: a slow answer raises it at once, quick ones
    /// lower it little by little. While nothing is outstanding it halves every 17 ms,
    /// so that a position which once was slow is tried again. 0 while unknown.
    pub response_us: u32,
}

/// The memory, as `struct row` of `bpf/steer.bpf.c` has it.
#[repr(C)]
#[derive(Default)]
struct Row {
    open: AtomicI32,
    held: [AtomicI32; 2],
    outstanding: [AtomicI32; 2],
    response_us: AtomicU32,
    response_tick: AtomicU32,
    reserved: AtomicU32,
}

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

/// Finds out what is counted for ever: connections that were chosen at their first packet and
/// never came to be, because the client gave up or never was there.
///
/// At any one look, some connections are just being made, so a surplus is normal. What is left in
/// every one of [`Drift::LOOKS`] looks is taken for lost. Look about once a second.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    looks: u32,
    low: i32,
    high: i32,
}

impl Drift {
    /// So many looks make a judgement.
    pub const LOOKS: u32 = 8;

    /// Takes [`Scoreboard::surplus`] down, and answers with what to [`Scoreboard::correct`]: 0 most
    /// of the time.
    pub fn look(&mut self, surplus: i32) -> i32 {
        if self.looks == 0 {
            (self.low, self.high) = (surplus, surplus);
        }
        self.looks += 1;
        self.low = self.low.min(surplus);
        self.high = self.high.max(surplus);
        if self.looks < Self::LOOKS {
            return 0;
        }
        self.looks = 0;
        if self.low > 0 {
            self.low
        } else {
            self.high.min(0)
        }
    }
}

/// A worker's place at the scoreboard: it counts what the worker does. Threads may share it.
#[derive(Clone, Debug)]
pub struct Seat {
    board: Arc<Scoreboard>,
    position: u32,
    lane: Lane,
}

impl Seat {
    /// The worker has accepted a connection.
    pub fn accepted(&self) {
        if let Some(row) = self.row() {
            row.held[self.lane.index()].fetch_add(1, Relaxed);
        }
    }

    /// The worker has closed a connection that it had accepted.
    pub fn closed(&self) {
        if let Some(row) = self.row() {
            // A worker that dies between the two leaves `open` one too high; the other way round,
            // it would be taken off twice.
            row.held[self.lane.index()].fetch_sub(1, Relaxed);
            row.open.fetch_sub(1, Relaxed);
        }
    }

    /// A request has begun.
    pub fn began(&self) {
        if let Some(row) = self.row() {
            row.outstanding[self.lane.index()].fetch_add(1, Relaxed);
        }
    }

    /// A request has ended, and this is how long it took.
    pub fn ended(&self, took: Duration) {
        if let Some(row) = self.row() {
            row.outstanding[self.lane.index()].fetch_sub(1, Relaxed);
            row.observe(took, tick_now());
        }
    }

    /// A request has ended that says nothing about the worker's speed: it was cut short, or it was
    /// meant to last (an upgrade, a stream of events).
    pub fn ended_untimed(&self) {
        if let Some(row) = self.row() {
            row.outstanding[self.lane.index()].fetch_sub(1, Relaxed);
        }
    }

    /// What a worker tells that cannot reach this memory itself: `held` connections are open, and
    /// `closed` were closed since it told before.
    pub fn report(&self, held: u32, closed: u32, outstanding: u32, slowest: Option<Duration>) {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        if let Some(row) = self.row() {
            row.held[self.lane.index()].store(count(held), Relaxed);
            row.open.fetch_sub(count(closed), Relaxed);
            row.outstanding[self.lane.index()].store(count(outstanding), Relaxed);
            if let Some(slowest) = slowest {
                row.observe(slowest, tick_now());
            }
        }
    }

    fn row(&self) -> Option<&Row> {
        self.board.row(self.position)
    }
}

impl Row {
    fn load(&self, now: u32) -> Load {
        let count = |value: &AtomicI32| value.load(Relaxed).max(0).unsigned_abs();
        let open = count(&self.open);
        let held = count(&self.held[0]).saturating_add(count(&self.held[1]));
        let requests = count(&self.outstanding[0]).saturating_add(count(&self.outstanding[1]));
        let outstanding = requests.saturating_add(open.saturating_sub(held));
        let mut response_us = self.response_us.load(Relaxed);
        if outstanding == 0 {
            let age = age(self.response_tick.load(Relaxed), now);
            response_us = response_us.checked_shr(age >> HALVING).unwrap_or(0);
        }
        Load {
            open,
            outstanding,
            response_us: response_us.min(RESPONSE_MAX_US),
        }
    }

    /// Two threads that observe at once may lose one of the two: an average can bear that.
    fn observe(&self, took: Duration, now: u32) {
        let took = u32::try_from(took.as_micros()).unwrap_or(RESPONSE_MAX_US);
        let sample = took.clamp(1, RESPONSE_MAX_US);
        let average = self.response_us.load(Relaxed).min(RESPONSE_MAX_US);
        let next = if sample >= average {
            sample
        } else {
            // The longer nothing was heard, the more the newest says.
            let elapsed = u64::from(age(self.response_tick.load(Relaxed), now));
            let gap = u64::from(average - sample) * elapsed / (elapsed + FOLLOWING_TICKS);
            average - u32::try_from(gap).unwrap_or(0)
        };
        self.response_us.store(next, Relaxed);
        self.response_tick.store(now, Relaxed);
    }

    fn forget_response(&self) {
        self.response_us.store(0, Relaxed);
        self.response_tick.store(0, Relaxed);
    }
}

/// Ticks since `tick`; 0 if that is still to come.
fn age(tick: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(tick);
    if age < 1 << 31 { age } else { 0 }
}

/// The time by the clock that the kernel program has (`CLOCK_MONOTONIC`). Wraps after 52 days.
fn tick_now() -> u32 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = seconds.wrapping_mul(1_000_000_000) + u64::try_from(now.tv_nsec).unwrap_or(0);
    u32::try_from((nanos >> TICK_SHIFT) & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn seats() -> (Arc<Scoreboard>, Seat, Seat) {
        let board = Arc::new(Scoreboard::anonymous().unwrap());
        let old = board.seat(3, Lane::Even).unwrap();
        let new = board.seat(3, Lane::Odd).unwrap();
        (board, old, new)
    }

    #[test]
    fn a_connection_counts_from_the_choice_until_it_is_closed() {
        let (board, worker, _) = seats();
        board.chosen(3);
        board.chosen(3);
        assert_eq!((board.load(3).open, board.load(3).outstanding), (2, 2));
        worker.accepted();
        assert_eq!((board.load(3).open, board.load(3).outstanding), (2, 1));
        worker.began();
        assert_eq!(board.load(3).outstanding, 2);
        worker.ended(Duration::from_millis(2));
        worker.closed();
        let load = board.load(3);
        assert_eq!(
            (load.open, load.outstanding, load.response_us),
            (1, 1, 2000)
        );
        assert_eq!(board.load(2), Load::default());
    }

    #[test]
    fn a_dead_worker_leaves_only_what_waits_in_the_queue() {
        let (board, old, new) = seats();
        for _ in 0..6 {
            board.chosen(3);
        }
        old.accepted();
        old.accepted();
        old.began();
        new.accepted();
        board.worker_gone(3, Lane::Even);
        assert_eq!(
            board.load(3).open,
            4,
            "one of the successor, three that wait"
        );
        assert_eq!(board.load(3).outstanding, 3);
        board.worker_gone(3, Lane::Even);
        assert_eq!(board.load(3).open, 4, "nobody is taken off twice");
        board.reset_load(3);
        assert_eq!(board.load(3), Load::default());
    }

    #[test]
    fn others_see_it_through_the_descriptor() {
        let (board, ..) = seats();
        let again = Arc::new(Scoreboard::from_fd(board.duplicate().unwrap()).unwrap());
        board.chosen(7);
        again.seat(7, Lane::Odd).unwrap().accepted();
        assert_eq!(board.load(7).open, 1);
        assert_eq!(board.load(7).outstanding, 0);
    }

    #[test]
    fn what_is_no_scoreboard_is_refused() {
        let short = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&short, 4096).unwrap();
        let error = Scoreboard::from_fd(short).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let null = File::open("/dev/null").unwrap();
        assert!(Scoreboard::from_fd(null.into()).is_err());
        let board = Scoreboard::anonymous().unwrap();
        assert!(ftruncate(&board.fd, 0).is_err(), "nobody can shorten it");
    }

    #[test]
    fn absurd_values_are_cut() {
        let (board, ..) = seats();
        let row = board.row(3).unwrap();
        row.open.store(-7, Relaxed);
        row.held[0].store(i32::MIN, Relaxed);
        row.outstanding[0].store(i32::MAX, Relaxed);
        row.outstanding[1].store(i32::MAX, Relaxed);
        row.response_us.store(u32::MAX, Relaxed);
        row.response_tick.store(u32::MAX, Relaxed);
        let load = board.load(3);
        assert_eq!(load.open, 0);
        assert_eq!(load.response_us, RESPONSE_MAX_US);
        board.chosen(POSITIONS_MAX);
        assert_eq!(board.load(u32::MAX), Load::default());
        assert!(board.seat(POSITIONS_MAX, Lane::Even).is_none());
    }

    #[test]
    fn a_peak_shows_at_once_and_is_forgotten_little_by_little() {
        let row = Row::default();
        row.observe(Duration::from_millis(1), 1000);
        row.observe(Duration::from_millis(300), 1001);
        assert_eq!(row.load(1001).response_us, 300_000);
        row.observe(Duration::from_millis(1), 1002);
        assert!(row.load(1002).response_us > 280_000);
        let mut now = 1002;
        for _ in 0..2000 {
            now += 1;
            row.observe(Duration::from_millis(1), now);
        }
        assert!(row.load(now).response_us < 2_000);
    }

    #[test]
    fn an_idle_position_becomes_unknown_again() {
        let row = Row::default();
        row.observe(Duration::from_millis(8), 0);
        assert_eq!(row.load(15).response_us, 8000);
        assert_eq!(row.load(16).response_us, 4000);
        assert_eq!(row.load(16 * 20).response_us, 0);
        assert_eq!(
            row.load(u32::MAX).response_us,
            8000,
            "a time that is to come"
        );
        row.open.store(1, Relaxed);
        assert_eq!(row.load(16 * 20).response_us, 8000, "it owes an answer");
    }

    #[test]
    fn only_what_stays_is_taken_for_lost() {
        let mut drift = Drift::default();
        for surplus in [5, 3, 9, 4, 8, 3, 7] {
            assert_eq!(drift.look(surplus), 0);
        }
        assert_eq!(drift.look(6), 3);
        for surplus in [2, 0, 1, 1, 3, 1, 2, 2] {
            assert_eq!(drift.look(surplus), 0, "it was none at one look");
        }
        for surplus in [-2, -5, -2, -3, -9, -2, -4] {
            assert_eq!(drift.look(surplus), 0);
        }
        assert_eq!(drift.look(-2), -2);
    }

    #[test]
    fn a_handshake_that_came_to_nothing_is_settled() {
        let (board, worker, _) = seats();
        for _ in 0..3 {
            board.chosen(3);
        }
        worker.accepted();
        let mut drift = Drift::default();
        for _ in 0..Drift::LOOKS {
            board.correct(3, drift.look(board.surplus(3, 1)));
        }
        assert_eq!(board.load(3).open, 2, "one held, one in the queue");
    }
}
