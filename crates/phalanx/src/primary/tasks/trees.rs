//! Who belongs to which worker, and the end of those that outlive it.
//!
//! A worker may be a shell whose child is the server, a master with workers of its own, or a program that
//! daemonizes. What it leaves behind when it ends would go on serving an old release, or hold the port; so it is
//! ended before the worker's exit is told (`phalanx_core::leftovers` decides when it is killed). Where a control group
//! may be made each worker has one (`cgroups`), which holds all of it; elsewhere marks, groups, sessions and descent
//! tell. The members of trees are looked up on a thread where blocking is allowed: once a second, at every start, and at every end.
//!
//! INVARIANT: a worker is unreaped while its tree is searched by its group, so the number is no other's.

mod cgroups;
mod keeping;
mod search;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::ids::WorkerId;
use phalanx_core::leftovers::{Ended, Leftovers, Next};
use phalanx_sys::cgroup::Cgroup;
use phalanx_sys::process::{self, Among, Member, Tree};
use phalanx_sys::signal::Signal;
use tokio::sync::{Notify, Semaphore};

use crate::keeper::Ward;
use crate::primary::cell::{Cell, Departure};
use crate::primary::clock;
use crate::primary::mailbox::Mailbox;
pub(crate) use cgroups::CgroupPlace;

/// The variable by which descendants are known, whoever their parent is by now.
const MARK: &str = "PHALANX_TREE";
/// As [`WORKER_MARK`](MARK), of one worker.
const WORKER_MARK: &str = "PHALANX_WORKER_ID";
const LOOKS_AT_ONCE: usize = 2;
/// As the fleet has it, for those that have no fleet.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the trees of all workers have in common.
#[derive(Debug)]
pub(crate) struct Trees {
    token: String,
    options: OnceLock<Options>,
    /// Workers that were started or began to serve since the last look.
    news: Mutex<BTreeSet<WorkerId>>,
    changed: Notify,
    cgroups: cgroups::Cgroups,
}

/// How the trees of a cluster are ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Orphans are adopted by this process (`PR_SET_CHILD_SUBREAPER`).
    pub(crate) adopts: bool,
    /// Workers get control groups, where those may be made.
    pub(crate) cgroups: bool,
    /// How long one may take to end.
    pub(crate) kill_timeout: Duration,
}

impl Trees {
    pub(in crate::primary) fn new() -> Self {
        Self {
            token: token(),
            options: OnceLock::new(),
            news: Mutex::default(),
            changed: Notify::new(),
            cgroups: cgroups::Cgroups::default(),
        }
    }

    fn options(&self) -> Options {
        self.options.get().copied().unwrap_or(Options {
            adopts: false,
            cgroups: false,
            kill_timeout: KILL_TIMEOUT,
        })
    }

    fn among(&self) -> Among {
        if self.options().adopts {
            Among::Adopted
        } else {
            Among::All
        }
    }

    /// The variable that all workers have.
    pub(in crate::primary) fn variable(&self) -> (&'static str, &str) {
        (MARK, &self.token)
    }

    fn mark(&self) -> String {
        format!("{MARK}={}", self.token)
    }

    /// What a keeper is to end. Makes the control group of all, if that was not done.
    fn ward(&self) -> Ward {
        Ward {
            mark: self.mark(),
            cgroup: self.root().map(|root| {
                let (parent, name) = root.place();
                (Arc::clone(parent), name.to_owned())
            }),
        }
    }

    /// What is left of a worker that has ended and is not reaped.
    fn of(&self, cell: &Cell) -> Tree {
        Tree {
            marks: vec![self.mark(), format!("{WORKER_MARK}={}", cell.id)],
            groups: BTreeSet::from([cell.pid]),
            known: cell.relatives().clone(),
            cgroup: cell.cgroup().cloned(),
        }
    }

    /// A worker was started, or has started what serves.
    pub(in crate::primary) fn has_changed(&self, worker: WorkerId) {
        self.news().insert(worker);
        self.changed.notify_one();
    }

