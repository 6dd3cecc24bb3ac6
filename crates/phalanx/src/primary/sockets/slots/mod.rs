//! Dispatch in the kernel: one listening socket a worker and listener, all in one `SO_REUSEPORT`
//! group, and a program that picks the position's socket when a connection arrives.
//!
//! Who gets which socket, and what becomes of a socket whose worker is gone, `phalanx-core/src/dispatch/slots.rs`
//! decides; `group.rs` carries it out. The primary holds every slot open until its worker is gone.

mod again;
pub(in crate::primary) mod burst_detector;
mod figures;
mod full;
mod group;
mod look;
mod others;
mod pulse;
mod question;
mod slot_socket;
mod steer;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::dispatch::intercept::Sockets;
use phalanx_core::dispatch::slots::{SlotGroup as _, SlotTable};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::policy::{Plan, PolicyName, Weights};
use phalanx_sys::socket::{self, TcpOptions};
use phalanx_sys::steering::Steering;

use group::SteeredGroup;
pub(in crate::primary) use look::Sights;
pub(in crate::primary) use question::Place;
use slot_socket::SlotSocket;

/// The slots of one listener.
#[derive(Debug)]
pub(in crate::primary) struct Slots {
    /// Who has which, and whom newcomers are for.
    table: SlotTable<SlotSocket>,
    group: SteeredGroup,
    /// A timer runs that settles them.
    is_settling: bool,
    /// The slot of a worker that is being asked whether it serves, and its position if it has been that position's.
    probed: Option<(Option<Position>, Arc<OwnedFd>)>,
}

impl Slots {
    /// Opens a listener; that its address is free is proven by the first slot. Without `steering`, a
    /// classic program draws at random.
    ///
    /// # Errors
    /// As bind(2) and listen(2); `Other` with the cause when the program cannot be attached.
    pub(in crate::primary) fn open(
        steering: Option<&Steering>,
        address: SocketAddr,
        options: &TcpOptions,
        policy: PolicyName,
        weights: &Weights,
    ) -> io::Result<Self> {
        let first = socket::bind_slots(address, 1, options)?.pop();
        let first = Arc::new(first.ok_or(io::ErrorKind::NotFound)?);
        Self::around(steering, first, options, policy, weights)
    }

    /// A listener whose group has this socket in it, which nobody accepts from yet.
    ///
    /// # Errors
    /// `Other` with the cause when the program cannot be attached.
    pub(in crate::primary) fn around(
        steering: Option<&Steering>,
        first: Arc<OwnedFd>,
        options: &TcpOptions,
        policy: PolicyName,
        weights: &Weights,
    ) -> io::Result<Self> {
        let socket::Address::Inet(address) = socket::local_address(first.as_fd())? else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let plan = Plan::new(policy, weights.clone());
        let (group, first) = SteeredGroup::new(steering, first, address, options, plan)?;
        Ok(Self {
            table: SlotTable::new(first),
            group,
            is_settling: false,
            probed: None,
        })
    }

    /// The address, with the actual port.
    pub(in crate::primary) fn address(&self) -> SocketAddr {
        self.group.address
    }

    /// The socket that this worker shall accept from.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(in crate::primary) fn slot_for(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> io::Result<Arc<OwnedFd>> {
        let base_count = self.group.received(position).unwrap_or(0);
        if let Some(found) = self.table.find(position, worker, &mut self.group) {
            found.renew(base_count);
            return Ok(Arc::clone(&found.socket));
        }
        let mut new = self.group.another()?;
        new.renew(base_count);
        let socket = Arc::clone(&new.socket);
        self.table.bring(worker, new, &mut self.group);
        Ok(socket)
    }

    /// The worker serves: the position's connections are its own from now on.
    pub(in crate::primary) fn serves(&mut self, position: Position, worker: WorkerId) {
        self.table.serves(position, worker, &mut self.group);
    }

    /// The worker gets nothing new from now on. True if it held its position's slot.
    pub(in crate::primary) fn excludes(&mut self, position: Position, worker: WorkerId) -> bool {
        self.table.excludes(position, worker, &mut self.group)
    }

    /// The worker is gone, and its descriptor of the slot with it. True if the slot is without a holder now: a successor may inherit
    /// it, within a moment.
    pub(in crate::primary) fn gone(&mut self, position: Position, worker: WorkerId) -> bool {
        self.table.gone(position, worker, &mut self.group)
    }

    /// The moment has passed: what waits in a slot that nobody inherited moves to others.
    pub(in crate::primary) fn give_up(&mut self, position: Position) {
        self.table.give_up(position, &mut self.group);
    }

    /// True if the slots are to be [settled](Self::settle) in a moment, and nobody was told so yet.
    pub(in crate::primary) fn begins_to_settle(&mut self) -> bool {
        let begins = !self.is_settling && !self.table.is_settled();
        self.is_settling |= begins;
        begins
    }

    /// The moment has passed: sockets to which nobody new comes stop listening. True if there is more, a moment later.
    pub(in crate::primary) fn settle(&mut self) -> bool {
        // While a connection of the primary's own is made, the program may not know the socket's position.
        self.is_settling = self.probed.is_some() || self.table.settle(&mut self.group);
        self.is_settling
    }

    /// Whether nothing is about to move from one slot to another.
    pub(in crate::primary) fn is_settled(&self) -> bool {
        self.table.is_settled()
    }

    /// Newcomers are refused from now on: what listens.
    pub(in crate::primary) fn close_intake(&mut self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        self.table.close_intake();
        self.table.sockets().map(|slot| &slot.socket)
    }

    /// What a worker's socket has to be like.
    pub(in crate::primary) fn sockets(&self) -> Sockets {
        Sockets::Slots {
            migrate: self.group.migrates(),
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
        socket::listen(own.as_fd(), self.group.options.backlog)?;
        let name = self.group.steer.joins(own.as_fd())?;
        let mut new = SlotSocket::new(Arc::clone(own), name);
        new.renew(self.group.received(position).unwrap_or(0));
        self.table.bring(worker, new, &mut self.group);
        Ok(())
    }

    /// These positions hold their share already, and no others.
    pub(in crate::primary) fn set_at_share(&mut self, at_share: &BTreeSet<Position>) {
        if self.group.at_share != *at_share {
            self.group.at_share.clone_from(at_share);
            self.table.switch(&mut self.group);
        }
    }

    /// Another policy or other weights, from the next connection on.
    pub(in crate::primary) fn set_policy(&mut self, policy: PolicyName, weights: Weights) {
        let last = self.group.steer.last_turn();
        self.group.plan.set_policy(policy, weights, last);
        self.table.switch(&mut self.group);
    }
}

#[cfg(test)]
mod tests;
