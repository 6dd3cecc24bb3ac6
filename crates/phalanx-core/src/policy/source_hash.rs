//! Source hash: every client keeps its position.

use super::{Field, Policy};
use crate::ids::Position;
use crate::rng::SplitMix64;

/// So many positions are tried for a client before those that are left share what remains. With
/// half of all positions out, one client in 256 gets that far.
const ATTEMPTS: u32 = 8;

/// The kernel program needs a bound that it can count to. With as many positions as there can be,
/// one client in a thousand million gets that far; it stays where it is then.
const STEPS: u32 = 32;

/// By the client's address, so that it comes back to the same position. Since that is a position,
/// not a worker, a reload moves nobody. A position more or fewer moves as few clients as can be:
/// those that the new one takes, or the old one had. While a position is out, its clients alone move.
#[derive(Debug, Default)]
pub struct SourceHash;

impl Policy for SourceHash {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let count = field.eligible.len();
        if count == 0 {
            return None;
        }
        let mut keys = SplitMix64::new(field.client.0);
        let span = field.eligible.span();
        let mut homes = (0..ATTEMPTS).map(|_| Position(jump(keys.next_u64(), span)));
        let home = homes.find(|&position| field.eligible.contains(position));
        home.or_else(|| {
            let index = field.client.0 % u64::from(count);
            field.eligible.nth(u32::try_from(index).ok()?)
        })
    }
}

/// The bucket of `key` among `buckets` (Lamping, Veach: "A fast, minimal memory, consistent hash
/// algorithm", 2014), with a division of whole numbers in place of one of fractions. From N to N + 1
/// buckets, a key either stays or moves to the new one.
fn jump(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0, 0_u64);
    for _ in 0..STEPS {
        if next >= u64::from(buckets) {
            break;
        }
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) << 31) / ((key >> 33) + 1);
    }
    u32::try_from(bucket).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_or_moves_to_the_new_bucket() {
        for seed in 0..2_000 {
            let key = SplitMix64::new(seed).next_u64();
            for buckets in 1..200 {
                let (before, after) = (jump(key, buckets), jump(key, buckets + 1));
                assert!(before < buckets);
                assert!(after == before || after == buckets, "key {key:#x}");
            }
        }
    }

    #[test]
    fn keys_are_spread_evenly() {
        for buckets in [2_u32, 7, 64] {
            let mut counts = vec![0_u32; usize::try_from(buckets).unwrap()];
            let total = 20_000 * buckets;
            for seed in 0..total {
                let key = SplitMix64::new(u64::from(seed)).next_u64();
                counts[usize::try_from(jump(key, buckets)).unwrap()] += 1;
            }
            // Five standard deviations of a fair draw.
            let off = counts.iter().map(|count| count.abs_diff(20_000)).max();
            assert!(off < Some(707), "{counts:?}");
        }
    }
}
