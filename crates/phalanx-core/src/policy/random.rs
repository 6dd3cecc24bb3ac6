//! Random: every eligible position is as likely as any other.

use super::{Field, Policy};
use crate::ids::Position;
use crate::rng::SplitMix64;

/// Draws a position. Even over many connections, and without memory of any.
#[derive(Debug)]
pub struct Random {
    rng: SplitMix64,
}

impl Random {
    /// One that draws by this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SplitMix64::new(seed),
        }
    }
}

impl Policy for Random {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let count = field.eligible.len();
        if count == 0 {
            return None;
        }
        field.eligible.nth(self.rng.below(count))
    }
}
