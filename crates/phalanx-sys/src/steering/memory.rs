//! The memory that a listener's program and the primary share: `struct group` of `bpf/steer.bpf.c`.

use std::mem;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU64};

use crate::mapping::Shared;

/// Positions are numbered below this.
pub const POSITIONS_MAX: u32 = crate::scoreboard::POSITIONS_MAX;
/// A plan has at most this many turns.
pub const ORDER_MAX: usize = 16_384;

const POSITIONS: usize = 4096;
const WORDS: usize = POSITIONS / 64;

/// What one position has received from a listener.
#[repr(C)]
struct TallyCell {
    chosen: AtomicU64,
    migrated: AtomicU64,
}

#[repr(C)]
pub(super) struct GroupMemory {
    control: AtomicU64,
    probe: AtomicU64,
    reserved: [AtomicU64; 6],
    cursor: [AtomicU64; 2],
    unsteered: AtomicU64,
    reserved_too: [AtomicU64; 5],
    eligible: [[AtomicU64; WORDS]; 2],
    tallies: [TallyCell; POSITIONS],
    order: [[AtomicU16; ORDER_MAX]; 2],
}

/// As long as the program says.
pub(super) const SIZE_BYTES: usize = 64 + 64 + 1024 + 16 * POSITIONS + 4 * ORDER_MAX;
const _: () = assert!(mem::size_of::<GroupMemory>() == SIZE_BYTES);

#[expect(unsafe_code, reason = "vouches for the layout above")]
// SAFETY: `repr(C)` and atomic integers throughout.
unsafe impl Shared for GroupMemory {}

/// The word that says which plan is in force.
#[derive(Clone, Copy)]
struct Control(u64);

impl Control {
    fn which(self) -> usize {
        usize::from(self.0 & 1 == 1)
    }

    /// How many turns its plan has.
    fn count(self) -> u64 {
        self.0 >> 8 & 0xffff
    }

    /// The other plan, with these properties.
    fn switched(self, rule: u8, count: u16, span: u16) -> Self {
        let switches = (self.0 >> 40).wrapping_add(1) << 40;
        let which = !self.0 & 1;
        let rule = u64::from(rule & 0x7f) << 1;
        Self(switches | u64::from(span) << 24 | u64::from(count) << 8 | rule | which)
    }
}

impl GroupMemory {
    /// Puts another plan in force, as one step. It is the caller's to be the only one.
    pub(super) fn switch(&self, rule: u8, turns: &[u16], eligible: &[u64], span: u16, start: u32) {
        let now = Control(self.control.load(Relaxed));
        let count = u16::try_from(turns.len()).unwrap_or(0);
        let next = now.switched(rule, count, span);
        let which = next.which();
        for (cell, &position) in self.order[which].iter().zip(turns) {
            cell.store(position, Relaxed);
        }
        let words = eligible.iter().copied().chain(std::iter::repeat(0));
        for (cell, word) in self.eligible[which].iter().zip(words) {
            cell.store(word, Relaxed);
        }
        self.cursor[which].store(u64::from(start), Relaxed);
        self.control.store(next.0, Release);
    }

    /// The turn that was taken last, if any was since the plan came into force with `start`.
    pub(super) fn last(&self, start: u32) -> Option<u32> {
        let control = Control(self.control.load(Relaxed));
        let cursor = self.cursor[control.which()].load(Acquire);
        if cursor == u64::from(start) {
            return None;
        }
        let last = cursor.wrapping_sub(1).checked_rem(control.count())?;
        u32::try_from(last).ok()
    }

    /// Connections that were chosen for the position, and that moved to it.
    pub(super) fn tally(&self, position: u32) -> (u64, u64) {
        let cell = usize::try_from(position)
            .ok()
            .and_then(|index| self.tallies.get(index));
        cell.map_or((0, 0), |cell| {
            (cell.chosen.load(Relaxed), cell.migrated.load(Relaxed))
        })
    }

    /// Whose connection is for the slot behind the last position: a source port, or nobody.
    pub(super) fn probe(&self, port: Option<u16>) {
        self.probe.store(port.unwrap_or(0).into(), Release);
    }

    pub(super) fn unsteered(&self) -> u64 {
        self.unsteered.load(Relaxed)
    }
}
