//! Waiting with a deadline.
//!
//! This is the only module that lets time pass. What can be waited for as an event (a pidfd, a
//! captured line, a socket) is; a condition that has no event is polled by [`eventually`].

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a test waits for what should happen soon. Generous: machines that run tests are slow
/// and busy, and waiting costs nothing when things go right.
pub const LIMIT: Duration = Duration::from_mins(1);

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The present moment of the test's own clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the kit measures real processes; nothing here is simulated"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// The moment until which something must have happened. A [`Duration`] converts into one,
/// counted from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `limit` from now.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self(now() + limit)
    }

    /// What is left; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of the two.
    #[must_use]
    pub fn or_before(self, other: Self) -> Self {
        self.min(other)
    }

    /// Panics with `what` when the deadline has passed.
    #[track_caller]
    pub fn check(self, what: &dyn fmt::Display) {
        assert!(!self.has_passed(), "deadline passed: {what}");
    }
}

impl From<Duration> for Deadline {
    fn from(limit: Duration) -> Self {
        Self::after(limit)
    }
}

/// Asks `probe` until it answers `Some`; panics with `what` at the deadline.
#[track_caller]
pub fn eventually<T>(
    deadline: impl Into<Deadline>,
    what: &str,
    probe: impl FnMut() -> Option<T>,
) -> T {
    match try_eventually(deadline, probe) {
        Some(value) => value,
        None => panic!("deadline passed: {what}"),
    }
}

/// Asks `probe` until it answers `Some`; `None` at the deadline. The probe runs at least once, and
/// once more after the deadline, so that a late wake-up does not fail a condition that holds.
pub fn try_eventually<T>(
    deadline: impl Into<Deadline>,
    mut probe: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = deadline.into();
    let mut pause = FIRST_PAUSE;
    loop {
        let last = deadline.has_passed();
        if let Some(value) = probe() {
            return Some(value);
        }
        if last {
            return None;
        }
        pause_for(pause.min(deadline.remaining()));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until `fd` is readable (for a pidfd: its process has exited); `false` at the deadline.
#[must_use]
pub fn readable(fd: BorrowedFd<'_>, deadline: impl Into<Deadline>) -> bool {
    let deadline = deadline.into();
    loop {
        let left = timespec(deadline.remaining());
        let mut watched = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut watched, Some(&left)) {
            Ok(0) if deadline.has_passed() => return false,
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return true,
            Err(error) => panic!("poll(2) on {fd:?}: {error}"),
        }
    }
}

/// poll(2) on nothing: the pause between two probes.
fn pause_for(pause: Duration) {
    // An early return by a signal only makes the next probe come sooner.
    poll(&mut [], Some(&timespec(pause))).ok();
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).expect("limits of tests fit a timespec")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_seen() {
        let mut asked = 0;
        let answer = eventually(LIMIT, "the third answer", || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(answer, 3);
    }

    #[test]
    fn a_condition_that_never_holds_ends_at_the_deadline() {
        let began = now();
        let limit = Duration::from_millis(30);
        assert_eq!(try_eventually(limit, || None::<()>), None);
        assert!(began.elapsed() >= limit);
    }

    #[test]
    fn an_expired_deadline_still_probes_once() {
        assert_eq!(try_eventually(Duration::ZERO, || Some(7)), Some(7));
    }
}
