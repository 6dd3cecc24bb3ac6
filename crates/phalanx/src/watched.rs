//! Descriptors on the runtime's poller.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

/// What may be watched: it owns its descriptor, and never closes or changes it while it lives.
pub(crate) trait Watchable: AsRawFd {}

impl Watchable for OwnedFd {}
impl Watchable for Arc<OwnedFd> {}

/// Watches a non-blocking descriptor for readiness.
///
/// # Errors
/// As `epoll_ctl(2)`.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that could be closed while watched; an OwnedFd cannot be"
)]
pub(crate) fn watch<T: Watchable>(descriptor: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(descriptor)
}
