//! Weighted: in proportion to weights, smoothly interleaved.

use super::order::Order;
use super::{Field, Policy, Weights};
use crate::ids::Position;

/// Takes turns as [`super::RoundRobin`] does, but each position as often in a round as it weighs,
/// and never a whole turn ahead or behind. One with weight 0 gets nothing.
#[derive(Debug)]
pub struct Weighted {
    order: Order,
}

impl Weighted {
    /// One with these weights.
    #[must_use]
    pub fn new(weights: Weights) -> Self {
        Self {
            order: Order::new(weights),
        }
    }
}

impl Policy for Weighted {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        self.order.cover(field.eligible);
        self.order.step(field.eligible)
    }

    fn keeps_turns(&self) -> bool {
        true
    }
}
