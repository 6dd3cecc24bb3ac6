//! Least connections: where the fewest are open.

use super::load::cheapest;
use super::{Field, Policy};
use crate::ids::Position;

/// Picks the position with the fewest open connections; among equals, the next in turn. Good where
/// connections last long or cost unequally much.
#[derive(Debug, Default)]
pub struct LeastConnections {
    last: Option<Position>,
}

impl Policy for LeastConnections {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let open = |position| u64::from(field.loads.load(position).open);
        let chosen = cheapest(field.eligible, self.last, open)?;
        self.last = Some(chosen);
        Some(chosen)
    }
}
