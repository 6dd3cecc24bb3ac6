//! Slots that are not opened here: an engine before this one has opened them, or programs have brought them along.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::socket;

use super::SlotSocket;
use super::Slots;

impl Slots {
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
        if !self.group.steer.may_take(position, own.as_fd())? {
            return Ok(false);
        }
        let name = self.group.steer.joins(own.as_fd())?;
        let slot = SlotSocket::new(Arc::clone(own), name);
        self.table.bring_back(worker, slot, &mut self.group);
        Ok(true)
    }

    /// Nobody chooses any more: the listener is going to be closed here, and whoever has a socket of it keeps it.
    pub(in crate::primary) fn set_free(&mut self) {
        // What is to move does so while there is somebody who chooses.
        while self.table.settle(&mut self.group) {}
        for slot in self.table.sockets() {
            if let Err(error) = socket::detach_choice(slot.socket.as_fd()) {
                tracing::debug!(%error, "a socket has no program to be freed of");
            }
        }
    }
}
