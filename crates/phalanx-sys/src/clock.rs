//! The one place that reads the clock, so that everything else can be given its time.

use std::time::Instant;

/// The present moment on the monotonic clock (`CLOCK_MONOTONIC`, `clock_gettime(2)`).
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the function that the ban points to"
)]
pub fn now() -> Instant {
    Instant::now()
}
