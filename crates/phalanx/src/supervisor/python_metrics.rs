//! The metrics of Python applications: each worker is given a directory in which `prometheus_client` keeps what its processes count
//! (`PROMETHEUS_MULTIPROC_DIR`); it is read when somebody asks, and folded into what stays when the worker is gone.
//!
//! INVARIANT: what a file has counted is told by the file or by what it was folded into, never by both: both are done under one lock,
//! which is only taken where blocking is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use phalanx_core::exposition::Family;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::python_metrics::{Figures, FileName};
use phalanx_sys::process::{Pid, descends_from};

use crate::primary::{Cluster, MetricsDirectory, Release, Worker};

/// Tells the library where to keep them, and that there are several processes.
const VARIABLE: &str = "PROMETHEUS_MULTIPROC_DIR";
/// The same, as it was called once.
const FORMER: &str = "prometheus_multiproc_dir";
/// No more is read of one file, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct PythonBook {
    is_wanted: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<WorkerId, Place>,
    /// What those that are gone have left.
    left: Figures,
}

/// What a worker keeps.
#[derive(Debug)]
struct Place {
    directory: MetricsDirectory,
    position: Position,
    /// Until then it is not known as a worker, and not gone.
    has_started: bool,
    /// Processes with files that were seen to belong to it.
    seen: BTreeSet<u32>,
    /// What processes of it have left that are gone.
    dead: Figures,
}

impl PythonBook {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the directory of a worker that is about to start, and gives the variable that names it. Nothing where nobody reads metrics,
    /// Node runs, or the user has set the variable.
    pub(super) fn variable(
        &self,
        cluster: &Cluster,
        release: &Release,
        (worker, position): (WorkerId, Position),
    ) -> Option<(OsString, OsString)> {
        let is_set = |name| release.variable(OsStr::new(name)).is_some();
        if !self.is_wanted || release.runs_node() || is_set(VARIABLE) || is_set(FORMER) {
            return None;
        }
        let directory = match cluster.make_metrics_directory(release.settings()) {
            Ok(directory) => directory,
            Err(error) => {
                static TOLD: OnceLock<()> = OnceLock::new();
                TOLD.get_or_init(|| {
                    tracing::warn!(%error, "no place for the metrics of Python workers");
                });
                return None;
            }
        };
        let path = directory.path().as_os_str().to_owned();
        let place = Place {
            directory,
            position,
            has_started: false,
            seen: BTreeSet::new(),
            dead: Figures::default(),
        };
        self.state().workers.insert(worker, place);
        Some((VARIABLE.into(), path))
    }

    /// The worker has been started, or could not be.
    pub(super) fn has_started(&self, worker: WorkerId, is_there: bool) {
        if !self.is_wanted {
            return;
        }
        let mut state = self.state();
        if is_there {
            if let Some(place) = state.workers.get_mut(&worker) {
                place.has_started = true;
            }
        } else {
            drop(state.workers.remove(&worker));
        }
    }

    /// A worker is gone: what it has left is folded, beside the loop.
    pub(super) fn fold(self: &Arc<Self>, cluster: &Cluster) {
        if self.is_wanted {
            let (book, cluster) = (Arc::clone(self), cluster.clone());
            tokio::task::spawn_blocking(move || {
                let mut state = book.state();
                state.fold(&live(&cluster));
            });
        }
    }

    /// The metrics of all workers and of those before them as one, and how many live workers have any. Reads files.
    pub(super) fn gather(&self, cluster: &Cluster) -> (Vec<Family>, usize) {
        if !self.is_wanted {
            return (Vec::new(), 0);
        }
        let mut state = self.state();
        let live = live(cluster);
        state.fold(&live);
        let mut all = state.left.clone();
        let mut count = 0;
        // The newest first: where each stands for itself, that is who is there at its position.
        for (id, place) in state.workers.iter_mut().rev() {
            let worker = live.get(id);
            if let Some(worker) = worker {
                place.position = worker.position();
            }
            let figures = place.look(worker.and_then(|worker| Pid::from_number(worker.pid())));
            count += usize::from(!figures.is_empty());
            all.merge(&figures);
        }
        (all.families(), count)
    }
}

fn live(cluster: &Cluster) -> BTreeMap<WorkerId, Worker> {
    let workers = cluster.workers().into_iter();
    workers.map(|worker| (worker.id(), worker)).collect()
}

