//! The way of one connection of the primary's own to the slot of a worker that gets none yet.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::ids::WorkerId;

use super::Slots;

/// A slot into which a connection of the primary's own was put.
#[derive(Debug)]
pub(in crate::primary) struct Place {
    socket: Arc<OwnedFd>,
    /// How often it had been emptied by then.
    emptied: u64,
}

impl Slots {
    /// Connections from this port go to the worker's slot, until [`Slots::end_probe`]. What is returned tells later whether they
    /// [stayed](Slots::has_stayed) there.
    ///
    /// # Errors
    /// `WouldBlock` while another worker is asked; `NotFound` when it has no slot.
    pub(in crate::primary) fn begin_probe(
        &mut self,
        worker: WorkerId,
        port: u16,
    ) -> io::Result<Place> {
        if self.probed.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let pending = self.table.pending(worker).map(|slot| (None, slot));
        let inherited = || self.table.inherited(worker);
        let (position, slot) = pending
            .or_else(|| inherited().map(|(position, slot)| (Some(position), slot)))
            .ok_or(io::ErrorKind::NotFound)?;
        let (socket, name) = (Arc::clone(&slot.socket), slot.name);
        let place = Place {
            socket: Arc::clone(&socket),
            emptied: slot.emptied,
        };
        if let Some(position) = position {
            // A socket cannot be in two places of the program's.
            self.group.steer.clears(position);
        }
        self.probed = Some((position, Arc::clone(&socket)));
        let begun = self.group.steer.probe(port, socket.as_fd(), name);
        begun.inspect_err(|_| self.end_probe())?;
        Ok(place)
    }

    /// Whether no one but the worker can have been given what was put into this place.
    pub(in crate::primary) fn has_stayed(&self, worker: WorkerId, place: &Place) -> bool {
        let inherited = self.table.inherited(worker).map(|(_, slot)| slot);
        let pending = self.table.pending(worker);
        let retired = self.table.retired(worker);
        let mut own = [pending, inherited, retired].into_iter().flatten();
        own.any(|slot| Arc::ptr_eq(&slot.socket, &place.socket) && slot.emptied == place.emptied)
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
