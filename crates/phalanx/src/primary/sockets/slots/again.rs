//! Slots for workers that may ask for theirs more than once: programs that close their listener and
//! listen again, or that shut it down (shutdown(2)), which closes it for whoever has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::dispatch::slots::Slot;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::socket;

use super::SlotSocket;
use super::Slots;

impl Slots {
    /// The socket that this worker shall accept from; the same one every time.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(in crate::primary) fn slot_again(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> io::Result<Arc<OwnedFd>> {
        let socket = match self.socket_of(position, worker) {
            Some(socket) => socket,
            None => self.slot_for(position, worker)?,
        };
        if !socket::is_listening(socket.as_fd())? {
            self.listen_again(position, &socket)?;
        }
        Ok(socket)
    }

    /// The socket that this worker has, if it has one.
    pub(in crate::primary) fn socket_of(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> Option<Arc<OwnedFd>> {
        let own = self.own_of(position, worker);
        own.map(|slot| Arc::clone(&slot.socket))
    }

    /// The slot that the worker has at the position, or that is its alone.
    pub(super) fn own_of(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> Option<&mut SlotSocket> {
        self.table
            .own_mut(position, |slot| slot.holder() == Some(worker))
    }

    /// Whoever steers has forgotten the socket when it stopped to listen.
    fn listen_again(&mut self, position: Position, socket: &Arc<OwnedFd>) -> io::Result<()> {
        let is_it = |slot: &Slot<SlotSocket>| Arc::ptr_eq(&slot.socket().socket, socket);
        if let Some(slot) = self.table.own_mut(position, is_it) {
            self.group.steer.leaves(slot.name.take());
            slot.name = self.group.listening(socket)?.name;
        }
        if self.table.at(position).is_some_and(is_it) {
            self.group.steer.takes(position, socket.as_fd());
            self.table.switch(&mut self.group);
        }
        Ok(())
    }
}
