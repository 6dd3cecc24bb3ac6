//! Chance for rests and masks: different for each client, the same in each drill.

/// A sequence of numbers without a visible order (`SplitMix64`).
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0 if that is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // The bias of the remainder is below 2^-32 for every range used here.
        self.roll().checked_rem(end).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_into_the_range_and_everywhere_in_it() {
        let mut rng = Rng::new(1);
        let mut seen = [0_u32; 10];
        for _ in 0..1_000 {
            seen[usize::try_from(rng.below(10)).unwrap()] += 1;
        }
        assert!(
            seen.iter().all(|count| (50..200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(rng.below(0), 0);
        assert_ne!(Rng::new(1).roll(), Rng::new(2).roll());
    }
}
