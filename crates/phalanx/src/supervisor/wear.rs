//! Looks once a second which workers are worn out. What wears one out is decided by `phalanx-core/src/fleet/wear.rs`.

use std::collections::HashMap;
use std::time::Duration;

use phalanx_core::fleet::{Event, FleetView, WearGauge, WearLimits, WearSample, WorkerState};
use phalanx_core::ids::{Position, WorkerId};

use super::process_families::Families;
use super::pulse::Pulse;
use crate::primary::Cluster;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is known of the workers' wear.
#[derive(Debug)]
pub(super) struct WearWatch {
    limits: WearLimits,
    gauges: HashMap<WorkerId, WearGauge>,
    families: Families,
    pulse: Pulse,
}

impl WearWatch {
    pub(super) fn new(limits: WearLimits, cluster: &Cluster) -> Self {
        cluster.count_answers(limits.max_requests.is_some());
        Self {
            limits,
            gauges: HashMap::new(),
            families: Families::default(),
            pulse: Pulse::new(INTERVAL, limits.is_any()),
        }
    }

    /// Waits for the next look; for ever where there are no limits.
    pub(super) async fn is_due(&self) {
        self.pulse.is_due().await;
    }

    /// A spare does nothing by which it would be worn out, but may leak.
    fn limits_of(&self, state: WorkerState, position: Position, target: u32) -> WearLimits {
        if state == WorkerState::Spare {
            return WearLimits {
                max_memory: self.limits.max_memory,
                ..WearLimits::default()
            };
        }
        self.limits.at(position, target)
    }

    /// Looks at all workers that serve, and at the spares. `now` is as the fleet counts it.
    pub(super) fn look(
        &mut self,
        cluster: &Cluster,
        view: &FleetView,
        now: Duration,
    ) -> Vec<Event> {
        self.pulse.begin();
        let mut gauges = std::mem::take(&mut self.gauges);
        let mut worn = Vec::new();
        let mut families = Vec::new();
        let is_watched = |state| matches!(state, WorkerState::Ready | WorkerState::Spare);
        for seen in view.workers.iter().filter(|seen| is_watched(seen.state)) {
            let Some(worker) = cluster.worker(seen.worker) else {
                continue;
            };
            let sample = WearSample {
                memory: self.limits.max_memory.and_then(|_| {
                    let together = self.families.taken_by(seen.worker);
                    worker.memory_bytes().max(together)
                }),
                age: now.saturating_sub(seen.since),
                requests: cluster.answered(seen.worker),
            };
            let mut gauge = gauges.remove(&seen.worker).unwrap_or_default();
            let limits = self.limits_of(seen.state, seen.position, view.target);
            if let Some(wear) = gauge.look(&sample, &limits) {
                let worker = seen.worker;
                worn.push(Event::Worn { worker, wear });
            }
            self.gauges.insert(seen.worker, gauge);
            if worker.has_started_something() {
                families.push((seen.worker, worker.process_id()));
            }
        }
        if self.limits.max_memory.is_some() {
            self.families.look(families);
        }
        worn
    }
}
