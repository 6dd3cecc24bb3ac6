//! Looks once a second how busy the workers are, where the size follows the load: their event loops, where these tell, else their use of
//! processors. Which size that asks for is decided
//! by `phalanx-core/src/fleet/elastic.rs`.

use std::collections::HashMap;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::fleet::{
    Elastic, ElasticRange, ElasticSample, Event, FleetPhase, FleetView, WorkerState,
};
use phalanx_core::ids::WorkerId;

use super::pulse::Pulse;
use crate::primary::{Cluster, clock};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is known of the workers' load.
#[derive(Debug)]
pub(super) struct ElasticWatch {
    elastic: Option<Elastic>,
    /// The processor time that each had used, and when.
    used: HashMap<WorkerId, (Moment, Duration)>,
    pulse: Pulse,
}

impl ElasticWatch {
    pub(super) fn new(range: Option<ElasticRange>, cluster: &Cluster) -> Self {
        if range.is_some() {
            cluster.watch_loops();
        }
        Self {
            elastic: range.map(Elastic::new),
            used: HashMap::new(),
            pulse: Pulse::new(INTERVAL, range.is_some()),
        }
    }

    /// Waits for the next look; for ever where the size is fixed.
    pub(super) async fn is_due(&self) {
        self.pulse.is_due().await;
    }

    /// Looks at all workers that serve. `now` is as the fleet counts it.
    pub(super) fn look(
        &mut self,
        cluster: &Cluster,
        view: &FleetView,
        now: Duration,
    ) -> Option<Event> {
        self.pulse.begin();
        let before = std::mem::take(&mut self.used);
        let (mut busy, mut largest) = (Vec::new(), 0);
        let ready = |state| state == WorkerState::Ready;
        for seen in view.workers.iter().filter(|seen| ready(seen.state)) {
            let Some(worker) = cluster.worker(seen.worker) else {
                continue;
            };
            let Some(used) = worker.cpu_time() else {
                continue;
            };
            let at = clock::now();
            if let Some((then, used_then)) = before.get(&seen.worker) {
                let span = (at - *then).as_micros().max(1);
                let part = used.saturating_sub(*used_then).as_micros() * 1000 / span;
                let part = u32::try_from(part).unwrap_or(1000);
                // An event loop that waits for a processor is as busy as one that has it.
                let part = cluster.loop_busy(seen.worker).unwrap_or(part);
                // Whoever lets others wait is as busy as can be, whatever it does.
                let waits = cluster.waiting(seen.worker) > 0;
                let part = if waits { 1000 } else { part.min(1000) };
                busy.push(part);
            }
            self.used.insert(seen.worker, (at, used));
            largest = largest.max(worker.memory_bytes().unwrap_or(0));
        }
        let is_at_rest = view.phase == FleetPhase::Running && view.rollout.is_none();
        let is_full = u32::try_from(busy.len()) == Ok(view.target) && view.target > 0;
        if !(is_at_rest && is_full) {
            return None;
        }
        let quota = phalanx_sys::cpu::quota_of_this_process();
        let sample = ElasticSample {
            busy: busy.iter().sum::<u32>() / view.target,
            target: view.target,
            quota: quota.and_then(|cores| u32::try_from(cores.get()).ok()),
            memory: phalanx_sys::memory::left_bytes().map(|left| (left, largest)),
        };
        let resize = self.elastic.as_mut()?.look(&sample, now)?;
        Some(Event::Resize(resize))
    }
}