impl State {
    fn fold(&mut self, live: &BTreeMap<WorkerId, Worker>) {
        let is_gone =
            |id: &WorkerId, place: &mut Place| place.has_started && !live.contains_key(id);
        for (_, place) in self.workers.extract_if(.., is_gone) {
            self.left.merge(&place.dead);
            for name in place.directory.names() {
                if let Some(file) = FileName::parse(&name) {
                    self.left
                        .merge(&read(&place.directory, file, &[]).lasting());
                }
            }
        }
    }
}

impl Place {
    /// What its processes have counted. What those have left that are gone is folded.
    fn look(&mut self, pid: Option<Pid>) -> Figures {
        let mut names = self.directory.names();
        names.sort_unstable();
        let files: Vec<FileName<'_>> = names
            .iter()
            .filter_map(|name| FileName::parse(name))
            .collect();
        let processes = Processes::of(&files, pid, &mut self.seen);
        let lives = |file: &FileName<'_>| !processes.is_gone(file.process());
        let alone = files.iter().filter(|file| file.is_of_one() && lives(file));
        let alone: BTreeSet<&str> = alone.map(|file| file.process()).collect();
        let position = self.position.to_string();
        let mut all = Figures::default();
        for file in &files {
            let mut labels = vec![("position", position.as_str())];
            if alone.len() > 1 {
                labels.push(("pid", file.process()));
            }
            if lives(file) {
                all.merge(&read(&self.directory, *file, &labels));
            } else if self.seen.contains(&number(file.process())) {
                self.dead
                    .merge(&read(&self.directory, *file, &[]).lasting());
                self.directory.remove(&file.to_string());
            } else {
                all.merge(&read(&self.directory, *file, &[]).lasting());
            }
        }
        all.merge(&self.dead);
        all
    }
}

/// Which of the processes that have files live.
struct Processes {
    live: BTreeSet<u32>,
    /// Whether processes are called by their pids, as they have them here: not in a namespace of their own.
    are_known: bool,
}

impl Processes {
    /// Each is asked for by itself: a list of children lacks some while others end (`proc_pid_task(5)`).
    fn of(files: &[FileName<'_>], worker: Option<Pid>, seen: &mut BTreeSet<u32>) -> Self {
        let named = files.iter().map(|file| number(file.process()));
        let named: BTreeSet<u32> = named.collect();
        let mut live = BTreeSet::new();
        for number in named {
            let pid = Pid::from_number(number).zip(worker);
            match pid.and_then(|(pid, worker)| descends_from(pid, worker)) {
                Some(true) => {
                    seen.insert(number);
                    live.insert(number);
                }
                // Adopted by somebody else since.
                Some(false) if seen.contains(&number) => drop(live.insert(number)),
                Some(false) | None => {}
            }
        }
        Self {
            live,
            are_known: worker.is_some() && !seen.is_empty(),
        }
    }

    fn is_gone(&self, process: &str) -> bool {
        self.are_known && !self.live.contains(&number(process))
    }
}

/// A pid; 0, which nobody has, if it is none.
fn number(process: &str) -> u32 {
    process.parse().unwrap_or(0)
}

fn read(directory: &MetricsDirectory, file: FileName<'_>, labels: &[(&str, &str)]) -> Figures {
    let mut figures = Figures::default();
    let name = file.to_string();
    let whole = used_bytes(directory, &name).map(|bytes| figures.read(file, &bytes, labels));
    match whole {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(name, %error, "metrics of a Python process"),
        // The application has removed it meanwhile, as the library does with gauges of the dead.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(name, %error, "metrics of a Python process"),
    }
    figures
}

/// What of the file is in use: most of it is room for more.
fn used_bytes(directory: &MetricsDirectory, name: &str) -> io::Result<Vec<u8>> {
    let mut file = directory.read(name)?;
    let mut bytes = Vec::new();
    file.by_ref().take(4).read_to_end(&mut bytes)?;
    let used = bytes.first_chunk().map(|first| i32::from_ne_bytes(*first));
    let used = used.and_then(|used| u64::try_from(used).ok()).unwrap_or(0);
    let rest = used.min(FILE_MAX).saturating_sub(4);
    file.take(rest).read_to_end(&mut bytes)?;
    Ok(bytes)
}
