//! The members of a listener, and who of them may be chosen.

use std::collections::{BTreeMap, BTreeSet};

use super::{ListenerId, Offer};
use crate::dispatch::liveness::Liveness;
use crate::ids::{Position, WorkerId};
use crate::policy::{ClientHash, Field, Loads, Policy, PositionSet};

/// A worker that may be offered connections.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub(super) struct Member<C> {
    pub(super) position: Position,
    pub(super) listeners: BTreeSet<ListenerId>,
    pub(super) in_flight: BTreeMap<u64, Offer<C>>,
    pub(super) accepted_count: u64,
    /// The runtime's word that its channel takes no handle just now.
    pub(super) blocked: bool,
    /// Its turn is not waited for: it had no room and answered nothing for a moment. Much less than stuck.
    pub(super) stalled: bool,
    /// Offers it has answered in its life, and those it had when patience was last lost.
    pub(super) answers: u64,
    pub(super) answers_before: u64,
    /// Whether it is stuck.
    pub(super) liveness: Liveness,
    /// It is stuck, and others are not.
    pub(super) aside: bool,
    /// It holds its share already: newcomers are for others.
    pub(super) is_at_share: bool,
    /// It never has more connections in flight than this: 1 where none could be taken back.
    pub(super) window_max: usize,
}

impl<C> Member<C> {
    pub(super) fn has_room(&self, window: usize) -> bool {
        !self.blocked && !self.is_at_share && self.in_flight.len() < self.window(window)
    }

    /// Whether its turn is waited for when it has no room.
    pub(super) fn is_awaited(&self) -> bool {
        !self.stalled && !self.is_at_share
    }

    /// How many connections it may have in flight.
    fn window(&self, window: usize) -> usize {
        match (self.aside, self.liveness.is_tried()) {
            (true, false) => 0,
            (true, true) => 1,
            (false, _) => window.min(self.window_max),
        }
    }

    /// Has it answered so much that it is waited for again? Half of the window, lest everybody waits anew
    /// for each single connection that a slow worker accepts.
    pub(super) fn has_caught_up(&self, window: usize) -> bool {
        !self.blocked && self.in_flight.len() <= self.window(window) / 2
    }
}

/// The members of a listener.
#[derive(Debug)]
pub(super) struct Group {
    policy: Box<dyn Policy>,
    /// The members at each position, newest last. New connections go to the newest alone.
    pub(super) members: BTreeMap<Position, Vec<WorkerId>>,
    /// Positions with room.
    pub(super) eligible: PositionSet,
    /// Positions that may have a turn: those with room, and those that are waited for.
    awaited: PositionSet,
    /// Whose turn it is, where it has been taken and not been used.
    turn: Option<Position>,
    /// Connections that workers have accepted, by position. It outlives them.
    pub(super) accepted: BTreeMap<Position, u64>,
}

impl Group {
    pub(super) fn new(policy: Box<dyn Policy>) -> Self {
        Self {
            policy,
            members: BTreeMap::new(),
            eligible: PositionSet::new(),
            awaited: PositionSet::new(),
            turn: None,
            accepted: BTreeMap::new(),
        }
    }

    pub(super) fn set_policy(&mut self, policy: Box<dyn Policy>) {
        self.policy = policy;
        self.turn = None;
    }

    /// Who gets the position's new connections.
    pub(super) fn newest(&self, position: Position) -> Option<WorkerId> {
        self.members.get(&position)?.last().copied()
    }

    /// Where a new connection goes; nowhere while nobody has room, or the one whose turn it is has none.
    pub(super) fn choose(&mut self, loads: &dyn Loads, client: ClientHash) -> Option<Position> {
        if self.policy.keeps_turns() {
            return self.has_room().then(|| self.turn.take()).flatten();
        }
        let field = Field::new(&self.eligible, loads, client);
        self.policy.choose(&field)
    }

    /// Where a connection goes that can go to these only, and has waited already.
    pub(super) fn choose_among(
        &mut self,
        willing: &PositionSet,
        loads: &dyn Loads,
        client: ClientHash,
    ) -> Option<Position> {
        if self.turn.is_some_and(|turn| willing.contains(turn)) {
            return self.turn.take();
        }
        self.policy.choose(&Field::new(willing, loads, client))
    }

    /// Could [`Group::choose`] answer now?
    pub(super) fn has_room(&mut self) -> bool {
        if !self.policy.keeps_turns() {
            return !self.eligible.is_empty();
        }
        if self.turn.is_none_or(|turn| !self.awaited.contains(turn)) {
            let field = Field::new(&self.awaited, &(), ClientHash::UNKNOWN);
            self.turn = self.policy.choose(&field);
        }
        self.turn.is_some_and(|turn| self.eligible.contains(turn))
    }

    /// Do positions with room wait for the turn of one without?
    pub(super) fn awaits_turn(&self) -> bool {
        let awaits = |turn| self.awaited.contains(turn) && !self.eligible.contains(turn);
        self.turn.is_some_and(awaits) && !self.eligible.is_empty()
    }

    /// Takes down whether the position has room, and whether it is waited for when it has none.
    pub(super) fn mark(&mut self, position: Position, room: bool, awaited: bool) {
        mark(&mut self.eligible, position, room);
        mark(&mut self.awaited, position, room || awaited);
    }
}

fn mark(set: &mut PositionSet, position: Position, belongs: bool) {
    if belongs {
        set.insert(position);
    } else {
        set.remove(position);
    }
}
