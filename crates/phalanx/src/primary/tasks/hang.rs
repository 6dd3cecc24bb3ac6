//! Has questions put to workers, and a look at those that are silent: the system is asked what they do, beside the lock.
//! Who hangs is decided in `phalanx-core` (`dispatch/hang.rs`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use phalanx_core::dispatch::hang::{Frozen, Process, Sight};
use phalanx_core::ids::WorkerId;
use phalanx_sys::connections::open_connections;
use phalanx_sys::listening::{Listening, listeners};
use phalanx_sys::pressure::cpu_stalled;
use phalanx_sys::process::{
    Activity, activity, family_of, is_in_frozen_group, waits_for_inspector,
};

use crate::primary::clock;
use crate::primary::mailbox::{Look, Mailbox};
use crate::primary::tasks::evidence::{self, Subject};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two questions to one worker.
pub(in crate::primary) const QUESTION: Duration = Duration::from_secs(2);
/// What the system says of a silent worker is waited for so long: a process whose memory is locked is slow to look at.
const SIGHT_LIMIT: Duration = Duration::from_secs(1);
/// Where Node opens an inspector that it is asked for by a signal.
const INSPECTOR_PORT: u16 = 9229;

/// What was seen of a silent process, and when.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    activity: Activity,
}

/// Looks at all workers, over and over.
pub(in crate::primary) async fn watch(mailbox: Mailbox) {
    let mut seen: BTreeMap<WorkerId, Seen> = BTreeMap::new();
    let mut stalled = (clock::real_now(), cpu_stalled());
    loop {
        clock::pause(LOOK).await;
        let looks = {
            let Some(primary) = mailbox.open() else {
                return;
            };
            primary.ask_event_loops()
        };
        seen.retain(|worker, _| looks.iter().any(|look| look.worker == *worker));
        let (sights, held) = see(&looks, &mut seen).await;
        let pressure = if sights.is_empty() {
            0.0
        } else {
            let before = std::mem::replace(&mut stalled, (clock::real_now(), cpu_stalled()));
            share(
                before.1,
                stalled.1,
                stalled.0.saturating_duration_since(before.0),
            )
        };
        let Some(primary) = mailbox.open() else {
            return;
        };
        primary.sees_silent(pressure, &sights, held);
    }
}

/// What the system tells of these, and who of those that start is held.
async fn see(
    looks: &[Look],
    seen: &mut BTreeMap<WorkerId, Seen>,
) -> (BTreeMap<WorkerId, Sight>, Vec<WorkerId>) {
    let (mut sights, mut held) = (BTreeMap::new(), Vec::new());
    if looks.is_empty() {
        return (sights, held);
    }
    let wanted = looks.to_vec();
    let seeing =
        tokio::task::spawn_blocking(move || wanted.iter().map(examine).collect::<Vec<_>>());
    let found = clock::within(SIGHT_LIMIT, seeing).await;
    let found = found.and_then(Result::ok).unwrap_or_default();
    let now = clock::real_now();
    for (index, look) in looks.iter().enumerate() {
        let Some(&(activity, frozen)) = found.get(index) else {
            // Not seen in time, on a machine that has no time for looking either: nothing is known of what it did.
            let process = Process {
                starved: 1.0,
                ..Process::default()
            };
            let silent = look.silent;
            sights.insert(look.worker, Sight { silent, process });
            continue;
        };
        let Some(by) = look.silent else {
            held.extend(frozen.map(|_| look.worker));
            continue;
        };
        let before = seen.insert(look.worker, Seen { at: now, activity });
        let mut process = before
            .map(|before| compare(&before, &activity, now))
            .unwrap_or_default();
        process.frozen = frozen;
        let silent = Some(by);
        sights.insert(look.worker, Sight { silent, process });
    }
    (sights, held)
}

fn examine(look: &Look) -> (Activity, Option<Frozen>) {
    let Ok(activity) = activity(look.pid) else {
        return Default::default();
    };
    let is_inspected = || {
        if look.silent.is_none() {
            // Nobody may speak to it before it is ready.
            return look.inspector.is_some() && waits_for_inspector(look.pid);
        }
        let ports = open_inspectors(look);
        !ports.is_empty() && open_connections(look.pid, &ports).is_ok_and(|count| count > 0)
    };
    let frozen = if activity.is_traced {
        Some(Frozen::Traced)
    } else if activity.is_stopped {
        Some(Frozen::Stopped)
    } else if is_in_frozen_group(look.pid) {
        Some(Frozen::Cgroup)
    } else {
        is_inspected().then_some(Frozen::Inspected)
    };
    (activity, frozen)
}

/// The ports of inspectors that are open in the process or in one that descends from it. If it was told to take any port, that is
/// whatever listens on loopback, other than for the app's clients.
fn open_inspectors(look: &Look) -> Vec<u16> {
    let is_one = |address: &SocketAddr| {
        let may_be = match look.inspector {
            Some(0) => address.ip().is_loopback(),
            given => address.port() == given.unwrap_or(INSPECTOR_PORT),
        };
        may_be && !look.serves.contains(&address.port())
    };
    let family = family_of(look.pid).into_iter();
    let sockets = family.flat_map(|member| listeners(member).unwrap_or_default());
    let addresses = sockets.filter_map(|socket| match socket {
        Listening::Tcp(address) => Some(address),
        Listening::Unix => None,
    });
    addresses.filter(is_one).map(|one| one.port()).collect()
}

/// What the process did between two looks.
fn compare(before: &Seen, activity: &Activity, now: Instant) -> Process {
    let passed = now.saturating_duration_since(before.at);
    let share = |before, after| share(Some(before), Some(after), passed);
    Process {
        frozen: None,
        starved: share(before.activity.delayed, activity.delayed),
        ran: share(before.activity.ran, activity.ran),
        moves: activity.wakes > before.activity.wakes,
    }
}

/// How much of the time that passed was added, from 0 to 1.
fn share(before: Option<Duration>, after: Option<Duration>, passed: Duration) -> f64 {
    let (Some(before), Some(after)) = (before, after) else {
        return 0.0;
    };
    if passed.is_zero() {
        return 0.0;
    }
    (after.saturating_sub(before).as_secs_f64() / passed.as_secs_f64()).min(1.0)
}

/// Keeps what is known of a worker that hangs, and has it replaced.
pub(in crate::primary) async fn give_up(mailbox: Mailbox, subject: Subject, early: bool) {
    let (worker, by, silent) = (subject.cell.id, subject.by, subject.silent);
    let limit = subject.limit * 2;
    let gathering = tokio::task::spawn_blocking(move || evidence::gather(&subject));
    let kept = clock::within(limit, gathering).await;
    let kept = kept.and_then(Result::ok).unwrap_or_default();
    if let Some(primary) = mailbox.open() {
        primary.hangs(worker, (by, silent), early, kept);
    }
}
