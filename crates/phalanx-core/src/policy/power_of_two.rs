//! Power of two choices: the better of two random positions.

use super::{Field, Policy};
use crate::ids::Position;
use crate::rng::SplitMix64;

/// Draws two different positions and picks the one with fewer open connections, the first if they
/// have the same. Nearly as even as comparing all (Mitzenmacher, "The power of two choices in
/// randomized load balancing", 1996), at a cost that does not grow with their number, and without
/// sending everyone to the one that looked best a moment ago.
#[derive(Debug)]
pub struct PowerOfTwo {
    rng: SplitMix64,
}

impl PowerOfTwo {
    /// One that draws by this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SplitMix64::new(seed),
        }
    }

    /// Two different indices below `count`; the same one twice if it is 1.
    pub(super) fn draw(&mut self, count: u32) -> (u32, u32) {
        let first = self.rng.below(count);
        let other = self.rng.below(count.saturating_sub(1));
        let second = if other < first || count < 2 {
            other
        } else {
            other + 1
        };
        (first, second)
    }
}

impl Policy for PowerOfTwo {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let count = field.eligible.len();
        if count == 0 {
            return None;
        }
        let (first, second) = self.draw(count);
        let first = field.eligible.nth(first)?;
        let second = field.eligible.nth(second)?;
        let open = |position| field.loads.load(position).open;
        Some(if open(second) < open(first) {
            second
        } else {
            first
        })
    }
}
