//! The handoff ledger: who owns each connection that the primary has accepted.
//!
//! INVARIANT: a connection admitted with [`Ledger::offer`] has exactly one owner until it leaves the
//! ledger: one worker it is offered to, or the queue of those that wait to be offered again. It leaves
//! when a worker says that it accepted it, or with its listener ([`Ledger::remove_listener`]). A
//! connection that a worker returns, or whose worker is gone before it accepted, waits and is offered
//! to another; where its listener has been closed meanwhile there is no other, and it is dropped.
//!
//! The ledger also knows who may be offered to: members of a listener that are not full. It leaves
//! the choice among them to a [`Policy`], and the passing of the descriptor to the runtime. One that is
//! stuck is not offered to while others are not ([`Ledger::look`]).

mod group;
mod offer;
mod stuck;
mod waiting;
mod worker_death;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::dispatch::liveness::{Limits, Liveness};
use crate::ids::{Position, WorkerId};
use crate::policy::{ClientHash, Loads, Policy};
use group::{Group, Member};
pub use offer::{Offer, Waiting};

/// A listener, as the ledger counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerId(pub u32);

/// See the module's documentation.
#[derive(Debug)]
pub struct Ledger<C> {
    window: usize,
    next_seq: u64,
    members: BTreeMap<WorkerId, Member<C>>,
    groups: BTreeMap<ListenerId, Group>,
    waiting: VecDeque<Offer<C>>,
}

