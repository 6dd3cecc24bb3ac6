//! What stands around the processes of a model world: users with wishes, the figures that workers
//! send, and what can be seen from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::fleet::{
    Command, CommandId, ElasticReason, Event, Fleet, Resize, ResizeReason, Wear,
};
use phalanx_core::health::Health;
use phalanx_core::ids::WorkerId;

use crate::model::Model;
use crate::plan::Release;
use crate::world::{Item, World};

impl World {
    /// A user wants something, `after` from now.
    pub(crate) fn order(&mut self, after: Duration, command: Command) -> CommandId {
        self.commands += 1;
        let id = CommandId(self.commands);
        let event = Event::Command { id, command };
        self.push(after, Item::Deliver(event));
        id
    }

    /// Once a second, workers tell what they answered since the watch began, and some hang.
    pub(crate) fn send_figures(&mut self, watch: u32) {
        let Some(since) = self.watched_since.filter(|_| self.watches == watch) else {
            return;
        };
        let requests = self.now.saturating_sub(since).as_secs() * 15;
        let reporting: Vec<(WorkerId, Release)> = self
            .processes
            .iter()
            .filter(|(_, process)| process.is_alive && process.is_connected && process.serves)
            .map(|(worker, process)| (*worker, self.releases[&process.generation]))
            .collect();
        for (worker, release) in reporting {
            let fails = release == Release::Failing && !self.is_healed;
            let mut health = Health::default();
            for _ in 0..requests {
                health.record(fails, Duration::from_millis(5));
            }
            self.send_lossy(Event::Health { worker, health });
            if release == Release::Hanging && !self.is_healed && self.rng.chance(30) {
                self.send(Event::Hung { worker });
            }
        }
        self.push(Duration::from_secs(1), Item::Figures(watch));
    }

    /// The load asks for another size.
    pub(crate) fn resize(&mut self) {
        let why = ElasticReason {
            busy: 900,
            seconds: 10,
            held_by: None,
        };
        let to = self.rng.between(1, 9);
        let why = ResizeReason::Load(why);
        self.send_lossy(Event::Resize(Resize { to, why }));
    }

    /// A worker, of whatever state, is found to be worn out.
    pub(crate) fn wear_somebody(&mut self) {
        let alive: Vec<WorkerId> = self.alive().into_iter().collect();
        if !alive.is_empty() {
            let worker = self.rng.pick(&alive);
            let wear = if self.rng.chance(40) {
                let silent = Duration::from_secs(30);
                if self.rng.chance(40) {
                    let after = self.rng.millis(0, 5_000);
                    self.push(after, Item::Deliver(Event::Recovered { worker }));
                }
                if self.rng.chance(30) {
                    Wear::Outage { silent }
                } else {
                    Wear::Hung { silent }
                }
            } else {
                Wear::Requests { requests: 1_000 }
            };
            self.send_lossy(Event::Worn { worker, wear });
        }
    }

    /// Nothing is on its way to the fleet.
    pub(crate) fn has_delivered_all(&self) -> bool {
        !self
            .queue
            .values()
            .any(|item| matches!(item, Item::Deliver(_)))
    }

    pub(crate) fn model(&self) -> &Model {
        &self.judge.model
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Workers whose processes live, whatever the fleet knows.
    pub(crate) fn alive(&self) -> BTreeSet<WorkerId> {
        self.processes
            .iter()
            .filter(|(_, process)| process.is_alive)
            .map(|(worker, _)| *worker)
            .collect()
    }
}
