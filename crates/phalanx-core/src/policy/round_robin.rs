//! Round robin: the next position in turn.

use super::{Field, Policy};
use crate::ids::Position;

/// Takes turns in the order of positions. A position that may have nothing now is passed over and
/// keeps no claim to the turns it missed, so one that was slow gets no burst afterwards.
#[derive(Debug, Default)]
pub struct RoundRobin {
    last: Option<Position>,
}

impl Policy for RoundRobin {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let chosen = field.eligible.after(self.last)?;
        self.last = Some(chosen);
        Some(chosen)
    }
}