impl<C> Ledger<C> {
    /// A ledger that has at most `window` connections in flight to each worker.
    #[must_use]
    pub fn new(window: usize) -> Self {
        Self {
            window: window.max(1),
            next_seq: 0,
            members: BTreeMap::new(),
            groups: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Numbers offers from here on.
    pub fn number_from(&mut self, first: u64) {
        self.next_seq = first;
    }

    /// Opens a listener whose connections `policy` distributes.
    pub fn add_listener(&mut self, listener: ListenerId, policy: Box<dyn Policy>) {
        self.groups.insert(listener, Group::new(policy));
    }

    /// Is this listener one of those whose connections pass through here?
    #[must_use]
    pub fn has_listener(&self, listener: ListenerId) -> bool {
        self.groups.contains_key(&listener)
    }

    /// Is there anybody whom this listener's connections could be offered to, now or later?
    #[must_use]
    pub fn has_members(&self, listener: ListenerId) -> bool {
        let group = self.groups.get(&listener);
        group.is_some_and(|group| !group.members.is_empty())
    }

    /// From now on, `policy` distributes the listener's connections.
    pub fn set_policy(&mut self, listener: ListenerId, policy: Box<dyn Policy>) {
        if let Some(group) = self.groups.get_mut(&listener) {
            group.set_policy(policy);
        }
    }

    /// Closes a listener. What waits for it is returned, to be closed.
    pub fn remove_listener(&mut self, listener: ListenerId) -> Vec<C> {
        self.groups.remove(&listener);
        for member in self.members.values_mut() {
            member.listeners.remove(&listener);
        }
        let (gone, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|offer| offer.listener == listener);
        self.waiting = kept;
        let gone: VecDeque<Offer<C>> = gone;
        gone.into_iter().map(|offer| offer.connection).collect()
    }

    /// The worker can be passed connections, and is chosen for none yet.
    pub fn admit(&mut self, worker: WorkerId, position: Position) {
        self.enter(worker, position);
    }

    fn enter(&mut self, worker: WorkerId, position: Position) -> &mut Member<C> {
        self.members.entry(worker).or_insert_with(|| Member {
            position,
            listeners: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            accepted_count: 0,
            blocked: false,
            stalled: false,
            answers: 0,
            answers_before: 0,
            liveness: Liveness::new(Limits::CONNECTIONS),
            aside: false,
            is_at_share: false,
            window_max: usize::MAX,
        })
    }

    /// The worker may be offered this listener's connections from now on.
    pub fn join(&mut self, listener: ListenerId, worker: WorkerId, position: Position) {
        if !self.enter(worker, position).listeners.insert(listener) {
            return;
        }
        if let Some(group) = self.groups.get_mut(&listener) {
            group.members.entry(position).or_default().push(worker);
        }
        self.refresh(listener, position);
    }

    /// The worker is offered nothing more from this listener. What is in flight stays its own.
    pub fn leave(&mut self, listener: ListenerId, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.listeners.remove(&listener);
        let position = member.position;
        if let Some(group) = self.groups.get_mut(&listener)
            && let Some(holders) = group.members.get_mut(&position)
        {
            holders.retain(|&holder| holder != worker);
            if holders.is_empty() {
                group.members.remove(&position);
            }
        }
        self.refresh(listener, position);
    }

    /// The worker is offered nothing more from any listener: it drains.
    pub fn exclude(&mut self, worker: WorkerId) {
        let listeners = self
            .members
            .get(&worker)
            .map(|member| member.listeners.clone())
            .unwrap_or_default();
        for listener in listeners {
            self.leave(listener, worker);
        }
    }

    /// The runtime's word on whether the worker's channel takes handles just now.
    pub fn set_blocked(&mut self, worker: WorkerId, blocked: bool) {
        if let Some(member) = self.members.get_mut(&worker)
            && member.blocked != blocked
        {
            member.blocked = blocked;
            self.refresh_worker(worker);
        }
    }

    /// These workers hold their share already, and nobody else: newcomers are for the others.
    pub fn set_at_share(&mut self, at_share: &BTreeSet<WorkerId>) {
        let changed = self.members.iter_mut().filter_map(|(worker, member)| {
            let is_at_share = at_share.contains(worker);
            (std::mem::replace(&mut member.is_at_share, is_at_share) != is_at_share)
                .then_some(*worker)
        });
        let changed: Vec<WorkerId> = changed.collect();
        for worker in changed {
            self.refresh_worker(worker);
        }
    }

    /// Chooses the worker for a new connection of this client on this listener; nothing while nobody
    /// has room. Connections that wait come first: see [`Ledger::next_waiting`].
    pub fn choose(
        &mut self,
        listener: ListenerId,
        client: ClientHash,
        loads: &dyn Loads,
    ) -> Option<WorkerId> {
        let group = self.groups.get_mut(&listener)?;
        let position = group.choose(loads, client)?;
        group.newest(position)
    }

    /// Can this listener's connections go anywhere now? Under a policy that keeps turns, that is so while
    /// the one whose turn it is has room.
    #[must_use]
    pub fn has_room(&mut self, listener: ListenerId) -> bool {
        self.groups.get_mut(&listener).is_some_and(Group::has_room)
    }

    /// Is somebody waited for whose turn it is, while others have room? Then [`Ledger::lose_patience`] is due soon.
    #[must_use]
    pub fn awaits_turn(&self, listener: ListenerId) -> bool {
        self.groups.get(&listener).is_some_and(Group::awaits_turn)
    }

    /// A turn was awaited for a while. Who has no room and has answered nothing since the last time
    /// loses its claim: it is passed over until half of what it was offered is answered.
    pub fn lose_patience(&mut self) {
        let window = self.window;
        let mut lost = Vec::new();
        for (&worker, member) in &mut self.members {
            let before = std::mem::replace(&mut member.answers_before, member.answers);
            let answered = member.answers != before;
            if !answered && !member.has_room(window) {
                member.stalled = true;
                lost.push(worker);
            }
        }
        for worker in lost {
            self.refresh_worker(worker);
        }
    }

    /// The number that the next offer will carry. It is used up by [`Ledger::offer`].
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Records that the connection was passed to the worker under [`Ledger::next_seq`].
    pub fn offer(
        &mut self,
        listener: ListenerId,
        worker: WorkerId,
        client: ClientHash,
        connection: C,
    ) {
        self.place(worker, Offer::new(listener, client, connection));
    }

    /// Records that a connection taken with [`Ledger::take_waiting`] was passed to the worker under
    /// [`Ledger::next_seq`].
    pub fn place(&mut self, worker: WorkerId, offer: Offer<C>) {
        match self.members.get_mut(&worker) {
            Some(member) => {
                member.in_flight.insert(self.next_seq, offer);
                self.next_seq += 1;
                self.refresh_worker(worker);
            }
            None => self.wait_last(offer),
        }
    }

    /// Queues a connection that could not be passed on just now.
    pub fn hold(&mut self, listener: ListenerId, client: ClientHash, connection: C) {
        self.waiting
            .push_back(Offer::new(listener, client, connection));
    }

    /// The worker accepted the connection; it is returned, for the primary to close its copy.
    pub fn accepted(&mut self, worker: WorkerId, seq: u64) -> Option<C> {
        let member = self.members.get_mut(&worker)?;
        let offer = member.in_flight.remove(&seq)?;
        member.accepted_count += 1;
        member.answers += 1;
        let position = member.position;
        if let Some(group) = self.groups.get_mut(&offer.listener) {
            *group.accepted.entry(position).or_default() += 1;
        }
        self.refresh_worker(worker);
        Some(offer.connection)
    }

    /// The worker returned the connection (or it never got the descriptor): it waits for another.
    pub fn returned(&mut self, worker: WorkerId, seq: u64) -> bool {
        let Some(member) = self.members.get_mut(&worker) else {
            return false;
        };
        let Some(mut offer) = member.in_flight.remove(&seq) else {
            return false;
        };
        member.answers += 1;
        offer.refused_by.push(worker);
        self.wait_last(offer);
        self.refresh_worker(worker);
        true
    }

    /// Connections offered to the worker and not yet answered.
    #[must_use]
    pub fn in_flight(&self, worker: WorkerId) -> usize {
        self.members
            .get(&worker)
            .map_or(0, |member| member.in_flight.len())
    }

    /// Connections the worker has accepted in its life.
    #[must_use]
    pub fn accepted_count(&self, worker: WorkerId) -> u64 {
        self.members
            .get(&worker)
            .map_or(0, |member| member.accepted_count)
    }

    /// Connections of this listener that workers have accepted, by position, those included that are gone.
    pub fn accepted_at(
        &self,
        listener: ListenerId,
    ) -> impl Iterator<Item = (Position, u64)> + use<'_, C> {
        let group = self.groups.get(&listener).into_iter();
        group.flat_map(|group| group.accepted.iter().map(|(&at, &count)| (at, count)))
    }

    fn refresh_worker(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.stalled &= !member.has_caught_up(self.window);
        let room = member.has_room(self.window);
        for listener in &member.listeners {
            if let Some(group) = self.groups.get_mut(listener)
                && group.newest(member.position) == Some(worker)
            {
                group.mark(member.position, room, member.is_awaited());
            }
        }
    }

    fn refresh(&mut self, listener: ListenerId, position: Position) {
        let Some(group) = self.groups.get_mut(&listener) else {
            return;
        };
        let newest = group
            .newest(position)
            .and_then(|worker| self.members.get(&worker));
        let room = newest.is_some_and(|member| member.has_room(self.window));
        let awaited = newest.is_some_and(Member::is_awaited);
        group.mark(position, room, awaited);
    }
}

#[cfg(test)]
mod tests;
