//! The app's figures: what is counted anyway, put together when somebody asks, and what is looked at once a second from then on.
//!
//! INVARIANT: totals are sums by position over all workers that there ever were, and never fall. Nothing here reads `/proc` on the
//! event loop, and the hub's lock is held for its counts alone.

mod sampler;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phalanx_control::api::{
    AppMetricsFigures, ListenerPosition, ListenerSnapshot, PositionFigures, PrimaryFigures, Probe,
    ReloadFigures, Snapshot,
};
use phalanx_core::exposition::{self, Family, Format};
use phalanx_core::fleet::{
    FleetPhase, FleetView, RELOAD_CLASSES_MS, ReloadEnd, Replaced, Tally, WorkerState,
};
use phalanx_core::health::Health;
use phalanx_core::ids::Position;

pub(super) use sampler::{Meters, sample};

use super::Control;
use super::runner::Shared;
use crate::primary::{Figures, ListenerFigures, Worker};
use sampler::{Known, Sample};

/// The classes of response times end at these powers of two of microseconds: 0.5 ms to 33.6 s.
const POWERS: std::ops::RangeInclusive<u32> = 9..=25;
/// The states in which a worker lives.
const STATES: [WorkerState; 6] = [
    WorkerState::Starting,
    WorkerState::Online,
    WorkerState::Spare,
    WorkerState::Ready,
    WorkerState::Draining,
    WorkerState::Stopping,
];

impl Control {
    /// The app's figures, now. The first question has them sampled from then on, once a second, and has workers count what they
    /// answer; it takes a moment longer than later ones.
    pub async fn snapshot(&self) -> Snapshot {
        self.shared().meters.want();
        self.shared().meters.looked().await;
        self.snapshot_at_once()
    }

    /// The figures as text for Prometheus, and the application's own metrics, where it keeps any with prom-client or Python's
    /// `prometheus_client`.
    pub async fn metrics(&self, format: Format) -> String {
        let families = self.families().await;
        let text = tokio::task::spawn_blocking(move || exposition::encode(&families, format));
        text.await.unwrap_or_default()
    }

    /// The same as families of figures, for other forms of telling them.
    pub async fn families(&self) -> Vec<Family> {
        let shared = self.shared();
        let gathered = shared.app_book.gather(self.cluster(), shared.now());
        let (mut snapshot, (own, figures)) = tokio::join!(self.snapshot(), gathered);
        let (shared, cluster) = (Arc::clone(self.shared()), self.cluster().clone());
        let all = tokio::task::spawn_blocking(move || {
            let (python, workers) = shared.python_book.gather(&cluster);
            snapshot.app_metrics = Some(AppMetricsFigures {
                workers: figures.workers + u32::try_from(workers).unwrap_or(u32::MAX),
                ..figures
            });
            let mut families = snapshot.families();
            let taken: BTreeSet<String> = own.iter().map(|family| family.name.clone()).collect();
            families.extend(own);
            let others = python.into_iter();
            families.extend(others.filter(|family| !taken.contains(&family.name)));
            families
        });
        all.await.unwrap_or_default()
    }

    /// Whether the app is so, in words.
    ///
    /// # Errors
    /// Why it is not.
    pub fn probe(&self, probe: Probe) -> std::result::Result<String, String> {
        let view = self.view();
        let ready = ready_count(&view);
        match probe {
            Probe::Live => Ok("the primary runs".to_owned()),
            Probe::Started if matches!(view.phase, FleetPhase::New | FleetPhase::Booting) => {
                Err("no worker has been ready yet".to_owned())
            }
            Probe::Started => Ok("a worker has been ready".to_owned()),
            Probe::Ready if self.is_stopping(&view) => Err("the app is about to stop".to_owned()),
            Probe::Ready if ready == 0 => Err("no worker serves".to_owned()),
            Probe::Ready => Ok(format!("{ready} of {} workers serve", view.target)),
        }
    }

    fn is_stopping(&self, view: &FleetView) -> bool {
        self.is_leaving() || matches!(view.phase, FleetPhase::Stopping | FleetPhase::Finished)
    }

    fn snapshot_at_once(&self) -> Snapshot {
        let shared = self.shared();
        let view = self.view();
        let figures = self.cluster().figures();
        let known = shared.meters.known();
        let policy = self.cluster().policy_text();
        let listeners = figures.listeners.iter();
        let open = figures
            .listeners
            .iter()
            .find_map(|one| one.dispatch.clone());
        Snapshot {
            at_ms: epoch_ms(),
            name: shared.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            up_seconds: shared.now().as_secs_f64(),
            dispatch: open.unwrap_or_else(|| "auto".to_owned()),
            adoption: self.cluster().settings().adoption.as_str().to_owned(),
            target: view.target,
            generation: view.generation.0,
            reloading: view.rollout.is_some(),
            watching: view.rollout.is_some_and(|rollout| rollout.watching),
            stopping: self.is_stopping(&view),
            ready: !self.is_stopping(&view) && ready_count(&view) > 0,
            workers: by_state(&view),
            positions: self.positions(&view, &figures, &known),
            listeners: listeners.map(|one| listener(one, &policy)).collect(),
            restarts: restarts(&known.tally, None),
            reloads: reloads(&known.tally),
            primary: self.primary_figures(&known),
            lines_dropped: lines_dropped(shared),
            app_metrics: None,
            policy,
        }
    }

