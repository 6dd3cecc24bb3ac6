//! What outlives a worker's registration in the state, so that handles stay good after its exit: who it is, where it
//! stands, its process. Tasks may read it without the state's lock.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use phalanx_core::dispatch::worker::{Admission, Departure};
use phalanx_core::dispatch::worker::{Ending, StopWord, Worker as Standing};
use phalanx_core::ids::{ExitStatus, Position, WorkerId};
use phalanx_sys::cgroup::Cgroup;
use phalanx_sys::process::{Member, Pid, Process};
use phalanx_sys::signal::Signal;
use tokio::sync::Notify;

use super::tasks::last_lines::LastLines;
use crate::settings::{Adoption, Readiness, Settings};

/// One worker.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) id: WorkerId,
    /// Where it serves; a spare gets its position when it is needed.
    position: AtomicU32,
    pub(super) pid: Pid,
    pub(super) adoption: Adoption,
    pub(super) readiness: Readiness,
    pub(super) watchdog: Option<Duration>,
    /// The port of its inspector, if it was given one; 0 for any.
    pub(super) inspector: Option<u16>,
    /// What it wrote last.
    pub(super) last: LastLines,
    pub(super) settle_timeout: Duration,
    stop_signal: Signal,
    /// It has said something to its notify socket.
    speaks: AtomicBool,
    /// It has said that it is ready.
    has_word: AtomicBool,
    /// Where it stands towards connections, and how hard it was told to end.
    standing: Mutex<Standing>,
    /// Rings when the channel closed, or the process ended.
    pub(super) changed: Notify,
    /// Let go at the exit, so that a handle that is kept holds no descriptor.
    process: Mutex<Option<Process>>,
    /// The control group that it began in, and whatever it has started with it.
    cgroup: Option<Cgroup>,
    /// Descendants of its that were seen.
    relatives: Mutex<BTreeSet<Member>>,
    /// The memory that it occupies, as it was read last.
    pub(super) memory: MemoryRead,
}

/// What was read of a worker's memory last, for all who look once a second.
#[derive(Debug, Default)]
pub(super) struct MemoryRead(Mutex<Option<(Instant, u64)>>);

impl MemoryRead {
    /// It is no use any more after so long.
    const FRESH: Duration = Duration::from_secs(1);

    pub(super) fn keep(&self, bytes: Option<u64>) {
        let read = bytes.map(|bytes| (phalanx_sys::clock::now(), bytes));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = read;
    }

    pub(super) fn kept(&self) -> Option<u64> {
        let (at, bytes) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = phalanx_sys::clock::now().saturating_duration_since(at);
        (age < Self::FRESH).then_some(bytes)
    }
}

impl Cell {
    pub(super) fn new(
        id: WorkerId,
        position: Position,
        process: Process,
        settings: &Settings,
    ) -> Self {
        let pid = process.pid();
        Self::of(id, position, pid, Some(process), settings)
    }

    /// A worker that another process has started, and will reap.
    pub(super) fn of_stranger(
        id: WorkerId,
        position: Position,
        pid: Pid,
        settings: &Settings,
    ) -> Self {
        Self::of(id, position, pid, None, settings)
    }

    fn of(
        id: WorkerId,
        position: Position,
        pid: Pid,
        process: Option<Process>,
        settings: &Settings,
    ) -> Self {
        Self {
            id,
            position: AtomicU32::new(position.0),
            pid,
            adoption: settings.adoption,
            readiness: settings.readiness.clone(),
            watchdog: settings.watchdog,
            inspector: None,
            last: LastLines::default(),
            settle_timeout: settings.settle_timeout.unwrap_or(Settings::SETTLE_TIMEOUT),
            speaks: AtomicBool::new(false),
            has_word: AtomicBool::new(false),
            standing: Mutex::new(Standing::new(Admission::Open)),
            stop_signal: settings.stop_signal.unwrap_or(Signal::TERM),
            changed: Notify::new(),
            process: Mutex::new(process),
            cgroup: None,
            relatives: Mutex::default(),
            memory: MemoryRead::default(),
        }
    }

