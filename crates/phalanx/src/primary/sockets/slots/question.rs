//! The way of one connection of the primary's own to the slot of a worker that gets none yet.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use phalanx_core::ids::WorkerId;

use super::Slots;

impl Slots {
    /// Connections from this port go to the worker's slot, until [`Slots::end_probe`].
    ///
    /// # Errors
    /// `WouldBlock` while another worker is asked; `NotFound` when it has no slot.
    pub(in crate::primary) fn begin_probe(
        &mut self,
        worker: WorkerId,
        port: u16,
    ) -> io::Result<()> {
        if self.probed.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let pending = self.table.pending(worker).map(|slot| (None, slot));
        let inherited = || self.table.inherited(worker);
        let (position, slot) = pending
            .or_else(|| inherited().map(|(position, slot)| (Some(position), slot)))
            .ok_or(io::ErrorKind::NotFound)?;
        let (socket, name) = (Arc::clone(&slot.socket), slot.name);
        if let Some(position) = position {
            // A socket cannot be in two places of the program's.
            self.group.steer.clears(position);
        }
        self.probed = Some((position, Arc::clone(&socket)));
        let begun = self.group.steer.probe(port, socket.as_fd(), name);
        begun.inspect_err(|_| self.end_probe())
    }

    /// Connections from every port are chosen for again.
    pub(in crate::primary) fn end_probe(&mut self) {
        let Some((position, socket)) = self.probed.take() else {
            return;
        };
        self.group.steer.end_probe();
        if let Some(position) = position {
            self.group.steer.takes(position, socket.as_fd());
        }
    }
}
