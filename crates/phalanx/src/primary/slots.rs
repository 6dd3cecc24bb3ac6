//! Dispatch in the kernel: one listening socket a worker and listener, all in one `SO_REUSEPORT`
//! group, and an eBPF program that picks the position's socket when a connection arrives.
//!
//! INVARIANT: the primary holds every slot open until its worker is gone, so a connection that waits
//! in it is served: by that worker, by the one that inherits the slot after a crash, or, when the slot
//! is closed, by another position to which the program moves it.
//!
//! A worker whose predecessor still lives gets a slot of its own. It becomes the position's slot when
//! the worker serves; from that moment the old worker gets nothing new, and finishes its own queue.
//! A worker whose predecessor is dead inherits the slot with what waits in it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::{Plan, PolicyName, PositionSet, Weights};
use phalanx_sys::socket::{self, TcpOptions};
use phalanx_sys::steering::{self, Group, Rule, Steering};

use super::hub::Hub;

/// One socket of the group.
#[derive(Debug)]
struct Slot {
    socket: Arc<OwnedFd>,
    /// Who accepts from it; nobody after a crash.
    holder: Option<WorkerId>,
    /// What the position had received when its holder began.
    base_count: u64,
    /// Its holder has been gone for more than a moment: what waits shall move as soon as it can.
    overdue: bool,
}

/// The slots of one listener.
#[derive(Debug)]
pub(super) struct Slots {
    group: Group,
    plan: Plan,
    address: SocketAddr,
    options: TcpOptions,
    /// The slot of each position, as the program knows it.
    active: BTreeMap<Position, Slot>,
    /// Slots of workers that do not serve yet.
    pending: BTreeMap<WorkerId, Slot>,
    /// Slots of workers whose successor serves.
    retired: BTreeMap<WorkerId, Slot>,
    eligible: PositionSet,
    /// The socket that opened the group, for the first worker.
    first: Option<Arc<OwnedFd>>,
}

/// Can the kernel carry out this policy now? Those that compare loads need a scoreboard.
pub(super) fn rule_of(policy: PolicyName) -> Option<Rule> {
    match policy {
        PolicyName::RoundRobin | PolicyName::Weighted => Some(Rule::Turns),
        PolicyName::SourceHash => Some(Rule::Source),
        PolicyName::Random => Some(Rule::Chance),
        PolicyName::None => Some(Rule::Connection),
        PolicyName::LeastConnections | PolicyName::Fastest | PolicyName::PowerOfTwo | _ => None,
    }
}

impl Slots {
    /// Takes over a listening socket's address: `proof` showed that it is free, and is closed here.
    ///
    /// # Errors
    /// As bind(2) and listen(2); `Other` with the cause when the program cannot be attached.
    pub(super) fn open(
        steering: &Steering,
        proof: OwnedFd,
        only_v6: bool,
        backlog: u32,
        policy: PolicyName,
        weights: &Weights,
    ) -> io::Result<Self> {
        let socket::Address::Inet(address) = socket::local_address(proof.as_fd())? else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        drop(proof);
        let options = TcpOptions {
            only_v6,
            backlog,
            reuse_port: true,
        };
        let first = socket::bind_slots(address, 1, &options)?.pop();
        let first = Arc::new(first.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?);
        let group = steering.attach(first.as_fd()).map_err(io::Error::other)?;
        Ok(Self {
            group,
            plan: Plan::new(policy, weights.clone()),
            address,
            options,
            active: BTreeMap::new(),
            pending: BTreeMap::new(),
            retired: BTreeMap::new(),
            eligible: PositionSet::new(),
            first: Some(first),
        })
    }

