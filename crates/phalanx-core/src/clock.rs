//! The primary's run-time: a clock that stands still while the primary does not run.
//!
//! A primary that is stopped, frozen or starved of the processor hears nothing, though its workers say
//! all they should. A limit that ran out meanwhile proves nothing about a worker. So limits on workers
//! are [`Moment`]s of this clock. It is read every [`TICK`]; a reading that comes more than [`GAP`]
//! after the one before shows that the primary did not run, and that time does not count. For
//! [`SETTLE`] after it the clock stands still as well: what has arrived is read before anybody is judged.
//!
//! The machine is pure: it is told the real time, and says what time has been run.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The clock is read at least so often while the primary runs.
pub const TICK: Duration = Duration::from_millis(200);
/// Between two readings further apart than this, the primary did not run.
pub const GAP: Duration = Duration::from_millis(500);
/// How long the clock stands still after a gap.
pub const SETTLE: Duration = Duration::from_millis(500);

/// A moment of the primary's run-time, counted from the clock's beginning.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Moment(Duration);

impl Moment {
    /// The moment so long after the clock's beginning.
    #[must_use]
    pub const fn after(start: Duration) -> Self {
        Self(start)
    }

    /// How long the primary has run since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates: a limit of centuries is none.
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunClock {
    /// The real time of the last reading.
    seen: Duration,
    run: Duration,
    /// The clock stands still until this real time.
    still_until: Duration,
}

/// What a reading says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// The present moment.
    pub now: Moment,
    /// How long the primary had not run before this reading; nothing when it ran.
    pub gap: Option<Duration>,
}

impl RunClock {
    /// A clock that begins now, at the real time `real`.
    #[must_use]
    pub const fn new(real: Duration) -> Self {
        Self {
            seen: real,
            run: Duration::ZERO,
            still_until: Duration::ZERO,
        }
    }

    /// Reads the clock at the real time `real`.
    pub fn read(&mut self, real: Duration) -> Reading {
        let passed = real.saturating_sub(self.seen);
        let gap = (passed > GAP).then_some(passed);
        if gap.is_some() {
            // One gap soon after another is a starved machine rather than a stop. There, some time has
            // to count, or no limit would ever be reached.
            if self.seen < self.still_until {
                self.run += TICK;
            }
            self.still_until = real + SETTLE;
        } else {
            self.run += real.saturating_sub(self.seen.max(self.still_until));
        }
        self.seen = self.seen.max(real);
        Reading {
            now: Moment(self.run),
            gap,
        }
    }

    /// How long it takes from the last reading until `moment` if there is no further gap.
    #[must_use]
    pub fn left(&self, moment: Moment) -> Duration {
        let left = moment.since(Moment(self.run));
        if left.is_zero() {
            return left;
        }
        left.saturating_add(self.still_until.saturating_sub(self.seen))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Reads the clock every [`TICK`] for so long.
    fn run_for(clock: &mut RunClock, real: &mut Duration, time: Duration) -> Moment {
        let end = *real + time;
        while *real < end {
            *real = (*real + TICK).min(end);
            clock.read(*real);
        }
        clock.read(*real).now
    }

    #[test]
    fn time_that_is_run_counts() {
        let mut real = SECOND;
        let mut clock = RunClock::new(real);
        let now = run_for(&mut clock, &mut real, SECOND * 60);
        assert_eq!(now, Moment::after(SECOND * 60));
    }

    #[test]
    fn a_pause_and_the_moment_after_it_do_not_count() {
        for pause in [GAP * 2, SECOND * 60, SECOND * 86_400] {
            let mut real = SECOND;
            let mut clock = RunClock::new(real);
            let before = run_for(&mut clock, &mut real, SECOND);
            let limit = before + TICK;
            real += pause;
            let reading = clock.read(real);
            assert_eq!(reading.now, before);
            assert_eq!(reading.gap, Some(pause));
            assert_eq!(clock.left(limit), SETTLE + TICK);
            let settled = run_for(&mut clock, &mut real, SETTLE);
            assert_eq!(settled, before);
            assert_eq!(run_for(&mut clock, &mut real, TICK), limit);
            assert_eq!(clock.left(limit), Duration::ZERO);
        }
    }

    #[test]
    fn on_a_starved_machine_limits_are_reached_nevertheless() {
        let mut real = SECOND;
        let mut clock = RunClock::new(real);
        for _ in 0..100 {
            real += GAP + TICK;
            clock.read(real);
        }
        assert!(clock.read(real).now >= Moment::after(TICK * 99));
    }

    proptest! {
        #[test]
        fn it_never_goes_back_nor_faster_than_real_time(
            steps in proptest::collection::vec(0_u64..2_000, 1..200),
        ) {
            let mut real = SECOND;
            let mut clock = RunClock::new(real);
            let mut before = clock.read(real).now;
            for step in steps {
                let step = Duration::from_millis(step);
                real += step;
                let now = clock.read(real).now;
                prop_assert!(now >= before);
                prop_assert!(now - before <= step);
                before = now;
            }
        }

        #[test]
        fn who_waits_what_is_left_has_waited_long_enough(
            pause in 0_u64..5_000,
            limit in 1_u64..5_000,
        ) {
            let mut real = SECOND;
            let mut clock = RunClock::new(real);
            let limit = clock.read(real).now + Duration::from_millis(limit);
            real += Duration::from_millis(pause);
            clock.read(real);
            let left = clock.left(limit);
            run_for(&mut clock, &mut real, left);
            prop_assert!(clock.read(real).now >= limit);
        }
    }
}
