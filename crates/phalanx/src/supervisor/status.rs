//! What an app tells of itself when it is asked for its status.

use std::time::Duration;

use phalanx_control::api::{
    Adoption, Dispatch, HealthState, RecycledStatus, Status, VacancyStatus, WorkerStatus,
};
use phalanx_core::fleet::WorkerView;

use super::control::Control;
use super::totals;
use crate::primary::Worker;

impl Control {
    fn worker_status(&self, worker: &WorkerView, now: Duration) -> WorkerStatus {
        let id = worker.worker;
        let load = self.cluster().load(id);
        let process = self.cluster().worker(id);
        let condition = self.cluster().condition(id);
        let lag = self.cluster().loop_lag(id);
        WorkerStatus {
            id,
            position: worker.position,
            generation: worker.generation,
            pid: process.as_ref().map(Worker::pid),
            memory_bytes: process.and_then(|process| process.memory_bytes()),
            recycled: worker.recycled.map(|recycled| RecycledStatus {
                ago_ms: millis(now.saturating_sub(recycled.at)),
                why: recycled.wear.to_string(),
            }),
            state: worker.state.into(),
            says: self.cluster().says(id),
            stuck_ms: self.cluster().stuck_for(id).map(millis),
            health: condition.as_ref().map(|one| HealthState::from(one.state)),
            health_ms: condition.as_ref().map(|one| millis(one.lasts)),
            health_why: condition.map(|one| one.why),
            loop_lag_us: lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)),
            ready_at: self.shared().ready_at(id),
            restarts: worker.restarts,
            connections: self.cluster().connections(id),
            requests: self.cluster().answered(id),
            share: None,
            open: load.map(|load| load.open),
            response_us: load.map(|load| load.response_us).filter(|&time| time > 0),
        }
    }

    /// The app's state, now.
    #[must_use]
    pub fn status(&self) -> Status {
        let view = self.view();
        let listeners = self.cluster().listener_status();
        let dispatch = listeners
            .first()
            .map_or(Dispatch::Auto, |listener| listener.dispatch.clone());
        let now = self.shared().now();
        let workers = view
            .workers
            .iter()
            .map(|worker| self.worker_status(worker, now));
        let vacancies = view.vacancies.iter().map(|vacancy| VacancyStatus {
            position: vacancy.position,
            restarts: vacancy.restarts,
            retry_in_ms: vacancy.retry_at.map(|at| millis(at.saturating_sub(now))),
            crash_loop: vacancy.crash_loop,
        });
        let workers = with_shares(workers.collect());
        let positions = totals::by_position(&self.cluster().figures(), &workers);
        Status {
            name: self.shared().name.clone(),
            pid: std::process::id(),
            policy: self.cluster().policy_text().as_str().into(),
            weights: self.cluster().weights_text(),
            dispatch,
            adoption: Some(Adoption::from(self.cluster().settings().adoption.as_str())),
            target: view.target,
            spares: view.spares,
            generation: view.generation,
            previous: view.previous,
            reloading: view.rollout.is_some(),
            watching: view.rollout.is_some_and(|rollout| rollout.watching),
            stopping: self.is_leaving()
                || matches!(
                    view.phase,
                    phalanx_core::fleet::FleetPhase::Stopping
                        | phalanx_core::fleet::FleetPhase::Finished
                ),
            listeners,
            unseen: self.cluster().unseen_count(),
            workers,
            totals: totals::of(&positions),
            positions,
            primary: self.shared().measured.status(self.cluster()),
            vacancies: vacancies.collect(),
            outputs: self
                .shared()
                .outputs
                .as_ref()
                .map(|states| states())
                .unwrap_or_default(),
        }
    }
}

/// Fills in each worker's part of the connections.
fn with_shares(mut workers: Vec<WorkerStatus>) -> Vec<WorkerStatus> {
    let all: u64 = workers.iter().filter_map(|worker| worker.connections).sum();
    for worker in &mut workers {
        worker.share = worker.connections.and_then(|count| share(count, all));
    }
    workers
}

/// `part` of `all` to four places; nothing of nothing.
fn share(part: u64, all: u64) -> Option<f64> {
    let places = part.checked_mul(10_000)?.checked_div(all)?;
    Some(f64::from(u32::try_from(places).ok()?) / 10_000.0)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
