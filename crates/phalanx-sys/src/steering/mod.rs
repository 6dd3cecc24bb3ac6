//! Dispatch in the kernel: an eBPF program chooses the slot when a connection arrives.
//!
//! A listener's slots form one `SO_REUSEPORT` group ([`crate::socket::bind_slots`]). The program of
//! `bpf/steer.bpf.c` is attached to it ([`Steering::attach`]), knows the slots by position
//! ([`Group::set_slot`]) and goes by a plan: which positions are eligible, in which order they
//! take turns, and by which rule one is chosen ([`Group::switch`]). The primary is not asked.
//!
//! # Invariants
//!
//! * A plan comes into force as a whole, by one store, and every connection that arrives from then
//!   on is chosen by it. A choice that is under way on another CPU at that moment is made again, or
//!   is through within microseconds; [`settle`] waits even for those.
//! * The program stays attached while any socket of the group lives, whoever has it, and this
//!   process need not.
//! * A position's slot is known to the program until its last descriptor is closed, it is shut
//!   down, or it is cleared. Then its queue moves to eligible positions.
//! * All listeners of one [`Steering`] count into one scoreboard.
//!
//! Needs Linux 5.14 and the capabilities `CAP_BPF` and `CAP_PERFMON` for loading; for what comes
//! after, none: not for a new plan, for counters, or for a worker at the scoreboard.

mod bpf;
mod classic;
mod error;
mod memory;
mod object;
mod privilege;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use classic::{ClassicGroup, Draw, Member, SHARES_MAX};
pub use error::{SteeringError, Unavailable};
pub use memory::{ORDER_MAX, POSITIONS_MAX};

use crate::mapping::Mapped;
use crate::scoreboard::{self, Scoreboard};
use bpf::MapSpec;
use memory::GroupMemory;
use object::Object;
use privilege::{effective_capabilities, kernel_release, missing_capabilities, version};

/// The oldest kernel with `BPF_SK_REUSEPORT_SELECT_OR_MIGRATE`.
const OLDEST: (u32, u32) = (5, 14);
/// As much as the verifier may say when it refuses.
const LOG_BYTES: usize = 1 << 16;
/// So many programs are kept ready for listeners to come.
const SPARE: usize = 1;

/// By which rule a position is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Rule {
    /// The turns, one after the other: `round-robin` and `weighted`.
    Turns = 0,
    /// Fewest open connections; ties in turn.
    LeastConnections = 1,
    /// Lowest response time × (outstanding + 1); ties in turn: `fastest`.
    Score = 2,
    /// The better of two drawn at random.
    TwoChoices = 3,
    /// By client address.
    Source = 4,
    /// At random.
    Chance = 5,
    /// By the kernel's hash of addresses and ports: `none`.
    Connection = 6,
}

/// What the program goes by.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the caller, field by field"
)]
pub struct Plan<'a> {
    /// The rule.
    pub rule: Rule,
    /// The eligible positions, below [`POSITIONS_MAX`]: each once and ascending, or for
    /// [`Rule::Turns`] in any order and as often as they shall have a turn; at most [`ORDER_MAX`].
    pub turns: &'a [u16],
    /// The eligible positions again: bit `n % 64` of word `n / 64` is position `n`. Words that are
    /// missing are zero.
    pub eligible: &'a [u64],
    /// The index of the turn to begin with.
    pub start: u32,
}

/// What one position has received from a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Connections that were chosen for it. A client that repeats its first packet, because the
    /// queue was full, counts again.
    pub chosen: u64,
    /// Connections that waited in a slot when it was closed, and moved here.
    pub migrated: u64,
}

/// The scoreboard, and the means to steer any number of listeners by it.
#[derive(Debug)]
pub struct Steering {
    board: Arc<Scoreboard>,
    /// Programs that are loaded already, for listeners to come.
    spare: Mutex<Vec<Group>>,
    /// The last attempt to load one failed: it would be in vain to wait for the next.
    fails: AtomicBool,
    /// Held by whoever loads one for others.
    loading: Mutex<()>,
}

impl Steering {
    /// Whether connections can be dispatched in the kernel here. Tried out, not guessed: the program
    /// is loaded and dropped. Takes tens of milliseconds.
    ///
    /// # Errors
    ///
    /// The reason why not, and what it would take.
    pub fn available() -> Result<(), Unavailable> {
        Self::precheck()?;
        match Self::load().and_then(|steering| steering.program()) {
            Ok(_) => Ok(()),
            Err(error) => Err(reason(error)),
        }
    }

    fn precheck() -> Result<(), Unavailable> {
        if cfg!(target_endian = "big") {
            return Err(Unavailable::ByteOrder);
        }
        let release = kernel_release();
        if version(&release).is_some_and(|version| version < OLDEST) {
            return Err(Unavailable::KernelTooOld { release });
        }
        Ok(())
    }

