//! Watching workers while a reload has canaries: their figures, and whether they hang.
//!
//! Figures come over the channel, once a second, from Rust workers with a [`Meter`](crate::Meter) and
//! from Node workers by their preloaded script; who knows nothing of the question does not answer, and
//! has no figures. A worker hangs when nothing comes from it although it is asked (Node answers a handle
//! message without a handle from its event loop); that needs nothing but the channel. Nothing of this costs anything while nobody watches.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::liveness::{Finding, Life, Limits, Liveness, Progress};
use phalanx_core::fleet;
use phalanx_core::health::Health;
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::outgoing;

use crate::primary::clock;
use crate::primary::mailbox::{Alarm, Until};
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;
use crate::primary::tasks::timer;

/// Between two looks at a worker.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is known while workers are watched.
#[derive(Debug, Default)]
pub(in crate::primary) struct HealthWatch {
    /// Counts the watches; even while nobody watches.
    number: u64,
    /// Whether they answer.
    questions: BTreeMap<WorkerId, Liveness>,
}

impl HealthWatch {
    fn is_on(&self) -> bool {
        self.number % 2 == 1
    }
}

impl Hub {
    pub(in crate::primary) fn watch_health(&mut self, wanted: bool) {
        if self.health.is_on() == wanted {
            return;
        }
        self.health.number += 1;
        self.health.questions.clear();
        for worker in self.listening_workers() {
            self.ask_health(worker, wanted || self.answered.wanted);
        }
        self.answered.watch_begins();
        if wanted {
            let alarm = Alarm::Health(self.health.number);
            timer::ring(self.mailbox(), Until::At(clock::now() + INTERVAL), alarm);
        }
    }

    /// A worker that begins to serve while others are watched is watched too.
    pub(in crate::primary) fn watch_newcomer(&mut self, worker: WorkerId) {
        if self.health.is_on() || self.answered.wanted {
            self.ask_health(worker, true);
        }
    }

    pub(super) fn listening_workers(&self) -> Vec<WorkerId> {
        let listening = self.workers.iter().filter(|(_, state)| state.listening);
        listening.map(|(&worker, _)| worker).collect()
    }

    /// Has a worker count what it answers, and tell, or leave that off; one that does so already hears nothing.
    pub(super) fn ask_health(&mut self, worker: WorkerId, wanted: bool) {
        let channel = self.workers.get_mut(&worker);
        let channel = channel.and_then(|state| state.channel.as_mut());
        if let Some(channel) = channel.filter(|channel| channel.has_room_for_answers())
            && self.answered.changes(worker, wanted)
        {
            let seq = channel.next_seq();
            channel.queue(Outgoing {
                bytes: outgoing::watch_health(wanted, seq),
                handle: None,
            });
        }
    }

    pub(in crate::primary) fn health_told(&mut self, worker: WorkerId, health: Health) {
        if let Some(health) = self.answered.told(worker, health)
            && self.health.is_on()
        {
            self.sink.report(fleet::Event::Health { worker, health });
        }
    }

    /// Looks at those who serve. When to look again; never, when that watch has ended.
    pub(super) fn look_at_health(&mut self, watch: u64) -> Option<Until> {
        if self.health.number != watch {
            return None;
        }
        self.probe_workers(clock::now());
        Some(Until::At(clock::now() + INTERVAL))
    }

    fn probe_workers(&mut self, now: Moment) {
        let mut hung = Vec::new();
        let serving = self.workers.iter_mut().filter(|(_, state)| state.listening);
        for (&worker, state) in serving {
            let Some(channel) = state.channel.as_mut() else {
                continue;
            };
            let liveness = self.health.questions.entry(worker);
            let liveness = liveness.or_insert(Liveness::new(Limits::CANARY));
            // It is asked all the time, so something always waits for it: a question.
            let progress = Progress {
                taken: channel.heard,
                waiting: 1,
            };
            match liveness.look(progress, Life::Silent, now) {
                Some(Finding::Stuck) => hung.push(worker),
                Some(Finding::Try | Finding::Failed | Finding::Recovered { .. }) | None => {}
            }
            channel.probe();
        }
        for worker in hung {
            self.sink.report(fleet::Event::Hung { worker });
        }
    }
}
