//! How often it is told that one worker misbehaves: the first times each, then a few a second with the
//! count of what was left out. Telling must not cost more than the misbehaviour itself.

use std::time::Duration;

/// Told in a row before any are left out.
pub const BURST: u32 = 32;
/// After so long one more may be told.
pub const PERIOD: Duration = Duration::from_millis(200);

/// The complaints about one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints {
    allowance: u32,
    since: Duration,
    left_out: u64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            allowance: BURST,
            since: Duration::ZERO,
            left_out: 0,
        }
    }
}

impl Complaints {
    /// There is something to complain of. Answers with how many were left out before it, or with nothing
    /// when this one is left out too. `now` is measured from any fixed moment.
    pub fn another(&mut self, now: Duration) -> Option<u64> {
        let periods = now.saturating_sub(self.since).as_nanos() / PERIOD.as_nanos();
        if periods > 0 {
            let more = u32::try_from(periods).unwrap_or(u32::MAX);
            self.allowance = self.allowance.saturating_add(more).min(BURST);
            self.since = now;
        }
        if let Some(rest) = self.allowance.checked_sub(1) {
            self.allowance = rest;
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }

    /// What was left out and not told yet; it counts as told from now on.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_then_a_few_a_second_and_nothing_is_forgotten() {
        let mut complaints = Complaints::default();
        let (mut told, mut left_out, mut most) = (0_u64, 0_u64, 0);
        for step in 0..100_000_u64 {
            // 100,000 in 10 s.
            if let Some(before) = complaints.another(Duration::from_micros(step * 100)) {
                told += 1;
                left_out += before;
                most = most.max(before);
            }
        }
        assert!(told <= u64::from(BURST) + 51, "{told}");
        assert!(most >= 1_900, "{most}");
        left_out += complaints.take_left_out();
        assert_eq!(told + left_out, 100_000);
        assert_eq!(complaints.take_left_out(), 0);
    }

    #[test]
    fn after_a_quiet_time_all_are_told_again() {
        let mut complaints = Complaints::default();
        while complaints.another(Duration::ZERO).is_some() {}
        let later = PERIOD * BURST;
        for _ in 0..BURST {
            assert!(complaints.another(later).is_some());
        }
        assert_eq!(complaints.another(later), None);
    }
}
