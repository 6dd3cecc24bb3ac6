//! What is looked at once a second while somebody wants figures: the processes in `/proc`, on a thread where blocking is allowed, and
//! the counts of which rates are made. While nobody has asked, nothing runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use phalanx_core::fleet::{Report, Tally};
use phalanx_core::health::Health;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::limits;
use phalanx_sys::process::Pid;
use tokio::sync::watch;

use crate::primary::{Cluster, Figures, Worker, clock};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// So many are kept: quantiles are of the time between the oldest and now.
const KEPT: usize = 11;
/// Rates are of so many looks: a Node worker tells its figures once a second, and not in step with them.
const RATE_LOOKS: usize = 5;
/// Open files are counted at every so many looks: they are asked for by a path, which costs more than all else of a look.
const FILES_EVERY: u64 = 5;
/// How long a first question waits for the first look.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What is known of the app's figures, and whether anybody wants them.
#[derive(Debug)]
pub(in crate::supervisor) struct Meters {
    wanted: watch::Sender<bool>,
    /// How many looks there were.
    looks: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    processes: Processes,
    /// Shared with whoever makes a picture: a sample of many positions is large.
    samples: VecDeque<Arc<Sample>>,
}

/// What `/proc` told of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu: Option<Duration>,
    pub(super) memory: Option<u64>,
    pub(super) open_files: Option<u64>,
}

/// What the processes use, by position.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    live: BTreeMap<WorkerId, (Position, Usage)>,
    /// The processor time of those that are gone.
    gone: BTreeMap<Position, Duration>,
    pub(super) primary: Usage,
}

impl Processes {
    /// Takes a look in; what was used by who is not in it any more stays.
    fn look(&mut self, mut live: BTreeMap<WorkerId, (Position, Usage)>, primary: Usage) {
        for (worker, (position, usage)) in std::mem::take(&mut self.live) {
            match live.get_mut(&worker) {
                // Of one that is ending nothing may be known any more; a spare takes its past with it.
                Some((_, newer)) => {
                    newer.cpu = newer.cpu.max(usage.cpu);
                    newer.open_files = newer.open_files.or(usage.open_files);
                }
                None => *self.gone.entry(position).or_default() += usage.cpu.unwrap_or_default(),
            }
        }
        self.live = live;
        self.primary = primary;
    }

    /// The processor time that was used at each position where any is known.
    fn cpu(&self) -> BTreeMap<Position, Duration> {
        let mut used = self.gone.clone();
        for (position, usage) in self.live.values() {
            if let Some(cpu) = usage.cpu {
                *used.entry(*position).or_default() += cpu;
            }
        }
        used
    }

    /// What the processes at the position use, and what those of the past used of the processors.
    pub(super) fn at(&self, position: Position) -> Usage {
        let here = self.live.values().filter(|(at, _)| *at == position);
        let before = Usage {
            cpu: self.gone.get(&position).copied(),
            ..Usage::default()
        };
        here.fold(before, |sum, (_, usage)| Usage {
            cpu: either(sum.cpu, usage.cpu, |one, another| one + another),
            memory: either(sum.memory, usage.memory, u64::saturating_add),
            open_files: either(sum.open_files, usage.open_files, u64::saturating_add),
        })
    }
}

fn either<T>(one: Option<T>, another: Option<T>, both: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, another) {
        (Some(one), Some(another)) => Some(both(one, another)),
        (one, another) => one.or(another),
    }
}

/// The counts of one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) connections: BTreeMap<Position, u64>,
    pub(super) answered: BTreeMap<Position, Health>,
    pub(super) cpu: BTreeMap<Position, Duration>,
    pub(super) primary_cpu: Duration,
}

/// What was known at a moment, for whoever makes a picture of it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) tally: Tally,
    pub(super) processes: Processes,
    /// The newest sample, and those that rates and quantiles are made with.
    pub(super) newest: Option<Arc<Sample>>,
    pub(super) for_rates: Option<Arc<Sample>>,
    pub(super) oldest: Option<Arc<Sample>>,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            wanted: watch::Sender::new(false),
            looks: watch::Sender::new(0),
            state: Mutex::default(),
        }
    }
}

impl Meters {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fleet reports something.
    pub(in crate::supervisor) fn note(&self, report: &Report, now: Duration) {
        self.state().tally.note(report, now);
    }

    /// Somebody wants figures from now on.
    pub(in crate::supervisor) fn want(&self) {
        self.wanted
            .send_if_modified(|wanted| !std::mem::replace(wanted, true));
    }

    /// Waits until there was a look.
    pub(super) async fn looked(&self) {
        let mut looks = self.looks.subscribe();
        let first = looks.wait_for(|looks| *looks > 0);
        // Where /proc is slow there are no figures of processes yet.
        drop(clock::within(FIRST_LOOK, first).await);
    }

