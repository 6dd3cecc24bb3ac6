//! Who hangs: when a worker that has fallen silent is given up.
//!
//! That a worker is **suspect** shows within a second: something waits for it and it takes nothing
//! ([`liveness`](super::liveness)). It gets nothing new then, which costs an innocent one nothing. To **replace** it costs the
//! requests that it has, so that takes much more: it must have been silent for [`Hangs`]' limit, of time in which it could
//! have answered:
//!
//! * Time in which the primary did not run does not count (times are [`Moment`]s), and one look counts for [`LOOK_MAX`] at most.
//! * Of time in which it waited for a processor, or the machine had none to spare, a part counts: see [`Process::pace`].
//! * While it is [`Frozen`] no time counts, and afterwards it has all of it again.
//! * If most of the fleet is silent, the machine is at fault, or something that all of them wait for. Only those are given up that
//!   burn processor time: a loop without end is the worker's own.
//!
//! * If **nobody** serves, because all of two or more are silent and burn processor time, one of them gives way after a
//!   part of the limit ([`OUTAGE`]). It is not killed for it: its successor serves while it may finish.
//!
//! * One that a signal has **stopped** for a part of the limit ([`STOPPED`]) while another serves gives way, too. It is not
//!   killed either: when its successor serves, it is continued, and may finish.
//!
//! A suspect that shows life is healthy again, at that moment.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::ids::WorkerId;

/// What one look counts for at most.
pub const LOOK_MAX: Duration = Duration::from_secs(1);
/// However little a worker can run: so much of the time counts, so that a limit is reached.
const PACE_MIN: f64 = 0.25;
/// A worker that ran for so much of the time was in a loop, or worked.
const BUSY: f64 = 0.5;

/// While nobody serves, one gives way after such a part of the limit.
pub const OUTAGE: u32 = 5;

/// One that a signal has stopped gives way after such a part of the limit, or [`STOPPED_LEAST`].
pub const STOPPED: u32 = 4;
/// So long at least.
pub const STOPPED_LEAST: Duration = Duration::from_secs(5);

/// What waits for a worker in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum Evidence {
    /// A question to its event loop.
    Question,
    /// Connections in its queue.
    Queue,
    /// The watchdog, which it should notify.
    Watchdog,
    /// The user's request to this very worker.
    Probe,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Question => "its event loop does not answer",
            Self::Queue => "it takes no connections",
            Self::Watchdog => "it does not notify its watchdog",
            Self::Probe => "it does not answer the probe",
        })
    }
}

/// Why a worker cannot run: somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each has its words in the log")]
pub enum Frozen {
    /// It was stopped by a signal (SIGSTOP, SIGTSTP).
    Stopped,
    /// A process traces it: a debugger, strace.
    Traced,
    /// A client of its inspector may hold it, or it waits for one.
    Inspected,
    /// Its cgroup is frozen.
    Cgroup,
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped by a signal",
            Self::Traced => "traced by another process",
            Self::Inspected => "held by its inspector",
            Self::Cgroup => "in a frozen cgroup",
        })
    }
}

/// What the system tells of a silent worker's process since the look before. Shares are from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "whoever looks knows all of it")]
pub struct Process {
    /// Somebody holds it.
    pub frozen: Option<Frozen>,
    /// For how much of the time it waited for a processor.
    pub starved: f64,
    /// For how much of the time it ran.
    pub ran: f64,
    /// It slept and was woken: it does something, though it takes nothing.
    pub moves: bool,
}

impl Process {
    /// How much of the time counts, given for how much of it somebody on the machine waited for a processor. All of it where
    /// the worker gets half of what it wants; less where it gets less. The machine's pressure says nothing about one that runs.
    /// A program of which only the queue tells may be at a long request: if it moves, it has four times as long.
    #[must_use]
    pub fn pace(&self, pressure: f64, evidence: Evidence) -> f64 {
        if self.moves && evidence == Evidence::Queue {
            return PACE_MIN;
        }
        let starved = if self.ran >= BUSY {
            self.starved
        } else {
            self.starved.max(pressure)
        };
        (2.0 * (1.0 - starved)).clamp(PACE_MIN, 1.0)
    }
}

