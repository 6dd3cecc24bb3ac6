//! Dispatch in the kernel: one listening socket a worker and listener, all in one `SO_REUSEPORT`
//! group, and a program that picks the position's socket when a connection arrives.
//!
//! INVARIANT: the primary holds every slot open until its worker is gone, so a connection that waits
//! in it is served: by that worker, by the one that inherits the slot after a crash, or, when the slot
//! is closed, by another position to which the program moves it.
//!
//! A worker whose predecessor still lives gets a slot of its own. It becomes the position's slot when
//! the worker serves; from that moment the old worker gets nothing new, and finishes its own queue.
//! A worker whose predecessor is dead inherits the slot with what waits in it.

mod again;
pub(in crate::primary) mod burst_detector;
mod full;
mod join;
mod look;
mod parking;
mod question;
mod steer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::dispatch::full::with_room;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::policy::{Plan, PolicyName, PositionSet, Weights};
use phalanx_sys::socket::{self, TcpOptions};
use phalanx_sys::steering::Steering;

use burst_detector::BurstDetector;
use look::Pulse;
pub(in crate::primary) use look::Sights;
use parking::Lot;
use steer::{Name, Steer};

/// One socket of the group.
#[derive(Debug)]
struct Slot {
    socket: Arc<OwnedFd>,
    name: Name,
    /// Who accepts from it; nobody after a crash.
    holder: Option<WorkerId>,
    /// What the position had received when its holder began.
    base_count: u64,
    /// Its holder has been gone for more than a moment: what waits shall move as soon as it can.
    overdue: bool,
    pulse: Pulse,
    burst: BurstDetector,
    /// Its holder takes no more connections for now.
    is_full: bool,
}

