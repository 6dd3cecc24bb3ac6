//! The size of a fleet that has one worker for each processor that its primary may use (`auto`): how many these are can change
//! while it runs, as with the CPU quota of a container.

use super::elastic::{Resize, ResizeReason};

/// Follows the number of processors. A size that somebody set otherwise stays until it is that number again.
#[derive(Clone, Debug)]
pub struct CoreCount {
    /// The size that is followed.
    known: u32,
    /// The size that was asked for last, and that the fleet may have by now.
    asked: Option<u32>,
}

impl CoreCount {
    /// One that has seen this number.
    #[must_use]
    pub fn new(cores: u32) -> Self {
        Self {
            known: cores,
            asked: None,
        }
    }

    /// Takes in the number of processors now, and the size of the fleet, and says which size is better. The same is said
    /// again until the fleet has that size: it may have been busy.
    pub fn look(&mut self, cores: u32, target: u32) -> Option<Resize> {
        if self.asked.take() == Some(target) {
            self.known = target;
        }
        if target != self.known || cores == self.known {
            self.known = cores;
            return None;
        }
        self.asked = Some(cores);
        Some(Resize {
            to: cores,
            why: ResizeReason::Cores { cores },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_number_is_asked_for_until_it_is_the_size() {
        let mut count = CoreCount::new(4);
        assert_eq!(count.look(4, 4), None);
        let smaller = count.look(2, 4);
        assert_eq!(smaller.map(|resize| resize.to), Some(2));
        assert_eq!(count.look(2, 4), smaller);
        assert_eq!(count.look(2, 2), None);
        assert_eq!(count.look(3, 2).map(|resize| resize.to), Some(3));
    }

    #[test]
    fn a_number_that_changes_again_at_once_is_followed() {
        let mut count = CoreCount::new(2);
        assert_eq!(count.look(1, 2).map(|resize| resize.to), Some(1));
        assert_eq!(count.look(2, 1).map(|resize| resize.to), Some(2));
        assert_eq!(count.look(2, 2), None);
    }

    #[test]
    fn a_size_that_somebody_set_stays() {
        let mut count = CoreCount::new(4);
        for cores in [2, 8, 1] {
            assert_eq!(count.look(cores, 6), None);
        }
        // He sets what there is: it is followed again.
        assert_eq!(count.look(1, 1), None);
        assert_eq!(count.look(2, 1).map(|resize| resize.to), Some(2));
    }
}