    fn positions(
        &self,
        view: &FleetView,
        figures: &Figures,
        known: &Known,
    ) -> Vec<PositionFigures> {
        let connections = connections(figures);
        let lived = known.tally.replaced().map(|(position, ..)| position);
        let all: BTreeSet<Position> = view
            .workers
            .iter()
            .map(|worker| worker.position)
            .chain(view.vacancies.iter().map(|vacancy| vacancy.position))
            .chain(connections.keys().copied())
            .chain(figures.answered.keys().copied())
            .chain(lived)
            .filter(|position| !position.is_spare())
            .collect();
        let rates = Rates::of(known);
        all.into_iter()
            .map(|position| {
                let mut found = PositionFigures {
                    position: position.0,
                    connections_total: connections.get(&position).copied(),
                    queue: queue(figures, position),
                    restarts: restarts(&known.tally, Some(position)),
                    ..PositionFigures::default()
                };
                self.add_workers(&mut found, view, figures);
                add_answers(&mut found, figures.answered.get(&position), &rates);
                let usage = known.processes.at(position);
                found.cpu_seconds_total = usage.cpu.map(|time| time.as_secs_f64());
                found.memory_bytes = usage.memory;
                found.open_files = usage.open_files;
                rates.fill(&mut found);
                found
            })
            .collect()
    }

    fn add_workers(&self, found: &mut PositionFigures, view: &FleetView, figures: &Figures) {
        let position = Position(found.position);
        let here = || view.workers.iter().filter(|one| one.position == position);
        found.workers = u32::try_from(here().count()).unwrap_or(u32::MAX);
        let known = figures.workers.iter();
        let known = known.filter(|one| one.position == position);
        let newest_known = known.max_by_key(|one| one.id);
        found.connections_active = newest_known.and_then(|one| one.open);
        found.loop_lag_us = newest_known
            .and_then(|one| one.lag)
            .map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX));
        if let Some(newest) = here().max_by_key(|one| one.worker) {
            let process = self.cluster().worker(newest.worker);
            found.worker = Some(newest.worker.0);
            found.pid = process.as_ref().map(Worker::pid);
            found.generation = Some(newest.generation.0);
            found.state = Some(newest.state.as_str().to_owned());
        }
    }

    fn primary_figures(&self, known: &Known) -> PrimaryFigures {
        let usage = known.processes.primary;
        let rate = known.newest.as_ref().zip(known.for_rates.as_ref());
        PrimaryFigures {
            cpu_seconds_total: usage.cpu.map(|time| time.as_secs_f64()),
            cpu: rate.and_then(|(new, old)| {
                let used = new.primary_cpu.saturating_sub(old.primary_cpu);
                per_second(used.as_secs_f64(), new.at - old.at)
            }),
            open_files: usage.open_files,
            vitals: self.shared().measured.status(self.cluster()),
        }
    }
}

