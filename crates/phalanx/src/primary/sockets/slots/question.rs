//! The way of one connection of the primary's own to the slot of a worker that gets none yet.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::ids::{Position, WorkerId};

use super::Name;
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
        let (position, socket, name) = match self.pending.get(&worker) {
            Some(slot) => (None, Arc::clone(&slot.socket), slot.name),
            None => self.inherited(worker).ok_or(io::ErrorKind::NotFound)?,
        };
        if let Some(position) = position {
            // A socket cannot be in two places of the program's.
            self.steer.clears(position);
        }
        self.probed = Some((position, Arc::clone(&socket)));
        let begun = self.steer.probe(port, socket.as_fd(), name);
        begun.inspect_err(|_| self.end_probe())
    }

    /// A slot that was its position's before: what its dead predecessor has left.
    fn inherited(&self, worker: WorkerId) -> Option<(Option<Position>, Arc<OwnedFd>, Name)> {
        let mut active = self.active.iter();
        let (&position, slot) = active.find(|(_, slot)| slot.holder == Some(worker))?;
        Some((Some(position), Arc::clone(&slot.socket), slot.name))
    }

    /// Connections from every port are chosen for again.
    pub(in crate::primary) fn end_probe(&mut self) {
        let Some((position, socket)) = self.probed.take() else {
            return;
        };
        self.steer.end_probe();
        if let Some(position) = position {
            self.steer.takes(position, socket.as_fd());
        }
    }
}
