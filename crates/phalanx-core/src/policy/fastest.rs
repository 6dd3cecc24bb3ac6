//! Fastest: where an answer can be expected first.

use super::load::cheapest;
use super::{Field, Policy};
use crate::ids::Position;

/// Picks the lowest peak-EWMA response time × (outstanding + 1): see [`super::Load::score`]. Among
/// equals, the next in turn.
#[derive(Debug, Default)]
pub struct Fastest {
    last: Option<Position>,
}

impl Policy for Fastest {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let score = |position| field.loads.load(position).score();
        let chosen = cheapest(field.eligible, self.last, score)?;
        self.last = Some(chosen);
        Some(chosen)
    }
}
