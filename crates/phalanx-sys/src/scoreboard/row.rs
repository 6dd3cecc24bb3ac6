//! One row of the scoreboard: the load of one position, as its workers write it, and what is made of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU32};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A tick is 2^20 ns: the kernel program has a shift where it could ill afford a division.
const TICK_SHIFT: u32 = 20;
/// A tick in µs is about 2^10.
const TICK_US_SHIFT: u32 = 10;
/// The response time of an idle position halves every 2^4 ticks: see [`Load::response_us`].
const HALVING: u32 = 4;
/// The time constant with which the average of response times follows the newest. So short that a worker
/// which once was slow is not shunned for seconds, while the others are flooded.
const FOLLOWING_TICKS: u64 = 16;
/// The longest response time that is kept, in µs: 18 minutes.
pub(super) const RESPONSE_MAX_US: u32 = 1 << 30;

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

    pub(super) fn index(self) -> usize {
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
    /// so that a position which once was slow is tried again. While something is outstanding, it is at least
    /// the time since the position last answered, or came to have something to answer: a worker that is
    /// stuck looks slower and slower instead of as quick as it was. 0 while unknown.
    pub response_us: u32,
}

/// The memory, as `struct row` of `bpf/steer.bpf.c` has it: what workers write, in a cache line of its own,
/// so that they disturb neither those of other positions nor whoever counts what is given to them.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct Row {
    /// Connections that were closed. It counts on for ever: what was given and not closed is open.
    pub(super) closed: AtomicI32,
    pub(super) held: [AtomicI32; 2],
    pub(super) outstanding: [AtomicI32; 2],
    pub(super) response_us: AtomicU32,
    pub(super) response_tick: AtomicU32,
    /// When there came to be something to answer.
    pub(super) busy_tick: AtomicU32,
    reserved: [AtomicU32; 8],
}

impl Row {
    /// Open connections, where so many were given.
    pub(super) fn open(&self, given: i32) -> i32 {
        given.wrapping_sub(self.closed.load(Relaxed))
    }

    /// What awaits an answer.
    pub(super) fn outstanding(&self, given: i32) -> u32 {
        let count = |value: &AtomicI32| value.load(Relaxed).max(0).unsigned_abs();
        let open = self.open(given).max(0).unsigned_abs();
        let held = count(&self.held[0]).saturating_add(count(&self.held[1]));
        let requests = count(&self.outstanding[0]).saturating_add(count(&self.outstanding[1]));
        requests.saturating_add(open.saturating_sub(held))
    }

    pub(super) fn load(&self, given: i32, now: u32) -> Load {
        let outstanding = self.outstanding(given);
        let age_of = |tick: &AtomicU32| age(tick.load(Relaxed), now);
        let age = age_of(&self.response_tick);
        let known = self.response_us.load(Relaxed);
        let response_us = match (known, outstanding) {
            (0, _) => 0,
            (_, 0) => known.checked_shr(age >> HALVING).unwrap_or(0),
            (..) => known.max(waited_us(age.min(age_of(&self.busy_tick)))),
        };
        Load {
            open: self.open(given).max(0).unsigned_abs(),
            outstanding,
            response_us: response_us.min(RESPONSE_MAX_US),
        }
    }

    /// There is something to answer from now on.
    pub(super) fn busy_from(&self, now: u32) {
        self.busy_tick.store(now, Relaxed);
    }

    /// Two threads that observe at once may lose one of the two: an average can bear that.
    pub(super) fn observe(&self, took: Duration, now: u32) {
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

    pub(super) fn forget_response(&self) {
        self.response_us.store(0, Relaxed);
        self.response_tick.store(0, Relaxed);
    }
}

/// So many ticks in µs, more or less.
fn waited_us(ticks: u32) -> u32 {
    u32::try_from(u64::from(ticks) << TICK_US_SHIFT).unwrap_or(u32::MAX)
}

/// Ticks since `tick`; 0 if that is still to come.
fn age(tick: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(tick);
    if age < 1 << 31 { age } else { 0 }
}

/// The time by the clock that the kernel program has (`CLOCK_MONOTONIC`). Wraps after 52 days.
pub(super) fn tick_now() -> u32 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = seconds.wrapping_mul(1_000_000_000) + u64::try_from(now.tv_nsec).unwrap_or(0);
    u32::try_from((nanos >> TICK_SHIFT) & u64::from(u32::MAX)).unwrap_or(0)
}