    /// Makes the scoreboard, and loads the program for the first listener: what [`Steering::available`] tries out is kept.
    /// Takes tens of milliseconds, after which [`Steering::attach`] takes none.
    ///
    /// # Errors
    ///
    /// As [`Steering::available`].
    pub fn ready() -> Result<Self, Unavailable> {
        Self::precheck()?;
        let steering = Self::load().map_err(reason)?;
        let first = steering.program().map_err(reason)?;
        steering.spare().push(first);
        Ok(steering)
    }

    /// Loads the program for listeners to come, where blocking is allowed: the verifier takes its time, and
    /// [`Steering::attach`] then takes none.
    ///
    /// # Errors
    ///
    /// [`SteeringError`], by step.
    pub fn prepare(&self) -> Result<(), SteeringError> {
        // Whoever comes second finds what the first has loaded.
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        while self.spare().len() < SPARE {
            let loaded = self.program();
            self.fails.store(loaded.is_err(), Ordering::Release);
            self.spare().push(loaded?);
        }
        Ok(())
    }

    /// Whether [`Steering::attach`] would take no time: a program is loaded, or could not be loaded the last time, which
    /// it then tells.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.fails.load(Ordering::Acquire) || !self.spare().is_empty()
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Group>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the scoreboard.
    ///
    /// # Errors
    ///
    /// [`SteeringError::CreateMap`] without the privilege; see [`Steering::available`].
    pub fn load() -> Result<Self, SteeringError> {
        let name = "board";
        let object = Object::read()?;
        let map = make_map(&object, name, scoreboard::SIZE_BYTES)?;
        let board =
            Scoreboard::from_fd(map).map_err(|source| SteeringError::MapMemory { name, source })?;
        Ok(Self {
            board: Arc::new(board),
            spare: Mutex::default(),
            fails: AtomicBool::new(false),
            loading: Mutex::default(),
        })
    }

    /// The scoreboard that the programs read and add to.
    #[must_use]
    pub fn scoreboard(&self) -> &Arc<Scoreboard> {
        &self.board
    }

    /// Steers the group that `socket` belongs to. Until it has a plan and slots, the kernel's hash
    /// chooses among all sockets of the group. Takes tens of milliseconds where no program is ready, see
    /// [`Steering::prepare`].
    ///
    /// # Errors
    ///
    /// [`SteeringError`], by step. `EINVAL` from attaching means that the socket is in no group.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> Result<Group, SteeringError> {
        let ready = self.spare().pop();
        let group = ready.map_or_else(|| self.program(), Ok)?;
        bpf::attach(group.program.as_fd(), socket).map_err(SteeringError::Attach)?;
        Ok(group)
    }

    /// An instance of the program with its own maps, attached to nothing.
    fn program(&self) -> Result<Group, SteeringError> {
        let object = Object::read()?;
        let name = "group";
        let slots = make_map(&object, "slots", 8)?;
        let map = make_map(&object, name, memory::SIZE_BYTES)?;
        let memory =
            Mapped::new(&map).map_err(|source| SteeringError::MapMemory { name, source })?;
        let linked = object.link(&[
            ("slots", slots.as_raw_fd()),
            (name, map.as_raw_fd()),
            ("board", self.board.as_fd().as_raw_fd()),
        ])?;
        let load = |log: &mut [u8]| {
            bpf::load_program("phalanx_steer", &linked.instructions, &linked.license, log)
        };
        let program = load(&mut []).map_err(|source| {
            // Once more, to hear why: a log that is too short would be an error of its own.
            let mut log = vec![0; LOG_BYTES];
            // Without the privilege the verifier was not asked.
            let verdict = (source.raw_os_error() != Some(libc::EPERM))
                .then(|| load(&mut log).err().and_then(|_| last_words(&log)))
                .flatten();
            SteeringError::LoadProgram { source, verdict }
        })?;
        Ok(Group {
            program,
            slots,
            memory,
            start: 0,
        })
    }
}

/// One listener's program.
#[derive(Debug)]
pub struct Group {
    program: OwnedFd,
    slots: OwnedFd,
    memory: Mapped<GroupMemory>,
    /// Where the plan in force began.
    start: u32,
}

impl Group {
    /// Steers the group that `socket` belongs to now, if it is another than before: when the only socket
    /// of a group stops to listen, the group ends, and the next one that listens begins a new one.
    ///
    /// # Errors
    ///
    /// [`SteeringError::Attach`].
    pub fn attach_again(&self, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        bpf::attach(self.program.as_fd(), socket).map_err(SteeringError::Attach)
    }

    /// Makes a listening socket of the group the position's slot, in place of any before, which is
    /// not closed by that.
    ///
    /// # Errors
    ///
    /// [`SteeringError::StoreSlot`]: `EINVAL` when it does not listen or is in no group, `EBUSY`
    /// when it is the slot of a position already.
    pub fn set_slot(&self, position: u32, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        bpf::store_socket(self.slots.as_fd(), position, socket)
            .map_err(|source| SteeringError::StoreSlot { position, source })
    }

