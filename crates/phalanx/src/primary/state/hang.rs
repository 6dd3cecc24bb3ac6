//! Looks after workers that hang: asks them, has a look at those that are silent, and tells the supervisor whom to replace.
//!
//! Who hangs is decided by [`phalanx_core::dispatch::hang`]. What it goes by depends on the worker: one that has a channel is asked
//! a question that its event loop answers (once it has answered anything; Node does so unmodified); of another its slots'
//! queues tell, and the user's probe. One that notifies a watchdog has its own limit (`sd_notify`). Of the silent ones alone the system is asked
//! what they do. While all is well this costs one message to and one from each worker with a channel every [`QUESTION`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::hang::{Evidence, Finding, Frozen, Hangs, OUTAGE, Sight, Stage};
use phalanx_core::fleet::{self, Wear};
use phalanx_core::ids::WorkerId;

use crate::event::Event;
use crate::primary::Cluster;
use crate::primary::clock;
use crate::primary::mailbox::Look;
use crate::primary::sink::Fact;
use crate::primary::state::Hub;
use crate::primary::tasks::evidence::{self, Kept, Subject};
use crate::primary::tasks::hang::{self, QUESTION};
use crate::primary::tasks::probing;

/// Unanswered for so long, it is silent.
const SILENCE: Duration = Duration::from_secs(1);
/// A worker that is held while it starts gets so much time from each look on.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of workers that are silent.
#[derive(Debug, Default)]
pub(in crate::primary) struct HangWatch {
    hangs: Option<Hangs>,
    questions: BTreeMap<WorkerId, Question>,
    /// Whom the probe finds silent.
    pub(super) unanswered: BTreeSet<WorkerId>,
}

impl HangWatch {
    /// Whether a signal has stopped the worker, as far as is known.
    pub(super) fn is_stopped(&self, worker: WorkerId) -> bool {
        let stage = self.hangs.as_ref().and_then(|hangs| hangs.stage(worker));
        matches!(stage, Some((Stage::Frozen(Frozen::Stopped), _)))
    }
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
    /// connection can be handed over, and the worker's turn waits, or goes to another if that takes long.
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

impl Cluster {
    /// Looks after workers that hang, from now on. Needs a runtime around it.
    pub(crate) fn watch_hangs(&self) {
        let limit = self.settings().hang.timeout;
        self.shared.hub().hang.hangs = limit.map(Hangs::new);
        tokio::spawn(hang::watch(self.mailbox()));
        if let Some(path) = self.settings().hang.probe {
            tokio::spawn(probing::ask_all(self.mailbox(), path));
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

impl Hub {
    /// Asks those whose turn it is. Returns whom to have a look at.
    pub(super) fn ask_all(&mut self, now: Moment) -> Vec<Look> {
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
                let held = self.held_by(worker);
                let serves = held.filter_map(|(_, listener)| listener.address.inet());
                looks.push(Look {
                    worker,
                    pid: cell.pid,
                    inspector: cell.inspector,
                    serves: serves.map(|address| address.port()).collect(),
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
            .filter(|state| state.cell.serves())?;
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
                // Its turn waits for the answer, as far as it has one.
                self.ledger.set_blocked(worker, !channel.is_clear());
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

    /// The silent were looked at, and those found `held` that start.
    pub(super) fn sees_silent(
        &mut self,
        pressure: f64,
        silent: &BTreeMap<WorkerId, Sight>,
        held: Vec<WorkerId>,
    ) {
        for worker in held {
            let by = PATIENCE;
            self.happened(Fact::Extends { worker, by });
        }
        let now = clock::now();
        let serving = self.workers.iter().filter(|(_, state)| state.cell.serves());
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
            Finding::Stopped(worker, stopped) => {
                let wear = Wear::Stopped { stopped };
                self.sink.report(fleet::Event::Worn { worker, wear });
            }
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
                let timeout = self.settings.hang.timeout.unwrap_or_default();
                let enough = if early { timeout / OUTAGE } else { timeout };
                let subject = Subject {
                    cell: Arc::clone(&state.cell),
                    by: evidence,
                    silent,
                    limit: evidence::limit(silent, enough),
                    signal: self.settings.hang.signal,
                };
                tokio::spawn(hang::give_up(self.mailbox(), subject, early));
            }
        }
    }

    pub(super) fn answers_probe(&mut self, worker: WorkerId, answers: bool) {
        if answers {
            self.hang.unanswered.remove(&worker);
        } else {
            self.hang.unanswered.insert(worker);
        }
    }

    /// What there was to know of a worker that hangs is kept: it is replaced, unless it has come back meanwhile.
    pub(super) fn hangs(
        &mut self,
        worker: WorkerId,
        (by, silent): (Evidence, Duration),
        early: bool,
        kept: Kept,
    ) {
        let hangs = self.hang.hangs.as_ref();
        if !hangs.is_some_and(|hangs| hangs.is_replaced(worker)) {
            return;
        }
        self.emit(&Event::Hung {
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
        self.sink.report(fleet::Event::Worn { worker, wear });
    }
}