    /// The socket that this worker shall accept from.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(super) fn slot_for(
        &mut self,
        position: Position,
        worker: WorkerId,
    ) -> io::Result<Arc<OwnedFd>> {
        let base_count = self.received(position);
        if let Some(slot) = self.active.get_mut(&position)
            && slot.holder.is_none()
        {
            slot.holder = Some(worker);
            slot.base_count = base_count;
            slot.overdue = false;
            return Ok(Arc::clone(&slot.socket));
        }
        let socket = match self.first.take() {
            Some(first) => first,
            None => Arc::new(self.another()?),
        };
        let slot = Slot {
            socket: Arc::clone(&socket),
            holder: Some(worker),
            base_count,
            overdue: false,
        };
        self.pending.insert(worker, slot);
        Ok(socket)
    }

    /// The worker serves: the position's connections are its own from now on.
    pub(super) fn serves(&mut self, position: Position, worker: WorkerId) {
        if let Some(mut slot) = self.pending.remove(&worker) {
            slot.base_count = self.received(position);
            let socket = Arc::clone(&slot.socket);
            if let Some(old) = self.active.insert(position, slot)
                && let Some(holder) = old.holder
            {
                self.retired.insert(holder, old);
            }
            if let Err(error) = self.group.set_slot(position.0, socket.as_fd()) {
                tracing::error!(%error, "a slot cannot be steered to");
                return;
            }
        }
        if self.holds(position, worker) {
            self.eligible.insert(position);
            self.switch();
            self.clear_overdue();
        }
    }

    /// The worker gets nothing new from now on. True if it held its position's slot.
    pub(super) fn excludes(&mut self, position: Position, worker: WorkerId) -> bool {
        let held = self.holds(position, worker);
        if held && self.eligible.remove(position) {
            self.switch();
        }
        held
    }

    /// The worker is gone, and its descriptor of the slot with it. True if the slot is without a
    /// holder now: a successor may inherit it, within a moment.
    pub(super) fn gone(&mut self, position: Position, worker: WorkerId) -> bool {
        // Closing a retired slot moves what still waits in it.
        self.retired.remove(&worker);
        self.pending.remove(&worker);
        let held = self.excludes(position, worker);
        if let Some(slot) = self.active.get_mut(&position).filter(|_| held) {
            slot.holder = None;
        }
        held
    }

    /// The moment has passed: what waits in a slot that nobody inherited moves to others.
    pub(super) fn give_up(&mut self, position: Position) {
        if let Some(slot) = self.active.get_mut(&position)
            && slot.holder.is_none()
        {
            slot.overdue = true;
        }
        self.clear_overdue();
    }

    /// Closes overdue slots, provided that there is somebody to move their queues to.
    fn clear_overdue(&mut self) {
        if self.eligible.is_empty() {
            return;
        }
        let group = &self.group;
        self.active.retain(|position, slot| {
            if !slot.overdue {
                return true;
            }
            if let Err(error) = group.clear_slot(position.0) {
                tracing::error!(%error, "a slot cannot be taken out");
            }
            false
        });
    }

    /// Connections that the program has given to this worker.
    pub(super) fn connections(&self, position: Position, worker: WorkerId) -> u64 {
        match self.active.get(&position) {
            Some(slot) if slot.holder == Some(worker) => {
                self.received(position).saturating_sub(slot.base_count)
            }
            Some(_) | None => 0,
        }
    }

    /// How many connections wait in the worker's slot.
    fn waiting(&self, position: Position, worker: WorkerId) -> u32 {
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
    fn another(&self) -> io::Result<OwnedFd> {
        let socket = socket::bind_tcp(self.address, &self.options)?;
        socket::listen(socket.as_fd(), self.options.backlog)?;
        Ok(socket)
    }

    fn received(&self, position: Position) -> u64 {
        let tally = self.group.tally(position.0);
        tally.chosen.saturating_add(tally.migrated)
    }

    fn holds(&self, position: Position, worker: WorkerId) -> bool {
        let slot = self.active.get(&position);
        slot.is_some_and(|slot| slot.holder == Some(worker))
    }

    fn switch(&mut self) {
        let last = self.group.last_turn();
        self.plan.set_eligible(&self.eligible, last);
        self.install();
    }

    fn install(&mut self) {
        let plan = steering::Plan {
            rule: rule_of(self.plan.policy()).unwrap_or(Rule::Turns),
            turns: self.plan.turns(),
            eligible: self.plan.eligible().words(),
            start: self.plan.start(),
        };
        if let Err(error) = self.group.switch(&plan) {
            tracing::error!(%error, "the kernel keeps the plan before");
        }
    }
}

/// How long a slot without a holder waits for a successor that inherits it.
const MOMENT: Duration = Duration::from_millis(300);

/// What happens to workers, told to the slots of the listeners they serve.
impl Hub {
    /// The worker gets nothing new from any listener. True if a slot was its own.
    pub(super) fn exclude_from_slots(&mut self, worker: WorkerId) -> bool {
        let Some(position) = self.workers.get(&worker).map(|state| state.cell.position) else {
            return false;
        };
        let mut any = false;
        for listener in self.listeners.values_mut() {
            if let Some(slots) = listener.slots.as_mut() {
                any |= slots.excludes(position, worker);
            }
        }
        any
    }

    /// Does a connection wait in a slot of this worker, which nobody but it accepts?
    pub(super) fn waits_in_slots(&self, worker: WorkerId) -> bool {
        let Some(position) = self.workers.get(&worker).map(|state| state.cell.position) else {
            return false;
        };
        let mut slots = self
            .listeners
            .values()
            .filter_map(|listener| listener.slots.as_ref());
        slots.any(|slots| slots.waiting(position, worker) > 0)
    }

    /// The worker has closed its descriptors of all slots.
    pub(super) fn gone_from_slots(&mut self, worker: WorkerId) {
        let ids: Vec<_> = self.listeners.keys().copied().collect();
        for id in ids {
            self.slot_lost(id, worker);
        }
    }

    /// The worker has closed its descriptor of this listener's slot.
    pub(super) fn slot_lost(&mut self, id: ListenerId, worker: WorkerId) {
        let Some(position) = self.workers.get(&worker).map(|state| state.cell.position) else {
            return;
        };
        let slots = self
            .listeners
            .get_mut(&id)
            .and_then(|listener| listener.slots.as_mut());
        if slots.is_some_and(|slots| slots.gone(position, worker)) {
            let shared = self.shared.clone();
            let until = phalanx_sys::clock::now() + MOMENT;
            tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                if let Some(shared) = shared.upgrade()
                    && let Some(listener) = shared.hub().listeners.get_mut(&id)
                    && let Some(slots) = listener.slots.as_mut()
                {
                    slots.give_up(position);
                }
            });
        }
    }
}