    fn news(&self) -> MutexGuard<'_, BTreeSet<WorkerId>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unique, and no secret: whoever carries it wants to be killed with the app.
fn token() -> String {
    let mut bytes = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if random.is_err() {
        let began = Member::of(process::Pid::current()).map_or(0, |own| own.began);
        return format!("{}-{began}", std::process::id());
    }
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

/// Runs what reads `/proc` where that may take its time, a few at once: hundreds of workers may end together, and the
/// event loop needs a processor too.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    static LOOKS: Semaphore = Semaphore::const_new(LOOKS_AT_ONCE);
    let _one_of_few = LOOKS.acquire().await.ok()?;
    // It fails when the runtime ends, and then nobody is interested any more.
    tokio::task::spawn_blocking(work).await.ok()
}

/// The worker has ended and is not reaped: ends what it has left behind.
pub(in crate::primary) async fn clear(trees: &Trees, cell: &Arc<Cell>) {
    let (tree, among) = (trees.of(cell), trees.among());
    let kill_timeout = trees.options().kill_timeout;
    let ended = match cell.departure() {
        _ if cell.is_doomed() => Ended::Killed,
        None => Ended::Unasked,
        Some(Departure::Asked | Departure::OwnWish) => Ended::Asked,
    };
    let began = clock::now();
    let end = Leftovers::new(ended, kill_timeout, Duration::ZERO);
    Clearing {
        worker: cell.id,
        cell: Some(cell),
        cgroup: tree.cgroup.clone(),
        began,
        end,
        asked: BTreeSet::new(),
    }
    .run(move || tree.members(among))
    .await;
    if let Some(cgroup) = cell.cgroup().cloned() {
        blocking(move || cgroups::remove(&cgroup)).await;
    }
}

/// The way to the end of some processes.
struct Clearing<'a> {
    worker: WorkerId,
    cell: Option<&'a Cell>,
    /// What holds all of them that have not left it.
    cgroup: Option<Cgroup>,
    began: Moment,
    end: Leftovers,
    /// Those that were told to end.
    asked: BTreeSet<Member>,
}

impl Clearing<'_> {
    async fn run(mut self, members: impl Fn() -> BTreeSet<Member> + Clone + Send + 'static) {
        loop {
            let Some(left) = blocking(members.clone()).await else {
                return;
            };
            let now = clock::now() - self.began;
            if self.cell.is_some_and(Cell::is_doomed) {
                self.end.hurry(now);
            }
            let until = match self.end.next(left.len(), now) {
                Next::Done => return,
                Next::Ask { until } => {
                    self.ask(&left);
                    until
                }
                Next::Kill { until } => {
                    self.kill(&left).await;
                    until
                }
                Next::GiveUp => {
                    let worker = self.worker.0;
                    tracing::error!(worker, count = left.len(), "processes cannot be ended");
                    return;
                }
            };
            self.wait(&left, self.began + until).await;
        }
    }

    fn ask(&mut self, left: &BTreeSet<Member>) {
        let new: BTreeSet<_> = left.difference(&self.asked).copied().collect();
        if self.asked.is_empty() {
            let (worker, count) = (self.worker.0, new.len());
            tracing::info!(
                worker,
                count,
                "it has left processes behind, which are ended (a program that puts itself in the background \
                 has to be run in the foreground)"
            );
        }
        signal(&new, Signal::TERM);
        self.asked.extend(new);
    }

    /// Kills them, and what they are starting at this moment.
    async fn kill(&self, left: &BTreeSet<Member>) {
        if let Some(cgroup) = self.cgroup.clone() {
            // It fails where the kernel is too old, and then there are signals.
            blocking(move || cgroup.kill()).await;
        }
        signal(left, Signal::KILL);
    }

    /// Waits until all of them have ended, or somebody is to be killed.
    async fn wait(&self, left: &BTreeSet<Member>, until: Moment) {
        let all = async {
            for member in left {
                if let Ok(Some(pidfd)) = member.open()
                    && let Ok(pidfd) = crate::watched::watch(pidfd)
                {
                    drop(pidfd.readable().await);
                }
            }
        };
        let hurried = async {
            match self.cell.filter(|cell| !cell.is_doomed()) {
                Some(cell) => cell.changed.notified().await,
                None => std::future::pending().await,
            }
        };
        let first = async {
            tokio::select! {
                () = all => {}
                () = hurried => {}
            }
        };
        // Whatever ended it, the next look finds out.
        let _all_ended = clock::timeout_at(until, first).await;
    }
}

fn signal(members: &BTreeSet<Member>, signal: Signal) {
    for member in members {
        if let Err(error) = member.signal(signal) {
            tracing::debug!(pid = member.pid.as_u32(), %error, "cannot be signalled");
        }
    }
}

impl Trees {
    /// Has a look at the workers' trees from now on, and starts the keeper when there is a worker.
    pub(in crate::primary) fn watch(self: Arc<Self>, options: Options, mailbox: Mailbox) {
        // A cluster has one supervisor.
        let _first = self.options.set(options);
        tokio::spawn(keeping::watch(self, mailbox));
    }

    /// All workers are gone: ends what nobody could be told to belong to them.
    pub(in crate::primary) async fn clear(&self) {
        let all = self.root().map(|root| root.group().clone());
        let tree = Tree {
            marks: vec![self.mark()],
            cgroup: all.clone(),
            ..Tree::default()
        };
        let among = self.among();
        let clearing = Clearing {
            worker: WorkerId(0),
            cell: None,
            cgroup: all.clone(),
            began: clock::now(),
            end: Leftovers::new(Ended::Killed, Duration::ZERO, Duration::ZERO),
            asked: BTreeSet::new(),
        };
        let left = move || match among {
            Among::Adopted => {
                let mut left = process::adopted();
                left.extend(tree.cgroup.iter().flat_map(process::living_in));
                left
            }
            Among::All => tree.members(Among::All),
        };
        clearing.run(left).await;
        if let Some(all) = all {
            blocking(move || cgroups::remove(&all)).await;
        }
    }
}