/// The slots of one listener.
#[derive(Debug)]
pub(in crate::primary) struct Slots {
    steer: Steer,
    plan: Plan,
    /// Where all of them are bound.
    address: SocketAddr,
    options: TcpOptions,
    /// The slot of each position, as the program knows it.
    active: BTreeMap<Position, Slot>,
    /// Slots of workers that do not serve yet.
    pending: BTreeMap<WorkerId, Slot>,
    /// Slots of workers whose successor serves.
    retired: BTreeMap<WorkerId, Slot>,
    eligible: PositionSet,
    /// Those of them whose workers are stuck, while others are not: they get nothing.
    aside: BTreeSet<Position>,
    /// Those that hold their share already while connections are rebalanced: newcomers are for others.
    at_share: BTreeSet<Position>,
    /// The slot of a worker that is being asked whether it serves, and its position if it has been that position's.
    probed: Option<(Option<Position>, Arc<OwnedFd>)>,
    lot: Lot,
    /// Sockets that listen and are nobody's: the one that opened the group, for the first worker, and,
    /// where queues cannot move, those that workers have left, with what waits in them.
    spare: Vec<(Arc<OwnedFd>, Name)>,
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
        let (steer, name) = Steer::new(steering, first.as_fd())?;
        Ok(Self {
            steer,
            plan: Plan::new(policy, weights.clone()),
            address,
            options: TcpOptions {
                reuse_port: true,
                ..options.clone()
            },
            active: BTreeMap::new(),
            pending: BTreeMap::new(),
            retired: BTreeMap::new(),
            eligible: PositionSet::new(),
            aside: BTreeSet::new(),
            at_share: BTreeSet::new(),
            probed: None,
            lot: Lot::Empty,
            spare: vec![(first, name)],
        })
    }

    /// The address, with the actual port.
    pub(in crate::primary) fn address(&self) -> SocketAddr {
        self.address
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
        let base_count = self.received(position).unwrap_or(0);
        let is_free = |slot: &Slot| slot.holder.is_none();
        if let Some(slot) = self.active.get_mut(&position)
            && is_free(slot)
        {
            slot.holder = Some(worker);
            slot.base_count = base_count;
            slot.overdue = false;
            slot.pulse = Pulse::new();
            slot.burst = BurstDetector::default();
            slot.is_full = false;
            return Ok(Arc::clone(&slot.socket));
        }
        let (socket, name) = match self.take_spare().or_else(|| self.orphan()) {
            Some(found) => found,
            None => self.another()?,
        };
        let slot = Slot {
            socket: Arc::clone(&socket),
            name,
            holder: Some(worker),
            base_count,
            overdue: false,
            pulse: Pulse::new(),
            burst: BurstDetector::default(),
            is_full: false,
        };
        self.pending.insert(worker, slot);
        Ok(socket)
    }

    /// The spare socket in which most waits.
    fn take_spare(&mut self) -> Option<(Arc<OwnedFd>, Name)> {
        let waiting = |(_, (socket, _)): &(usize, &(Arc<OwnedFd>, Name))| {
            socket::queue_length(socket.as_fd()).unwrap_or(0)
        };
        let (index, _) = self.spare.iter().enumerate().max_by_key(waiting)?;
        Some(self.spare.swap_remove(index))
    }

    /// The slot is nobody's any more. Where its queue can move it is closed, and moves. Elsewhere it is
    /// kept: to stop listening would lose what waits, and renumber the sockets under the program's feet.
    fn release(&mut self, slot: Slot) {
        if self.steer.migrates() {
            return;
        }
        if socket::is_listening(slot.socket.as_fd()).unwrap_or(false) {
            self.spare.push((slot.socket, slot.name));
        } else {
            // Its worker has shut it down: the kernel has renumbered the group already.
            self.steer.leaves(slot.name);
            self.install();
        }
    }

    /// A slot that another position has left behind and that nobody inherited, with what waits in it.
    fn orphan(&mut self) -> Option<(Arc<OwnedFd>, Name)> {
        let is_orphan = |slot: &Slot| slot.overdue && slot.holder.is_none();
        let mut active = self.active.iter();
        let (&position, _) =
            active.find(|(at, slot)| is_orphan(slot) && self.lot != Lot::At(**at))?;
        let slot = self.active.remove(&position)?;
        self.steer.clears(position);
        Some((slot.socket, slot.name))
    }

    /// The worker serves: the position's connections are its own from now on.
    pub(in crate::primary) fn serves(&mut self, position: Position, worker: WorkerId) {
        if let Some(mut slot) = self.pending.remove(&worker) {
            slot.base_count = self.received(position).unwrap_or(0);
            let socket = Arc::clone(&slot.socket);
            let old = self.active.insert(position, slot);
            self.steer.takes(position, socket.as_fd());
            if let Some(old) = old {
                match old.holder {
                    Some(holder) if holder != worker => drop(self.retired.insert(holder, old)),
                    // It has closed its socket and opened another.
                    Some(_) | None => self.release(old),
                }
            }
            self.aside.remove(&position);
        }
        if self.holds(position, worker) {
            self.eligible.insert(position);
            self.leave_lot();
            self.switch();
            self.clear_overdue();
            self.close_unused();
        }
    }

    /// The worker gets nothing new from now on. True if it held its position's slot.
    pub(in crate::primary) fn excludes(&mut self, position: Position, worker: WorkerId) -> bool {
        let held = self.withdraw(position, worker);
        if held {
            self.park(position, worker);
        }
        held
    }

    fn withdraw(&mut self, position: Position, worker: WorkerId) -> bool {
        let held = self.holds(position, worker);
        if held {
            self.aside.remove(&position);
        }
        if held && self.eligible.remove(position) {
            self.switch();
        }
        held
    }

    /// The worker is gone, and its descriptor of the slot with it. True if the slot is without a
    /// holder now: a successor may inherit it, within a moment.
    pub(in crate::primary) fn gone(&mut self, position: Position, worker: WorkerId) -> bool {
        // Closing a retired slot moves what still waits in it.
        let left = [self.retired.remove(&worker), self.pending.remove(&worker)];
        for slot in left.into_iter().flatten() {
            self.release(slot);
        }
        let held = self.withdraw(position, worker);
        if let Some(slot) = self.active.get_mut(&position).filter(|_| held) {
            slot.holder = None;
        }
        held
    }

    /// The moment has passed: what waits in a slot that nobody inherited moves to others.
    pub(in crate::primary) fn give_up(&mut self, position: Position) {
        if let Some(slot) = self.active.get_mut(&position)
            && slot.holder.is_none()
        {
            slot.overdue = true;
        }
        self.clear_overdue();
    }

    /// Closes overdue slots, provided that there is somebody to move their queues to. What cannot
    /// move waits for the next worker that starts.
    fn clear_overdue(&mut self) {
        if self.eligible.is_empty() {
            return;
        }
        let overdue: Vec<_> = self
            .active
            .iter()
            .filter(|(_, slot)| slot.overdue)
            .map(|(&position, _)| position)
            .collect();
        for position in overdue {
            self.steer.clears(position);
            if let Some(slot) = self.active.remove(&position) {
                self.release(slot);
            }
        }
    }

    /// Connections that were given to this worker; nothing where nobody counts them.
    pub(in crate::primary) fn connections(
        &self,
        position: Position,
        worker: WorkerId,
    ) -> Option<u64> {
        let received = self.received(position)?;
        Some(match self.active.get(&position) {
            Some(slot) if slot.holder == Some(worker) => received.saturating_sub(slot.base_count),
            Some(_) | None => 0,
        })
    }

    /// Whether the worker has taken a connection from its slot; not where nobody counts them.
    pub(in crate::primary) fn has_taken(&self, position: Position, worker: WorkerId) -> bool {
        let given = self.connections(position, worker);
        given.is_some_and(|given| given > u64::from(self.waiting(position, worker)))
    }

    /// Connections that were chosen for this position, and how many wait in its slot. What moved here from another slot was
    /// counted there.
    pub(in crate::primary) fn figures(&self, position: Position) -> (Option<u64>, Option<u32>) {
        let slot = self.active.get(&position);
        let waits = |slot: &Slot| socket::queue_length(slot.socket.as_fd()).ok();
        (self.steer.chosen(position), slot.and_then(waits))
    }

    /// How many connections wait in the worker's slot.
    pub(in crate::primary) fn waiting(&self, position: Position, worker: WorkerId) -> u32 {
        let active = self.active.get(&position);
        let own = active
            .filter(|slot| slot.holder == Some(worker))
            .or_else(|| self.retired.get(&worker));
        // A slot that cannot be asked must not hold up a drain.
        own.map_or(0, |slot| {
            socket::queue_length(slot.socket.as_fd()).unwrap_or(0)
        })
    }

    /// Another socket of the group.
    fn another(&mut self) -> io::Result<(Arc<OwnedFd>, Name)> {
        let socket = socket::bind_tcp(self.address, &self.options)?;
        socket::listen(socket.as_fd(), self.options.backlog)?;
        let name = self.steer.joins(socket.as_fd())?;
        Ok((Arc::new(socket), name))
    }

    fn received(&self, position: Position) -> Option<u64> {
        self.steer.received(position)
    }

    fn holds(&self, position: Position, worker: WorkerId) -> bool {
        let slot = self.active.get(&position);
        slot.is_some_and(|slot| slot.holder == Some(worker))
    }

    fn switch(&mut self) {
        let last = self.steer.last_turn();
        let mut chosen = self.parked().unwrap_or_else(|| self.eligible.clone());
        for &position in &self.aside {
            chosen.remove(position);
        }
        let chosen = with_room(&chosen, &self.full());
        let chosen = with_room(&chosen, &self.at_share);
        self.plan.set_eligible(&chosen, last);
        self.install();
    }

    /// These positions hold their share already, and no others.
    pub(in crate::primary) fn set_at_share(&mut self, at_share: &BTreeSet<Position>) {
        if self.at_share != *at_share {
            self.at_share.clone_from(at_share);
            self.switch();
        }
    }

    fn install(&mut self) {
        let name = |(&position, slot): (&Position, &Slot)| (position, slot.name);
        let names = self.active.iter().map(name).collect();
        self.steer.switch(&self.plan, &names);
    }

    /// What connections are distributed by, where that is not the policy.
    pub(in crate::primary) fn drawn_by(&self) -> Option<&'static str> {
        self.steer.drawn_by(self.plan.policy())
    }

    /// Another policy or other weights, from the next connection on.
    pub(in crate::primary) fn set_policy(&mut self, policy: PolicyName, weights: Weights) {
        let last = self.steer.last_turn();
        self.plan.set_policy(policy, weights, last);
        self.install();
    }
}