    /// Whether it gets connections before [`let_in`](Self::let_in).
    pub(super) fn admission(self, admission: Admission) -> Self {
        Self {
            standing: Mutex::new(Standing::new(admission)),
            ..self
        }
    }

    /// The port of its inspector.
    pub(super) fn inspector(self, inspector: Option<u16>) -> Self {
        Self { inspector, ..self }
    }

    /// The control group that it is in.
    pub(super) fn in_cgroup(self, cgroup: Option<Cgroup>) -> Self {
        Self { cgroup, ..self }
    }

    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Where its last lines are kept.
    pub(super) fn last_lines(self, last: LastLines) -> Self {
        Self { last, ..self }
    }

    pub(super) fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// It is of that position from now on.
    pub(in crate::primary) fn move_to(&self, position: Position) {
        self.position.store(position.0, Ordering::Release);
    }

    pub(super) fn let_in(&self) {
        self.standing().admit();
    }

    /// Whether it may be chosen for connections.
    pub(super) fn takes_part(&self) -> bool {
        self.standing().takes_part()
    }

    /// Whether it is ready, and gets connections.
    pub(super) fn serves(&self) -> bool {
        self.is_ready() && self.takes_part() && self.is_connected()
    }

    /// Where it stands now.
    pub(super) fn stands(&self) -> Standing {
        *self.standing()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Each transition is one assignment: none can be half made.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn relatives(&self) -> MutexGuard<'_, BTreeSet<Member>> {
        self.relatives
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.standing().ending() == Ending::Killed
    }

    /// Kills it with its process group. What else it has started is killed when it has ended.
    pub(super) fn kill_group(&self) -> io::Result<()> {
        self.standing().kill();
        self.changed.notify_waiters();
        match self.process().as_ref() {
            Some(process) => process.signal_group(Signal::KILL),
            None => Ok(()),
        }
    }

    /// The worker leaves. False when it was leaving already, or is gone.
    pub(super) fn depart(&self, why: Departure) -> bool {
        let first = self.standing().leave(why);
        if first {
            self.changed.notify_waiters();
        }
        first
    }

    /// Why it leaves, if it does.
    pub(super) fn departure(&self) -> Option<Departure> {
        self.standing().departure()
    }

    /// Its channel is closed, or its process has ended. False when that was known.
    pub(super) fn cut_off(&self) -> bool {
        self.standing().cut_off()
    }

    /// Records the exit; true when it left as asked or by its own wish.
    pub(super) fn end(&self, status: ExitStatus) -> bool {
        drop(self.process().take());
        self.standing().exit(status)
    }

    /// How its process ended; nothing while it runs.
    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        self.standing().exit_status()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.standing().is_connected()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.standing().is_ready()
    }

    pub(super) fn speaks(&self) -> bool {
        self.speaks.load(Ordering::Acquire)
    }

    pub(super) fn set_speaks(&self) {
        self.speaks.store(true, Ordering::Release);
    }

    pub(super) fn has_word(&self) -> bool {
        self.has_word.load(Ordering::Acquire)
    }

    pub(super) fn set_word(&self) {
        self.has_word.store(true, Ordering::Release);
    }

    pub(super) fn set_ready(&self) {
        self.standing().become_ready();
        self.changed.notify_waiters();
    }

    pub(super) fn was_told_to_stop(&self) -> bool {
        self.standing().ending() >= Ending::Stopped
    }

    /// Sends the stop signal. To one that has had it, TERM: its time to finish is over.
    pub(super) fn stop(&self) -> io::Result<()> {
        let word = self.standing().stop();
        self.changed.notify_waiters();
        self.signal(match word {
            StopWord::First => self.stop_signal,
            StopWord::Again => Signal::TERM,
        })
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.process().as_ref() {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }
}
