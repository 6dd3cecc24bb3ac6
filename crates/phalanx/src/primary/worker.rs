//! The primary's view of one worker: the counterpart of Node's `Worker`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::ids::{ExitStatus, Position, WorkerId};
use phalanx_core::wire::outgoing;
use phalanx_sys::signal::Signal;
use serde::Serialize;

use crate::error::{Error, MessageError, Result};
use crate::handle::{Handle, Unsent};
use crate::primary::Shared;
use crate::primary::cell::{Cell, Departure};
use crate::subscribers::Events;

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

    /// The same, as the system's interfaces take it.
    pub(crate) fn process_id(&self) -> phalanx_sys::process::Pid {
        self.cell.pid
    }

    /// The memory that its process occupies, in bytes.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let is_there = self.cell.process().is_some();
        let bytes = is_there
            .then(|| phalanx_sys::limits::resident_bytes(self.cell.pid).ok())
            .flatten();
        self.cell.memory.keep(bytes);
        bytes
    }

    /// The same, as somebody has read it within the last second, or anew.
    pub(crate) fn memory_bytes_lately(&self) -> Option<u64> {
        self.cell.memory.kept().or_else(|| self.memory_bytes())
    }

    /// Whether descendants of its process were seen that may live still.
    pub(crate) fn has_started_something(&self) -> bool {
        !self.cell.relatives().is_empty()
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
    /// [`MessageError::Disconnected`] when the channel is closed, [`MessageError::ChannelFull`] when 16 MiB wait
    /// already, [`MessageError::Encode`] when it cannot be written as JSON.
    pub fn send<M: Serialize + ?Sized>(&self, message: &M) -> Result<(), MessageError> {
        let value = serde_json::to_value(message).map_err(MessageError::Encode)?;
        let shared = self.shared.upgrade().ok_or(MessageError::Disconnected)?;
        shared.hub().send(self.cell.id, outgoing::user(&value))
    }

    /// Sends a message and a socket with it (`worker.send(message, handle)`). The socket is closed here when the worker has
    /// it; a duplicate of it stays ([`Handle::try_clone`], Node's `keepOpen`). Messages behind it wait until the worker has
    /// acknowledged it. One that does not arrive, because the worker has too many files open, is sent again, three times at most; then
    /// it is closed, and there is an [`Event::Error`](crate::Event::Error).
    ///
    /// # Errors
    /// As [`Worker::send`], and [`MessageError::HandlesFull`] when 256 wait already. The socket comes back with the error.
    pub fn send_with_handle<M: Serialize + ?Sized>(
        &self,
        message: &M,
        handle: impl Into<Handle>,
    ) -> Result<(), Unsent> {
        let handle = handle.into();
        let value = match serde_json::to_value(message) {
            Ok(value) => value,
            Err(error) => {
                let error = MessageError::Encode(error);
                return Err(Unsent { error, handle });
            }
        };
        let Some(shared) = self.shared.upgrade() else {
            let error = MessageError::Disconnected;
            return Err(Unsent { error, handle });
        };
        shared.hub().send_handle(self.cell.id, &value, handle)
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
        match (self.cell.departure(), self.cell.exit_status()) {
            (Some(Departure::Asked | Departure::OwnWish), _) => Some(true),
            (None, Some(_)) => Some(false),
            (None, None) => None,
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
        self.cell.exit_status()
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
