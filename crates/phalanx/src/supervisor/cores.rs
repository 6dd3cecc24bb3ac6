//! Looks how many processors may be used, where the app has one worker for each. Which size that asks for is decided by
//! `phalanx-core/src/fleet/cores.rs`.

use std::time::Duration;

use phalanx_core::fleet::{CoreCount, Event, FleetPhase, FleetView};

use super::pulse::Pulse;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is known of the processors.
#[derive(Debug)]
pub(super) struct CoresWatch {
    count: Option<CoreCount>,
    pulse: Pulse,
}

impl CoresWatch {
    /// One that follows from this size on, if it is to follow at all.
    pub(super) fn new(follows: bool, workers: u32) -> Self {
        Self {
            count: follows.then(|| CoreCount::new(workers)),
            pulse: Pulse::new(INTERVAL, follows),
        }
    }

    /// Waits for the next look; for ever where the size is fixed.
    pub(super) async fn is_due(&self) {
        self.pulse.is_due().await;
    }

    /// Looks, when nothing else changes the size.
    pub(super) fn look(&mut self, view: &FleetView) -> Option<Event> {
        self.pulse.begin();
        if view.phase != FleetPhase::Running || view.rollout.is_some() {
            return None;
        }
        let cores = phalanx_sys::cpu::usable_cores().get();
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        let resize = self.count.as_mut()?.look(cores, view.target)?;
        Some(Event::Resize(resize))
    }
}
