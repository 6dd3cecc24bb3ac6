//! Looks after workers that hang: asks them, has a look at those that are silent, and tells the supervisor whom to replace.
//!
//! Who hangs is decided by [`phalanx_core::dispatch::hang`]. What it goes by depends on the worker: one that has a channel is asked
//! a question that its event loop answers (once it has answered anything; Node does so unmodified); of another its slots'
//! queues tell, and the user's probe. One that notifies a watchdog has its own limit (`sd_notify`). Of the silent ones alone the system is asked
//! what they do. While all is well this costs one message to and one from each worker with a channel every [`QUESTION`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::hang::{Evidence, Finding, Frozen, Hangs, Process, Sight, Stage};
use phalanx_core::fleet::{self, Wear};
use phalanx_core::ids::WorkerId;
use phalanx_sys::connections::open_connections;
use phalanx_sys::pressure::cpu_stalled;
use phalanx_sys::process::{Activity, Pid, activity, is_in_frozen_group, waits_for_inspector};

use crate::event::Event;
use crate::primary::Cluster;
use crate::primary::Shared;
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::sink::Fact;
use crate::primary::state::Hub;
use crate::primary::state::probing;
use crate::primary::tasks::evidence::{self, Subject};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two questions to one worker.
pub(super) const QUESTION: Duration = Duration::from_secs(2);
/// Unanswered for so long, it is silent.
const SILENCE: Duration = Duration::from_secs(1);
/// A worker that is held while it starts gets so much time from each look on.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the system says of a silent worker is waited for so long: a process whose memory is locked is slow to look at.
const SIGHT_LIMIT: Duration = Duration::from_secs(1);
/// Where Node opens an inspector that it is asked for by a signal.
const INSPECTOR_PORT: u16 = 9229;

/// What is known of workers that are silent.
#[derive(Debug, Default)]
pub(in crate::primary) struct HangWatch {
    hangs: Option<Hangs>,
    questions: BTreeMap<WorkerId, Question>,
    /// Whom the probe finds silent.
    pub(super) unanswered: BTreeSet<WorkerId>,
}

/// A question to a worker's event loop.
#[derive(Clone, Copy, Debug)]
struct Question {
    /// None before the first.
    asked_at: Option<Moment>,
    /// How often something had come from the worker by then.
    heard: u64,
    /// The same at the last look.
    seen: u64,
}

impl Question {
    /// Whether one is to be put: whoever was heard since the last look needs none. While a question is on its way no
    /// connection can be handed over, and its turn would go to another worker.
    fn is_due(self, heard: u64, now: Moment) -> bool {
        let is_quiet = self.seen == heard;
        let may_be_asked = |at| heard != self.heard && now.since(at) >= QUESTION;
        is_quiet && self.asked_at.is_none_or(may_be_asked)
    }

    fn is_unanswered(self, heard: u64, now: Moment) -> bool {
        let is_over = |at| now.since(at) >= SILENCE;
        heard == self.heard && self.asked_at.is_some_and(is_over)
    }
}

/// What is known of a worker, for status.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// `suspect`, `frozen` or `hung`.
    pub(crate) state: &'static str,
    /// Why.
    pub(crate) why: String,
    /// Since when.
    pub(crate) lasts: Duration,
}

/// Somebody to have a look at.
#[derive(Clone, Debug)]
struct Look {
    worker: WorkerId,
    pid: Pid,
    inspector: Option<u16>,
    /// What waits in vain; nothing where it is only asked whether somebody holds it while it starts.
    silent: Option<Evidence>,
}

/// What was seen of a silent process, and when.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    activity: Activity,
}

impl Cluster {
    /// Looks after workers that hang, from now on. Needs a runtime around it.
    pub(crate) fn watch_hangs(&self) {
        let limit = self.settings().hang.timeout;
        self.shared.hub().hang.hangs = limit.map(Hangs::new);
        tokio::spawn(watch(Arc::downgrade(&self.shared)));
        if let Some(path) = self.settings().hang.probe {
            tokio::spawn(probing::ask_all(Arc::downgrade(&self.shared), path));
        }
    }