    /// Those whose open files are known well enough.
    fn counted_files(&self) -> BTreeSet<WorkerId> {
        if self.looks.borrow().is_multiple_of(FILES_EVERY) {
            return BTreeSet::new();
        }
        let state = self.state();
        let live = state.processes.live.iter();
        let counted = live.filter(|(_, (_, usage))| usage.open_files.is_some());
        counted.map(|(&worker, _)| worker).collect()
    }

    pub(super) fn known(&self) -> Known {
        let state = self.state();
        let samples = &state.samples;
        let newest = samples.len().saturating_sub(1);
        Known {
            tally: state.tally.clone(),
            processes: state.processes.clone(),
            newest: samples.back().cloned(),
            for_rates: samples.get(newest.saturating_sub(RATE_LOOKS)).cloned(),
            oldest: samples.front().cloned(),
        }
    }

    fn take(&self, figures: Figures, live: BTreeMap<WorkerId, (Position, Usage)>, primary: Usage) {
        let mut state = self.state();
        state.processes.look(live, primary);
        let connections = super::connections(&figures);
        let sample = Sample {
            at: clock::real_now(),
            cpu: state.processes.cpu(),
            connections,
            answered: figures.answered,
            primary_cpu: primary.cpu.unwrap_or_default(),
        };
        state.samples.push_back(Arc::new(sample));
        while state.samples.len() > KEPT {
            state.samples.pop_front();
        }
        drop(state);
        self.looks.send_modify(|looks| *looks += 1);
    }
}

/// Looks from when somebody wants it, as long as the app is there.
pub(in crate::supervisor) async fn sample(
    meters: Weak<Meters>,
    cluster: Weak<crate::primary::Shared>,
) {
    let Some(mut wanted) = meters.upgrade().map(|meters| meters.wanted.subscribe()) else {
        return;
    };
    if wanted.wait_for(|wanted| *wanted).await.is_err() {
        return;
    }
    let mut next = clock::real_now();
    loop {
        let (Some(meters), Some(cluster)) = (meters.upgrade(), cluster.upgrade()) else {
            return;
        };
        let cluster = Cluster { shared: cluster };
        cluster.count_answers_for_metrics();
        let workers = cluster.workers();
        let counted = meters.counted_files();
        let looked = tokio::task::spawn_blocking(move || look_at(&workers, &counted)).await;
        if let Ok((live, primary)) = looked {
            meters.take(cluster.figures(), live, primary);
        }
        drop((meters, cluster));
        next = (next + INTERVAL).max(clock::real_now());
        clock::wait_until(next).await;
    }
}

/// Looks at these, and at the primary. Files are not counted anew of those where they were `counted` lately.
fn look_at(
    workers: &[Worker],
    counted: &BTreeSet<WorkerId>,
) -> (BTreeMap<WorkerId, (Position, Usage)>, Usage) {
    let live = workers.iter().map(|worker| {
        let is_due = !counted.contains(&worker.id());
        let usage = Usage {
            cpu: worker.cpu_time(),
            memory: worker.memory_bytes_lately(),
            open_files: is_due.then(|| worker.open_files()).flatten(),
        };
        (worker.id(), (worker.position(), usage))
    });
    let own = Pid::current();
    let primary = Usage {
        cpu: limits::cpu_time(own).ok(),
        memory: limits::resident_bytes(own).ok(),
        open_files: limits::open_files_of(own).ok(),
    };
    (live.collect(), primary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_that_are_not_counted_anew_stay() {
        let mut processes = Processes::default();
        for (counted, expected) in [(Some(9), 9), (None, 9), (Some(7), 7)] {
            let usage = Usage {
                open_files: counted,
                ..Usage::default()
            };
            let live = BTreeMap::from([(WorkerId(1), (Position(0), usage))]);
            processes.look(live, Usage::default());
            assert_eq!(processes.at(Position(0)).open_files, Some(expected));
        }
    }

    #[test]
    fn the_processor_time_of_a_position_never_falls() {
        let mut processes = Processes::default();
        let used = |worker, seconds| {
            let usage = Usage {
                cpu: Some(Duration::from_secs(seconds)),
                ..Usage::default()
            };
            (WorkerId(worker), (Position(0), usage))
        };
        let history = [
            vec![used(1, 5)],
            vec![used(1, 6), used(2, 1)],
            vec![used(2, 2)],
            vec![(WorkerId(2), (Position(0), Usage::default()))],
            vec![],
            vec![used(3, 0)],
        ];
        let sums = history.map(|live| {
            processes.look(live.into_iter().collect(), Usage::default());
            processes.at(Position(0)).cpu.unwrap().as_secs()
        });
        assert_eq!(sums, [5, 7, 8, 8, 8, 8]);
    }
}
