//! Slots for workers that may ask for theirs more than once: programs that close their listener and
//! listen again, or that shut it down (shutdown(2)), which closes it for whoever has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::socket;

use super::Slot;
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
        let own = self.own(position, |slot| slot.holder == Some(worker));
        let socket = match own.map(|slot| Arc::clone(&slot.socket)) {
            Some(socket) => socket,
            None => self.slot_for(position, worker)?,
        };
        if !socket::is_listening(socket.as_fd())? {
            self.listen_again(position, &socket)?;
        }
        Ok(socket)
    }

    /// A slot of the position, or of a worker that has none yet or none any more.
    pub(super) fn own(
        &mut self,
        position: Position,
        is_it: impl Fn(&Slot) -> bool,
    ) -> Option<&mut Slot> {
        let active = self.active.get_mut(&position).into_iter();
        let others = self.pending.values_mut().chain(self.retired.values_mut());
        active.chain(others).find(|slot| is_it(slot))
    }

    /// Whoever steers has forgotten the socket when it stopped to listen.
    fn listen_again(&mut self, position: Position, socket: &Arc<OwnedFd>) -> io::Result<()> {
        let is_it = |slot: &Slot| Arc::ptr_eq(&slot.socket, socket);
        if let Some(former) = self.own(position, is_it).map(|slot| slot.name.take()) {
            self.steer.leaves(former);
        }
        socket::listen(socket.as_fd(), self.options.backlog)?;
        let name = self.steer.joins(socket.as_fd())?;
        if let Some(slot) = self.own(position, is_it) {
            slot.name = name;
        }
        if self.active.get(&position).is_some_and(is_it) {
            self.steer.takes(position, socket.as_fd());
            self.install();
        }
        Ok(())
    }
}
