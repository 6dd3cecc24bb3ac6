//! What the kernel program is given to carry out a policy: the turns of the eligible positions.
//!
//! The primary makes a plan anew whenever eligibility, policy or weights change, and the program
//! switches to it with one store. Between two plans the program needs nobody: its choice is a
//! step in a list, at the same cost for 2 positions and for 256.

use super::order::Order;
use super::{POSITIONS_MAX, PolicyName, PositionSet, Weights};
use crate::ids::Position;

/// A plan has at most this many turns: enough for any weights and any number of positions.
pub const ORDER_MAX: usize = 16_384;

const _: () = assert!(
    ORDER_MAX as u64 >= super::WEIGHTS_TOTAL_MAX as u64 + POSITIONS_MAX as u64,
    "weights that are listed, and weight 1 for everyone who is not"
);

/// The turns of the eligible positions under a policy: for `weighted`, each as often in a round as
/// it weighs; for all others, once, ascending.
#[derive(Clone, Debug)]
pub struct Plan {
    policy: PolicyName,
    weights: Weights,
    order: Order,
    /// The turn in `order` that each entry of `turns` is.
    origin: Vec<usize>,
    turns: Vec<u16>,
    start: u32,
    eligible: PositionSet,
}

impl Plan {
    /// A plan in which nobody is eligible yet. `weights` matter to `weighted` alone.
    #[must_use]
    pub fn new(policy: PolicyName, weights: Weights) -> Self {
        Self {
            policy,
            order: Order::new(in_effect(policy, &weights)),
            weights,
            origin: Vec::new(),
            turns: Vec::new(),
            start: 0,
            eligible: PositionSet::new(),
        }
    }

    /// Makes the plan for these eligible positions. `last` is the program's latest turn, as an
    /// index into [`Plan::turns`]: turns go on behind it.
    pub fn set_eligible(&mut self, eligible: &PositionSet, last: Option<u32>) {
        self.note(last);
        self.eligible = eligible.clone();
        self.order.cover(eligible);
        self.make();
    }

    /// Makes the plan for another policy or other weights, as [`Plan::set_eligible`] does.
    pub fn set_policy(&mut self, policy: PolicyName, weights: Weights, last: Option<u32>) {
        self.note(last);
        let kept = in_effect(policy, &weights);
        if kept != in_effect(self.policy, &self.weights) {
            self.order = Order::new(kept);
        }
        (self.policy, self.weights) = (policy, weights);
        self.order.cover(&self.eligible);
        self.make();
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> PolicyName {
        self.policy
    }

    /// The weights that were set, whether or not the policy goes by them.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The eligible positions.
    #[must_use]
    pub fn eligible(&self) -> &PositionSet {
        &self.eligible
    }

    /// The positions in turn, at most [`ORDER_MAX`].
    #[must_use]
    pub fn turns(&self) -> &[u16] {
        &self.turns
    }

    /// The index of the turn to begin with.
    #[must_use]
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Takes down where the program has got to.
    fn note(&mut self, last: Option<u32>) {
        let turn = last
            .and_then(|last| usize::try_from(last).ok())
            .and_then(|last| self.origin.get(last));
        if let Some(&turn) = turn {
            self.order.set_last(turn);
        }
    }

    fn make(&mut self) {
        let mut turns: Vec<usize> = self.order.following(&self.eligible).collect();
        // The list stays sorted and the start moves: positions of a list are looked up by rank too.
        let start = turns.first().copied();
        turns.sort_unstable();
        let start = start.and_then(|start| turns.binary_search(&start).ok());
        self.start = start
            .and_then(|start| u32::try_from(start).ok())
            .unwrap_or(0);
        let number = |position: Position| u16::try_from(position.0).ok();
        self.turns = turns
            .iter()
            .filter_map(|&turn| self.order.position(turn).and_then(number))
            .collect();
        self.origin = turns;
    }
}

fn in_effect(policy: PolicyName, weights: &Weights) -> Weights {
    if policy == PolicyName::Weighted {
        weights.clone()
    } else {
        Weights::default()
    }
}