    /// The position has no slot any more; nothing happens if it has none. Connections for it go to
    /// the next eligible position, but take it out of the plan first.
    ///
    /// # Errors
    ///
    /// [`SteeringError::ClearSlot`] when the position is out of bounds.
    pub fn clear_slot(&self, position: u32) -> Result<(), SteeringError> {
        bpf::remove_socket(self.slots.as_fd(), position)
            .map_err(|source| SteeringError::ClearSlot { position, source })
    }

    /// Puts a plan in force: policy, weights and eligibility change in one step, for every
    /// connection that arrives from now on. See [`settle`] for one that arrived just before.
    ///
    /// # Errors
    ///
    /// [`SteeringError::Plan`] when there are too many turns or a position is out of bounds; then
    /// the plan before stays.
    pub fn switch(&mut self, plan: &Plan<'_>) -> Result<(), SteeringError> {
        let span = plan.turns.iter().max().map_or(0, |&highest| highest + 1);
        let fits = plan.turns.len() <= ORDER_MAX && u32::from(span) <= POSITIONS_MAX;
        if !fits {
            return Err(SteeringError::Plan);
        }
        let rule = plan.rule as u8;
        self.memory
            .switch(rule, plan.turns, plan.eligible, span, plan.start);
        self.start = plan.start;
        Ok(())
    }

    /// Connections from this source port go to `socket`, which listens, is in the group, and is the slot of
    /// no position: until [`Group::end_probe`]. For a worker that is to be asked whether it serves.
    ///
    /// # Errors
    ///
    /// [`SteeringError::StoreSlot`], as for [`Group::set_slot`].
    pub fn probe(&self, port: u16, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        self.set_slot(POSITIONS_MAX, socket)?;
        self.memory.probe(Some(port));
        Ok(())
    }

    /// Connections from every port are chosen for by the plan again.
    ///
    /// # Errors
    ///
    /// [`SteeringError::ClearSlot`].
    pub fn end_probe(&self) -> Result<(), SteeringError> {
        self.memory.probe(None);
        self.clear_slot(POSITIONS_MAX)
    }

    /// The index of the turn that the plan in force has taken last; none if none yet.
    #[must_use]
    pub fn last_turn(&self) -> Option<u32> {
        self.memory.last(self.start)
    }

    /// What the position has received.
    #[must_use]
    pub fn tally(&self, position: u32) -> Tally {
        let (chosen, migrated) = self.memory.tally(position);
        Tally { chosen, migrated }
    }

    /// Connections that were left to the kernel's hash over all slots, because no eligible
    /// position had one.
    #[must_use]
    pub fn unsteered(&self) -> u64 {
        self.memory.unsteered()
    }

    /// Leaves the group of `socket` to the kernel's hash again. What waits in a slot that is
    /// closed from now on is lost.
    ///
    /// # Errors
    ///
    /// [`SteeringError::Detach`]: `ENOENT` when nothing is attached to it.
    pub fn detach(self, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        bpf::detach(socket).map_err(SteeringError::Detach)
    }
}

/// Waits until no choice is under way that began before this call: after a [`Group::switch`], until no
/// connection can come to be chosen by the plan before. Blocks for a few milliseconds, for which
/// reason it is no part of switching; only who must not be told to stop before the very last
/// connection that can reach it has done so needs it.
///
/// A connection whose handshake has begun is chosen already: it reaches the slot when the client
/// answers, a round trip later.
///
/// # Errors
///
/// Those of membarrier(2): `EINVAL` on machines that run without a timer tick (`nohz_full`).
pub fn settle() -> io::Result<()> {
    bpf::wait_for_runs()
}

/// Makes the map, whose value must be as long as its counterpart here.
fn make_map(object: &Object, name: &'static str, bytes: usize) -> Result<OwnedFd, SteeringError> {
    let spec: MapSpec = object.map(name)?;
    let same = usize::try_from(spec.value_size) == Ok(bytes);
    let differs = || io::Error::new(io::ErrorKind::InvalidData, "layouts differ");
    let made = same.then(|| bpf::create_map(name, &spec));
    made.unwrap_or_else(|| Err(differs()))
        .map_err(|source| SteeringError::CreateMap { name, source })
}

fn reason(error: SteeringError) -> Unavailable {
    if matches!(error, SteeringError::LeftOut) {
        return Unavailable::LeftOut;
    }
    let (SteeringError::CreateMap { source, .. } | SteeringError::LoadProgram { source, .. }) =
        &error
    else {
        return Unavailable::Refused(error);
    };
    let missing = missing_capabilities(effective_capabilities());
    match source.raw_os_error() {
        Some(libc::ENOSYS) => Unavailable::NoBpf,
        // Which error it is depends on the capability, and on the kernel.
        _ if !missing.is_empty() => Unavailable::NoPrivilege {
            missing,
            source: error,
        },
        Some(libc::EPERM) => Unavailable::Forbidden(error),
        _ => Unavailable::Refused(error),
    }
}

/// The last line that says something, but for the statistics.
fn last_words(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let text = text.trim_end_matches('\0').trim_end();
    let line = text.lines().rfind(|line| !line.starts_with("processed "))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests;