/// What is seen of a worker that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "whoever looks knows all of it")]
pub struct Sight {
    /// What waits in vain; nothing while it is well.
    pub silent: Option<Evidence>,
    /// What the system tells of it, if it is silent.
    pub process: Process,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each is told or acted on")]
pub enum Finding {
    /// It has fallen silent.
    Suspect(WorkerId, Evidence),
    /// It is silent because somebody holds it.
    Froze(WorkerId, Frozen),
    /// A signal has stopped it for so long, while another serves: it gives way.
    Stopped(WorkerId, Duration),
    /// It is to be replaced.
    Hung {
        /// Which.
        worker: WorkerId,
        /// What waits in vain.
        evidence: Evidence,
        /// For how long.
        silent: Duration,
        /// Nobody serves: it gives way before it is given up, and may finish its work.
        early: bool,
    },
    /// It is well again.
    Recovered {
        /// Which.
        worker: WorkerId,
        /// How long it was silent.
        after: Duration,
    },
    /// Most of the fleet is silent, so nobody is given up that does not burn processor time. Told once, until
    /// most are well again.
    Spared {
        /// How many are.
        silent: u32,
        /// Of how many.
        of: u32,
    },
}

/// The stage that a silent worker is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "status names each")]
pub enum Stage {
    /// It is silent.
    Suspect(Evidence),
    /// Somebody holds it.
    Frozen(Frozen),
    /// It is to be replaced.
    Hung(Evidence),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Case {
    stage: Stage,
    since: Moment,
    seen: Moment,
    /// For how long it could have answered.
    counted: Duration,
    /// For how long it had a processor or wanted none.
    able: Duration,
    /// For how long of that it ran.
    ran: Duration,
    /// It gives way already, because nobody serves, or it was stopped.
    gives_way: bool,
    /// For how long a signal has stopped it, as far as is known.
    stopped: Duration,
}

impl Case {
    /// Whether it ran whenever it could, however little that was on a busy machine.
    fn burns(&self) -> bool {
        !self.ran.is_zero() && self.ran >= self.able.mul_f64(BUSY)
    }
}

/// All that are silent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hangs {
    limit: Duration,
    cases: BTreeMap<WorkerId, Case>,
    spared: bool,
}

impl Hangs {
    /// Those that could have answered for so long and did not are given up.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self {
            limit,
            cases: BTreeMap::new(),
            spared: false,
        }
    }

    /// What is known of a worker, and since when; nothing of one that is well.
    #[must_use]
    pub fn stage(&self, worker: WorkerId) -> Option<(Stage, Moment)> {
        let case = self.cases.get(&worker)?;
        Some((case.stage, case.since))
    }

    /// Whether it is to be replaced: given up, or because nobody serves.
    #[must_use]
    pub fn is_replaced(&self, worker: WorkerId) -> bool {
        let case = self.cases.get(&worker);
        case.is_some_and(|case| case.gives_way || matches!(case.stage, Stage::Hung(_)))
    }

    /// Takes down what is seen of all workers that serve. `pressure` is the share of the time in which somebody on the machine
    /// waited for a processor.
    pub fn look(
        &mut self,
        now: Moment,
        pressure: f64,
        sights: &[(WorkerId, Sight)],
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let sees = |worker: &WorkerId| sights.iter().any(|(seen, _)| seen == worker);
        self.cases.retain(|worker, _| sees(worker));
        for (worker, sight) in sights {
            findings.extend(self.look_at(*worker, sight, now, pressure));
        }
        findings.extend(self.give_way(sights.len(), now));
        if self.cases.len() < sights.len() {
            findings.extend(self.give_way_stopped());
        }
        self.give_up(sights.len(), now, &mut findings);
        findings
    }

    fn look_at(
        &mut self,
        worker: WorkerId,
        sight: &Sight,
        now: Moment,
        pressure: f64,
    ) -> Option<Finding> {
        let Some(evidence) = sight.silent else {
            let case = self.cases.remove(&worker)?;
            let after = now.since(case.since);
            return Some(Finding::Recovered { worker, after });
        };
        let is_new = !self.cases.contains_key(&worker);
        let case = self.cases.entry(worker).or_insert(Case {
            stage: Stage::Suspect(evidence),
            since: now,
            seen: now,
            counted: Duration::ZERO,
            able: Duration::ZERO,
            ran: Duration::ZERO,
            gives_way: false,
            stopped: Duration::ZERO,
        });
        let passed = now.since(case.seen).min(LOOK_MAX);
        case.seen = now;
        if sight.process.frozen == Some(Frozen::Stopped) {
            case.stopped += passed;
        } else {
            case.stopped = Duration::ZERO;
        }
        // The primary's own client of the inspector looks at whoever is to be replaced.
        let is_ours = |frozen| case.gives_way && frozen == Frozen::Inspected;
        let is_given_up = matches!(case.stage, Stage::Hung(_));
        let frozen = sight.process.frozen;
        if let Some(frozen) = frozen.filter(|&frozen| !is_given_up && !is_ours(frozen)) {
            (case.counted, case.able, case.ran) = Default::default();
            let before = std::mem::replace(&mut case.stage, Stage::Frozen(frozen));
            return (before != case.stage).then_some(Finding::Froze(worker, frozen));
        }
        match case.stage {
            Stage::Hung(_) => {}
            Stage::Suspect(_) => {
                let process = &sight.process;
                case.counted += passed.mul_f64(process.pace(pressure, evidence));
                case.able += passed.mul_f64(1.0 - process.starved.clamp(0.0, 1.0));
                case.ran += passed.mul_f64(process.ran.clamp(0.0, 1.0));
                case.stage = Stage::Suspect(evidence);
            }
            Stage::Frozen(_) => case.stage = Stage::Suspect(evidence),
        }
        is_new.then_some(Finding::Suspect(worker, evidence))
    }

    /// Has the one that has been silent for longest give way, if nobody serves and all could.
    fn give_way(&mut self, seen: usize, now: Moment) -> Option<Finding> {
        let is_frozen = |case: &&Case| matches!(case.stage, Stage::Frozen(_));
        let held = self.cases.values().filter(is_frozen).count();
        let is_stuck = |case: &&Case| {
            !is_frozen(case) && case.burns() && case.counted * 2 * OUTAGE >= self.limit
        };
        let stuck = self.cases.values().filter(is_stuck).count();
        let nobody_serves = stuck > 1 && stuck == seen - held;
        let one_gives_way = self.cases.values().any(|case| case.gives_way);
        if !nobody_serves || one_gives_way {
            return None;
        }
        let waiting = self.cases.iter_mut().filter_map(|(worker, case)| {
            let Stage::Suspect(evidence) = case.stage else {
                return None;
            };
            Some((*worker, case, evidence))
        });
        let (worker, case, evidence) = waiting.max_by_key(|(_, case, _)| case.counted)?;
        if case.counted * OUTAGE < self.limit {
            return None;
        }
        case.gives_way = true;
        Some(Finding::Hung {
            worker,
            evidence,
            silent: now.since(case.since),
            early: true,
        })
    }

    /// Has those give way that a signal has stopped for long, while others serve.
    fn give_way_stopped(&mut self) -> impl Iterator<Item = Finding> {
        let limit = (self.limit / STOPPED).max(STOPPED_LEAST);
        let is_over = move |case: &Case| case.stopped >= limit && !case.gives_way;
        let cases = self.cases.iter_mut();
        cases
            .filter(move |(_, case)| is_over(case))
            .map(|(&worker, case)| {
                case.gives_way = true;
                Finding::Stopped(worker, case.stopped)
            })
    }

    /// Gives up those whose time is over, unless most of the fleet is silent.
    fn give_up(&mut self, seen: usize, now: Moment, findings: &mut Vec<Finding>) {
        let is_frozen = |case: &&Case| matches!(case.stage, Stage::Frozen(_));
        let frozen = self.cases.values().filter(is_frozen).count();
        let of = seen - frozen;
        // They have not fallen silent in the same instant.
        let is_silent = |case: &&Case| !is_frozen(case) && case.counted * 2 >= self.limit;
        let silent = self.cases.values().filter(is_silent).count();
        let most = of > 1 && silent * 2 > of;
        self.spared &= most;
        for (&worker, case) in &mut self.cases {
            let Stage::Suspect(evidence) = case.stage else {
                continue;
            };
            if case.counted < self.limit {
                continue;
            }
            if !most || case.burns() {
                case.stage = Stage::Hung(evidence);
                findings.push(Finding::Hung {
                    worker,
                    evidence,
                    silent: now.since(case.since),
                    early: false,
                });
            } else if !std::mem::replace(&mut self.spared, true) {
                let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
                findings.push(Finding::Spared {
                    silent: count(silent),
                    of: count(of),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