/// Connections by position, where anybody counts them.
pub(super) fn connections(figures: &Figures) -> BTreeMap<Position, u64> {
    let mut sums = BTreeMap::new();
    for listener in &figures.listeners {
        for (&position, at) in &listener.positions {
            if let Some(count) = at.connections {
                let sum: &mut u64 = sums.entry(position).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }
    sums
}

fn queue(figures: &Figures, position: Position) -> Option<u32> {
    let here = |listener: &ListenerFigures| listener.positions.get(&position)?.queue;
    let queues = figures.listeners.iter().filter_map(here);
    queues.fold(None, |sum: Option<u32>, queue| {
        Some(sum.unwrap_or(0).saturating_add(queue))
    })
}

fn listener(one: &ListenerFigures, policy: &str) -> ListenerSnapshot {
    let open = one.dispatch.is_some();
    let own = one.policy.clone();
    ListenerSnapshot {
        address: one.address.clone(),
        dispatch: one.dispatch.clone(),
        policy: open.then(|| own.unwrap_or_else(|| policy.to_owned())),
        queue: one.queue,
        positions: one
            .positions
            .iter()
            .map(|(&position, at)| ListenerPosition {
                position: position.0,
                connections_total: at.connections,
                queue: at.queue,
            })
            .collect(),
    }
}

fn ready_count(view: &FleetView) -> usize {
    let ready = |one: &&phalanx_core::fleet::WorkerView| one.state == WorkerState::Ready;
    view.workers.iter().filter(ready).count()
}

/// Lines that could not be written, on whatever way.
fn lines_dropped(shared: &Shared) -> u64 {
    let outputs = shared.outputs.as_ref().map(|outputs| outputs());
    let all = outputs.iter().flatten();
    all.fold(0, |sum, output| sum.saturating_add(output.dropped_lines))
}

fn by_state(view: &FleetView) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<String, u32> = STATES
        .iter()
        .map(|state| (state.as_str().to_owned(), 0))
        .collect();
    for worker in &view.workers {
        *counts.entry(worker.state.as_str().to_owned()).or_default() += 1;
    }
    counts
}

fn restarts(tally: &Tally, at: Option<Position>) -> BTreeMap<String, u64> {
    let words = Replaced::ALL.iter().map(|why| (why.as_str().to_owned(), 0));
    // Without a position all reasons are there, so that a first time is seen as a rise.
    let mut counts: BTreeMap<String, u64> = words.filter(|_| at.is_none()).collect();
    for (position, why, count) in tally.replaced() {
        if at.is_none_or(|at| at == position) {
            *counts.entry(why.as_str().to_owned()).or_default() += count;
        }
    }
    counts
}

fn reloads(tally: &Tally) -> ReloadFigures {
    let outcomes = ReloadEnd::ALL.map(|end| (end.as_str().to_owned(), tally.reloads(end)));
    let mut sum = 0;
    let classes = tally.reload_classes().into_iter().zip(RELOAD_CLASSES_MS);
    let buckets = classes.map(|(count, end_ms)| {
        sum += count;
        (Duration::from_millis(end_ms).as_secs_f64(), sum)
    });
    ReloadFigures {
        seconds_buckets: buckets.collect(),
        seconds_sum: tally.reload_time().as_secs_f64(),
        count: outcomes.iter().map(|(_, count)| count).sum(),
        last_seconds: tally.last_reload().map(|took| took.as_secs_f64()),
        outcomes: outcomes.into(),
    }
}

fn add_answers(found: &mut PositionFigures, answered: Option<&Health>, rates: &Rates<'_>) {
    let Some(answered) = answered else { return };
    found.requests_total = Some(answered.requests);
    found.server_errors_total = Some(answered.server_errors);
    found.connections_active = found.connections_active.or(answered.open);
    let before = rates
        .oldest
        .and_then(|sample| sample.answered.get(&Position(found.position)));
    let lately = match before {
        Some(before) => answered.since(before),
        None => answered.clone(),
    };
    let micros = |percent| {
        let time = lately.latency.percentile(percent)?;
        u64::try_from(time.as_micros()).ok()
    };
    (found.p50_us, found.p99_us) = (micros(50), micros(99));
    let ends = POWERS.map(|power| Duration::from_micros(1 << power).as_secs_f64());
    found.seconds_buckets = ends.zip(answered.latency.below_powers(POWERS)).collect();
    found.seconds_sum = Duration::from_micros(answered.time_us).as_secs_f64();
}

/// What rates are made of: two samples, some seconds apart.
struct Rates<'a> {
    new: Option<&'a Sample>,
    old: Option<&'a Sample>,
    oldest: Option<&'a Sample>,
}

impl<'a> Rates<'a> {
    fn of(known: &'a Known) -> Self {
        Self {
            new: known.newest.as_deref(),
            old: known.for_rates.as_deref(),
            oldest: known.oldest.as_deref(),
        }
    }

    fn fill(&self, found: &mut PositionFigures) {
        let (Some(new), Some(old)) = (self.new, self.old) else {
            return;
        };
        let (position, time) = (Position(found.position), new.at - old.at);
        let rise = |of: &dyn Fn(&Sample) -> Option<u64>| {
            let rise = of(new)?.saturating_sub(of(old).unwrap_or(0));
            per_second(f64::from(u32::try_from(rise).unwrap_or(u32::MAX)), time)
        };
        found.connections_per_second = rise(&|sample| sample.connections.get(&position).copied());
        found.requests_per_second =
            rise(&|sample| sample.answered.get(&position).map(|one| one.requests));
        let cpu = |sample: &Sample| sample.cpu.get(&position).copied();
        found.cpu = cpu(new).and_then(|used| {
            let before = cpu(old).unwrap_or_default();
            per_second(used.saturating_sub(before).as_secs_f64(), time)
        });
    }
}

/// To three places; nothing of no time.
fn per_second(rise: f64, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (seconds > 0.0).then(|| (rise / seconds * 1000.0).round() / 1000.0)
}

fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
