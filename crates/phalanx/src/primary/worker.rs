//! The primary's view of one worker: the counterpart of Node's `Worker`.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use phalanx_core::ids::{ExitStatus, Position, WorkerId};
use phalanx_core::wire::outgoing;
use phalanx_sys::process::{Member, Pid, Process};
use phalanx_sys::signal::Signal;
use serde::Serialize;
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::primary::Shared;
use crate::primary::tasks::output::LastLines;
use crate::settings::{Adoption, Readiness, Settings};
use crate::subscribers::Events;

/// Why a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// It does not.
    None,
    /// It was asked to.
    Asked,
    /// It said that it wants to.
    OwnWish,
}

/// What outlives the worker's entry in the hub, so that handles stay good after its exit.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) id: WorkerId,
    /// Where it serves; a spare gets its position when it is needed.
    position: AtomicU32,
    pub(super) pid: Pid,
    /// It belongs to the cluster: its channel is open, or it never had one and lives.
    pub(super) connected: AtomicBool,
    pub(super) adoption: Adoption,
    pub(super) readiness: Readiness,
    pub(super) watchdog: Option<Duration>,
    /// The port of its inspector, if it was given one; 0 for any.
    pub(super) inspector: Option<u16>,
    /// What it wrote last.
    pub(super) last: LastLines,
    pub(super) settle_timeout: Duration,
    stop_signal: Signal,
    /// It gets no connections yet.
    held_back: AtomicBool,
    /// It has said something to its notify socket.
    speaks: AtomicBool,
    /// It has proven that it serves.
    ready: AtomicBool,
    /// It was sent its stop signal.
    told_to_stop: AtomicBool,
    /// Rings when the channel closed, or the process ended.
    pub(super) changed: Notify,
    /// Let go at the exit, so that a handle that is kept holds no descriptor.
    process: Mutex<Option<Process>>,
    /// It is to be killed, with everything that it has started.
    doomed: AtomicBool,
    /// Descendants of its that were seen.
    relatives: Mutex<BTreeSet<Member>>,
    state: Mutex<CellState>,
}

