//! The sockets of a listener as a group of the kernel's: what the table of slots decides is carried out here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::dispatch::full::with_room;
use phalanx_core::dispatch::slots::{Slot, SlotGroup};
use phalanx_core::ids::Position;
use phalanx_core::policy::{Plan, PositionSet};
use phalanx_sys::socket::{self, TcpOptions};
use phalanx_sys::steering::Steering;

use super::slot_socket::SlotSocket;
use super::steer::Steer;

/// The sockets of one listener, and the program that chooses among them.
#[derive(Debug)]
pub(super) struct SteeredGroup {
    pub(super) steer: Steer,
    pub(super) plan: Plan,
    /// Where all of them are bound.
    pub(super) address: SocketAddr,
    pub(super) options: TcpOptions,
    /// Positions that hold their share already while connections are rebalanced: newcomers are for others.
    pub(super) at_share: BTreeSet<Position>,
}

impl SteeredGroup {
    /// The group whose one socket is `first`.
    ///
    /// # Errors
    /// `Other` with the cause when the program cannot be attached.
    pub(super) fn new(
        steering: Option<&Steering>,
        first: Arc<OwnedFd>,
        address: SocketAddr,
        options: &TcpOptions,
        plan: Plan,
    ) -> io::Result<(Self, SlotSocket)> {
        let (steer, name) = Steer::new(steering, first.as_fd())?;
        let group = Self {
            steer,
            plan,
            address,
            options: TcpOptions {
                reuse_port: true,
                ..options.clone()
            },
            at_share: BTreeSet::new(),
        };
        Ok((group, SlotSocket::new(first, name)))
    }

    /// Another socket of the group.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(super) fn another(&mut self) -> io::Result<SlotSocket> {
        let socket = socket::bind_tcp(self.address, &self.options)?;
        self.listening(&Arc::new(socket))
    }

    /// A socket that is bound where the group is, and listens from now on.
    ///
    /// # Errors
    /// As listen(2).
    pub(super) fn listening(&mut self, socket: &Arc<OwnedFd>) -> io::Result<SlotSocket> {
        socket::listen(socket.as_fd(), self.options.backlog)?;
        let name = self.steer.joins(socket.as_fd())?;
        Ok(SlotSocket::new(Arc::clone(socket), name))
    }

    /// What the position has received; nothing where nobody counts.
    pub(super) fn received(&self, position: Position) -> Option<u64> {
        self.steer.received(position)
    }
}

impl SlotGroup for SteeredGroup {
    type Socket = SlotSocket;

    fn migrates(&self) -> bool {
        self.steer.migrates()
    }

    fn waiting(&self, slot: &SlotSocket) -> u32 {
        socket::queue_length(slot.socket.as_fd()).unwrap_or(0)
    }

    fn is_listening(&self, slot: &SlotSocket) -> bool {
        socket::is_listening(slot.socket.as_fd()).unwrap_or(false)
    }

    fn open(&mut self) -> Option<SlotSocket> {
        let opened = self.another().inspect_err(|error| {
            tracing::warn!(%error, "newcomers go on to a worker that leaves: they have nowhere to wait");
        });
        opened.ok()
    }

    fn take(&mut self, position: Position, slot: &mut SlotSocket) {
        slot.base_count = self.received(position).unwrap_or(0);
        self.steer.takes(position, slot.socket.as_fd());
    }

    fn clear(&mut self, position: Position) {
        self.steer.clears(position);
    }

    fn empty(&mut self, position: Option<Position>, slot: &mut SlotSocket) {
        let socket = slot.socket.as_fd();
        if let Err(error) = socket::empty_slot(socket, self.options.backlog) {
            tracing::error!(%error, "a slot cannot be emptied");
        }
        slot.emptied += 1;
        let Some(position) = position else {
            return;
        };
        // The program forgot the socket when it stopped to listen for a moment.
        self.steer.takes(position, socket);
        // What has moved was not taken.
        let received = self.received(position);
        let waiting = self.waiting(slot);
        slot.pulse.moved(received, waiting);
    }

    fn close(&mut self, slot: SlotSocket) {
        if !self.migrates() {
            // The kernel has renumbered the group.
            self.steer.leaves(slot.name);
        }
    }

    fn switch(&mut self, chosen: &PositionSet, slots: &BTreeMap<Position, Slot<SlotSocket>>) {
        let full = slots.iter().filter(|(_, slot)| slot.socket().is_full);
        let full = full.map(|(&position, _)| position).collect();
        let chosen = with_room(chosen, &full);
        let chosen = with_room(&chosen, &self.at_share);
        self.plan.set_eligible(&chosen, self.steer.last_turn());
        let name =
            |(&position, slot): (&Position, &Slot<SlotSocket>)| (position, slot.socket().name);
        self.steer
            .switch(&self.plan, &slots.iter().map(name).collect());
    }
}
