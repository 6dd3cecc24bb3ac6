//! What is kept of one socket of a group.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::burst_detector::BurstDetector;
use super::pulse::Pulse;
use super::steer::Name;

/// One socket of the group, and what is seen of it.
#[derive(Debug)]
pub(super) struct SlotSocket {
    pub(super) socket: Arc<OwnedFd>,
    pub(super) name: Name,
    /// What the position had received when its holder began.
    pub(super) base_count: u64,
    pub(super) pulse: Pulse,
    pub(super) burst: BurstDetector,
    /// How often what waited in it has moved to others.
    pub(super) emptied: u64,
    /// Its holder takes no more connections for now.
    pub(super) is_full: bool,
}

impl SlotSocket {
    pub(super) fn new(socket: Arc<OwnedFd>, name: Name) -> Self {
        Self {
            socket,
            name,
            base_count: 0,
            emptied: 0,
            pulse: Pulse::new(),
            burst: BurstDetector::default(),
            is_full: false,
        }
    }

    /// Another worker has it now; the position had received that much by then.
    pub(super) fn renew(&mut self, base_count: u64) {
        self.base_count = base_count;
        self.pulse = Pulse::new();
        self.burst = BurstDetector::default();
        self.is_full = false;
    }
}