#[derive(Debug)]
struct CellState {
    departure: Departure,
    exit: Option<ExitStatus>,
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
            connected: AtomicBool::new(true),
            adoption: settings.adoption,
            readiness: settings.readiness.clone(),
            watchdog: settings.watchdog,
            inspector: None,
            last: LastLines::default(),
            settle_timeout: settings.settle_timeout.unwrap_or(Settings::SETTLE_TIMEOUT),
            held_back: AtomicBool::new(false),
            speaks: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            stop_signal: settings.stop_signal.unwrap_or(Signal::TERM),
            told_to_stop: AtomicBool::new(false),
            changed: Notify::new(),
            process: Mutex::new(process),
            doomed: AtomicBool::new(false),
            relatives: Mutex::default(),
            state: Mutex::new(CellState {
                departure: Departure::None,
                exit: None,
            }),
        }
    }

    /// Whether it gets no connections before [`let_in`](Self::let_in).
    pub(super) fn held_back(self, held_back: bool) -> Self {
        Self {
            held_back: AtomicBool::new(held_back),
            ..self
        }
    }

    /// The port of its inspector.
    pub(super) fn inspector(self, inspector: Option<u16>) -> Self {
        Self { inspector, ..self }
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
        self.held_back.store(false, Ordering::Release);
    }

    /// Whether it may be chosen for connections.
    pub(super) fn takes_part(&self) -> bool {
        !self.held_back.load(Ordering::Acquire) && self.departure() == Departure::None
    }

    fn state(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.doomed.load(Ordering::Acquire)
    }

    /// Kills it with its process group. What else it has started is killed when it has ended.
    pub(super) fn kill_group(&self) -> io::Result<()> {
        self.doomed.store(true, Ordering::Release);
        self.changed.notify_waiters();
        match self.process().as_ref() {
            Some(process) => process.signal_group(Signal::KILL),
            None => Ok(()),
        }
    }

    /// Marks the worker as leaving. False when it was already.
    pub(super) fn depart(&self, why: Departure) -> bool {
        let mut state = self.state();
        let first = state.departure == Departure::None && state.exit.is_none();
        if first {
            state.departure = why;
            self.changed.notify_waiters();
        }
        first
    }

    pub(super) fn departure(&self) -> Departure {
        self.state().departure
    }

    /// Records the exit; true when it left as asked or by its own wish.
    pub(super) fn end(&self, status: ExitStatus) -> bool {
        drop(self.process().take());
        let mut state = self.state();
        state.exit = Some(status);
        state.departure != Departure::None
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn speaks(&self) -> bool {
        self.speaks.load(Ordering::Acquire)
    }

    pub(super) fn set_speaks(&self) {
        self.speaks.store(true, Ordering::Release);
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(super) fn was_told_to_stop(&self) -> bool {
        self.told_to_stop.load(Ordering::Acquire)
    }

    /// Sends the stop signal. To one that has had it, TERM: its time to finish is over.
    pub(super) fn stop(&self) -> io::Result<()> {
        let again = self.told_to_stop.swap(true, Ordering::AcqRel);
        self.changed.notify_waiters();
        self.signal(if again {
            Signal::TERM
        } else {
            self.stop_signal
        })
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.process().as_ref() {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }
}

/// A worker, seen from the primary. Cheap to clone; stays good after the worker's exit.
#[derive(Clone, Debug)]
pub struct Worker {
    pub(super) cell: Arc<Cell>,
    pub(super) shared: Weak<Shared>,
}

impl Worker {
    /// Its id, unique for the primary's life (`worker.id`).
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.cell.id
    }

    /// Its position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.cell.position()
    }

    /// Its process id (`worker.process.pid`). After its exit the kernel may give the number to another.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.cell.pid.as_u32()
    }

    /// The memory that its process occupies, in bytes.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let is_there = self.cell.process().is_some();
        is_there
            .then(|| phalanx_sys::limits::resident_bytes(self.cell.pid).ok())
            .flatten()
    }

    /// How many descriptors its process has open.
    pub(crate) fn open_files(&self) -> Option<u64> {
        let is_there = self.cell.process().is_some();
        is_there
            .then(|| phalanx_sys::limits::open_files_of(self.cell.pid).ok())
            .flatten()
    }

    /// The processor time that its process has used.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let is_there = self.cell.process().is_some();
        is_there
            .then(|| phalanx_sys::limits::cpu_time(self.cell.pid).ok())
            .flatten()
    }

    /// Sends a message (`worker.send`). It is queued when the worker does not read just now.
    ///
    /// # Errors
    /// [`Error::Disconnected`] when the channel is closed, [`Error::ChannelFull`] when 16 MiB wait
    /// already, [`Error::Encode`] when it cannot be written as JSON.
    pub fn send<M: Serialize + ?Sized>(&self, message: &M) -> Result<()> {
        let value = serde_json::to_value(message).map_err(Error::Encode)?;
        let shared = self.shared.upgrade().ok_or(Error::Disconnected)?;
        shared.hub().send(self.cell.id, outgoing::user(&value))
    }

    /// What happens to it from now on (`worker.on(…)`); ends after its exit. Subscribe right after the
    /// fork, before anything else is awaited, to miss nothing.
    #[must_use]
    pub fn events(&self) -> Events {
        match self.shared.upgrade() {
            Some(shared) if !self.is_dead() => shared.hub().subscribe_to(self.cell.id),
            Some(_) | None => Events::ended(),
        }
    }

    /// Asks it to leave (`worker.disconnect`): it gets no new connections, finishes those it has,
    /// closes the channel and exits. One without a channel is asked by its stop signal, after a moment
    /// in which nothing new came. There is no time limit. Does nothing when it is leaving already.
    pub fn disconnect(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.hub().disconnect(self.cell.id);
        }
    }

    /// Sends a signal to its process (`worker.kill`). It does not wait for a drain, and what ends by it
    /// is not marked as [`exited_after_disconnect`](Self::exited_after_disconnect).
    ///
    /// # Errors
    /// As kill(2); a process that is gone is no error.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        self.cell.signal(signal).map_err(|source| Error::Worker {
            act: "signal the process",
            worker: self.cell.id,
            source,
        })
    }

    /// Asks its process to end, by its stop signal; the second time by TERM. One that serves already, though it is
    /// not ready yet, is asked to leave first: it may have requests.
    pub(crate) fn stop(&self) -> Result<()> {
        if let Some(shared) = self.shared.upgrade()
            && shared.hub().leaves_before_ready(self.cell.id)
        {
            return Ok(());
        }
        self.cell.stop().map_err(|source| Error::Worker {
            act: "stop the process",
            worker: self.cell.id,
            source,
        })
    }

    /// Kills it with everything that it has started.
    pub(crate) fn kill_group(&self) -> Result<()> {
        self.cell.kill_group().map_err(|source| Error::Worker {
            act: "kill the process group",
            worker: self.cell.id,
            source,
        })
    }

    /// Did it leave because it was asked to or wanted to (`worker.exitedAfterDisconnect`)?
    /// Nothing before it began to leave or exited.
    #[must_use]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        let state = self.cell.state();
        match (state.departure, state.exit) {
            (Departure::Asked | Departure::OwnWish, _) => Some(true),
            (Departure::None, Some(_)) => Some(false),
            (Departure::None, None) => None,
        }
    }

    /// Whether it has been seen to listen.
    pub(crate) fn listens(&self) -> bool {
        let shared = self.shared.upgrade();
        shared.is_some_and(|shared| shared.hub().is_listening(self.cell.id))
    }

    /// Is its channel open (`worker.isConnected`)? One without a channel is connected while it lives.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.cell.is_connected()
    }

    /// Is its process gone (`worker.isDead`)?
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.exit_status().is_some()
    }

    /// How its process ended; nothing while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.cell.state().exit
    }

    /// Waits until its process is gone.
    pub async fn exited(&self) -> ExitStatus {
        loop {
            let changed = self.cell.changed.notified();
            if let Some(status) = self.exit_status() {
                return status;
            }
            changed.await;
        }
    }
}

impl PartialEq for Worker {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cell, &other.cell)
    }
}

impl Eq for Worker {}
