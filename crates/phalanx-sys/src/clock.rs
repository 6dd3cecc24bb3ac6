//! The one place that reads the clock, so that everything else can be given its time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The present moment on the monotonic clock (`CLOCK_MONOTONIC`, `clock_gettime(2)`).
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the function that the ban points to"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits. For what no descriptor tells, in a process that does nothing else meanwhile.
pub fn pause(time: Duration) {
    if let Ok(time) = rustix::time::Timespec::try_from(time) {
        // Interrupted, it is short; who calls looks again anyway.
        let _early = rustix::event::poll(&mut [], Some(&time));
    }
}

/// How far [`coarse`] may be behind: a tick of the kernel, at 100 of them a second.
pub const COARSENESS: Duration = Duration::from_millis(10);

/// The time since boot as of the kernel's last tick (`CLOCK_MONOTONIC_COARSE`, `clock_gettime(2)`): up to
/// [`COARSENESS`] late, and several times cheaper to read than [`now`].
#[must_use]
pub fn coarse() -> Duration {
    Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).unwrap_or_default()
}

/// For how long this process has been on a processor, all its threads together (`CLOCK_PROCESS_CPUTIME_ID`,
/// `clock_gettime(2)`).
#[must_use]
pub fn busy() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