    /// What is wrong with a worker, if anything is.
    pub(crate) fn condition(&self, worker: WorkerId) -> Option<Condition> {
        let hub = self.shared.hub();
        let (stage, since) = hub.hang.hangs.as_ref()?.stage(worker)?;
        let (name, why) = match stage {
            Stage::Suspect(by) => ("suspect", by.to_string()),
            Stage::Frozen(by) => ("frozen", by.to_string()),
            Stage::Hung(by) => ("hung", by.to_string()),
        };
        let lasts = clock::now().since(since);
        Some(Condition {
            state: name,
            why,
            lasts,
        })
    }

    /// How late the worker's event loop was when it was asked last.
    pub(crate) fn loop_lag(&self, worker: WorkerId) -> Option<Duration> {
        let hub = self.shared.hub();
        hub.workers.get(&worker)?.channel.as_ref()?.lag
    }
}

async fn watch(shared: Weak<Shared>) {
    let mut seen: BTreeMap<WorkerId, Seen> = BTreeMap::new();
    let mut stalled = (phalanx_sys::clock::now(), cpu_stalled());
    loop {
        let next = phalanx_sys::clock::now() + LOOK;
        tokio::time::sleep_until(next.into()).await;
        let looks = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut hub = shared.hub();
            hub.ask_all(clock::now())
        };
        seen.retain(|worker, _| looks.iter().any(|look| look.worker == *worker));
        let (sights, held) = see(&looks, &mut seen).await;
        let pressure = if sights.is_empty() {
            0.0
        } else {
            let before =
                std::mem::replace(&mut stalled, (phalanx_sys::clock::now(), cpu_stalled()));
            share(
                before.1,
                stalled.1,
                stalled.0.saturating_duration_since(before.0),
            )
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut hub = shared.hub();
        for worker in held {
            hub.happened(Fact::Extends {
                worker,
                by: PATIENCE,
            });
        }
        hub.judge_silent(pressure, &sights);
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
    let found = tokio::time::timeout(SIGHT_LIMIT, seeing).await;
    let found = found.ok().and_then(Result::ok).unwrap_or_default();
    let now = phalanx_sys::clock::now();
    for (index, look) in looks.iter().enumerate() {
        let (activity, frozen) = found.get(index).copied().unwrap_or_default();
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
        let ports = [look.inspector.unwrap_or(INSPECTOR_PORT)];
        open_connections(look.pid, &ports).is_ok_and(|count| count > 0)
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

pub(super) fn serves(cell: &Cell) -> bool {
    cell.is_ready() && cell.takes_part() && cell.is_connected()
}

impl Hub {
    /// Asks those whose turn it is. Returns whom to have a look at.
    fn ask_all(&mut self, now: Moment) -> Vec<Look> {
        let mut looks = Vec::new();
        let here = &self.workers;
        self.hang
            .questions
            .retain(|worker, _| here.contains_key(worker));
        self.hang
            .unanswered
            .retain(|worker| here.contains_key(worker));
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        for worker in workers {
            let silent = self.ask_event_loop(worker, now);
            let Some(state) = self.workers.get(&worker) else {
                continue;
            };
            let cell = &state.cell;
            let starts = !cell.is_ready() && cell.departure().is_none();
            if starts || silent.is_some() {
                looks.push(Look {
                    worker,
                    pid: cell.pid,
                    inspector: cell.inspector,
                    silent,
                });
            }
        }
        looks
    }

    /// Puts a question to the worker if one is due, and says what it leaves unanswered.
    fn ask_event_loop(&mut self, worker: WorkerId, now: Moment) -> Option<Evidence> {
        let state = self
            .workers
            .get_mut(&worker)
            .filter(|state| serves(&state.cell))?;
        let position = state.cell.position();
        let has_watchdog = state.cell.watchdog.is_some();
        let by_probe = self.hang.unanswered.contains(&worker);
        if let Some(channel) = state.channel.as_mut() {
            let heard = channel.heard;
            // Of a new one nothing is known: the next look tells whether it is quiet.
            let question = self.hang.questions.entry(worker).or_insert(Question {
                asked_at: None,
                heard,
                seen: heard.wrapping_sub(1),
            });
            if question.is_due(heard, now) {
                channel.probe();
                (question.asked_at, question.heard) = (Some(now), heard);
            }
            question.seen = heard;
            if channel.answers {
                let is_silent = question.is_unanswered(heard, now);
                return is_silent
                    .then_some(Evidence::Question)
                    .or(by_probe.then_some(Evidence::Probe));
            }
        }
        if by_probe {
            return Some(Evidence::Probe);
        }
        if has_watchdog {
            return None;
        }
        let mut slots = self
            .listeners
            .values()
            .filter_map(|listener| listener.carrier.slots());
        let is_stuck = slots.any(|slots| slots.stuck_since(position, worker).is_some());
        is_stuck.then_some(Evidence::Queue)
    }

    fn judge_silent(&mut self, pressure: f64, silent: &BTreeMap<WorkerId, Sight>) {
        let now = clock::now();
        let serving = self.workers.iter().filter(|(_, state)| serves(&state.cell));
        let sights: Vec<(WorkerId, Sight)> = serving
            .map(|(&worker, _)| (worker, silent.get(&worker).copied().unwrap_or_default()))
            .collect();
        let Some(hangs) = self.hang.hangs.as_mut() else {
            return;
        };
        for finding in hangs.look(now, pressure, &sights) {
            self.follow_finding(finding);
        }
    }

    fn follow_finding(&mut self, finding: Finding) {
        match finding {
            // That is told already.
            Finding::Suspect(_, Evidence::Queue) => {}
            Finding::Suspect(worker, by) => self.emit(&Event::Suspect { worker, by }),
            Finding::Froze(worker, by) => self.emit(&Event::Frozen { worker, by }),
            Finding::Spared { silent, of } => self.emit(&Event::Spared { silent, of }),
            Finding::Recovered { worker, after } => {
                let state = self.workers.get(&worker);
                if state.is_some_and(|state| state.pulse.stuck_since.is_none()) {
                    self.emit(&Event::Recovered { worker, after });
                }
                self.sink.report(fleet::Event::Recovered { worker });
            }
            Finding::Hung {
                worker,
                evidence,
                silent,
                early,
            } => {
                let Some(state) = self.workers.get(&worker) else {
                    return;
                };
                let subject = Subject {
                    cell: Arc::clone(&state.cell),
                    by: evidence,
                    silent,
                    signal: self.settings.hang.signal,
                };
                tokio::spawn(give_up(self.shared.clone(), subject, early));
            }
        }
    }
}

/// Keeps what is known of a worker that hangs, and has it replaced.
async fn give_up(shared: Weak<Shared>, subject: Subject, early: bool) {
    let (worker, by, silent) = (subject.cell.id, subject.by, subject.silent);
    let gathering = tokio::task::spawn_blocking(move || evidence::gather(&subject));
    let kept = tokio::time::timeout(evidence::LIMIT * 2, gathering).await;
    let kept = kept.ok().and_then(Result::ok).unwrap_or_default();
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let mut hub = shared.hub();
    let hangs = hub.hang.hangs.as_ref();
    if !hangs.is_some_and(|hangs| hangs.is_replaced(worker)) {
        // It has come back meanwhile.
        return;
    }
    hub.emit(&Event::Hung {
        worker,
        by,
        silent,
        early,
        function: kept.function,
        evidence: kept.path,
    });
    let wear = if early {
        Wear::Outage { silent }
    } else {
        Wear::Hung { silent }
    };
    hub.sink.report(fleet::Event::Worn { worker, wear });
}
