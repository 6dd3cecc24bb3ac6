//! Slots that programs bring along: sockets of their own, which become members of the group.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::dispatch::intercept::Sockets;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::socket;

use super::Slot;
use super::Slots;
use super::burst_detector::BurstDetector;
use super::look::Pulse;

impl Slots {
    /// What a worker's socket has to be like.
    pub(in crate::primary) fn sockets(&self) -> Sockets {
        Sockets::Slots {
            migrate: self.steer.migrates(),
        }
    }

    /// The worker's own socket, which is bound to the listener's address, becomes its slot, and listens.
    ///
    /// # Errors
    /// As listen(2); `EPERM` when it belongs to another user and the primary may not change that.
    pub(in crate::primary) fn join(
        &mut self,
        position: Position,
        worker: WorkerId,
        own: &Arc<OwnedFd>,
    ) -> io::Result<()> {
        socket::join_group(own.as_fd())?;
        socket::listen(own.as_fd(), self.options.backlog)?;
        let name = self.steer.joins(own.as_fd())?;
        let slot = Slot {
            socket: Arc::clone(own),
            name,
            holder: Some(worker),
            base_count: self.received(position).unwrap_or(0),
            overdue: false,
            pulse: Pulse::new(),
            burst: BurstDetector::default(),
            is_full: false,
        };
        if let Some(unused) = self.pending.insert(worker, slot) {
            self.release(unused);
        }
        Ok(())
    }

    /// A slot that the worker has already: an engine before this one has opened it. False while the program of that
    /// one still has it; then it is to be tried again.
    ///
    /// # Errors
    /// `Other` with the cause when it is no slot any more.
    pub(in crate::primary) fn take_back(
        &mut self,
        position: Position,
        worker: WorkerId,
        own: &Arc<OwnedFd>,
    ) -> io::Result<bool> {
        if !self.steer.may_take(position, own.as_fd())? {
            return Ok(false);
        }
        let name = self.steer.joins(own.as_fd())?;
        let slot = Slot {
            socket: Arc::clone(own),
            name,
            holder: Some(worker),
            base_count: 0,
            overdue: false,
            pulse: Pulse::new(),
            burst: BurstDetector::default(),
            is_full: false,
        };
        self.pending.insert(worker, slot);
        // Whatever the group was built around is this slot or another's.
        self.spare.clear();
        Ok(true)
    }

    /// Nobody chooses any more: the listener is going to be closed here, and whoever has a socket of it keeps it.
    pub(in crate::primary) fn set_free(&self) {
        let held = self.active.values().chain(self.pending.values());
        for slot in held {
            if let Err(error) = socket::detach_choice(slot.socket.as_fd()) {
                tracing::debug!(%error, "a socket has no program to be freed of");
            }
        }
    }

    /// Closes the socket that opened the group, once there are others that workers have brought along. What has
    /// come to it meanwhile moves to them.
    pub(super) fn close_unused(&mut self) {
        if self.steer.migrates() && !self.eligible.is_empty() {
            self.spare.clear();
        }
    }
}
