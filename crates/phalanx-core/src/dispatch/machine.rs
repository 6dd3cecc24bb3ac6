//! Who holds which listener, who is ready, and who gets connections: one machine, as the fleet is.
//!
//! It is told what is seen of workers, and answers with what is to be done, in order. It neither opens nor accepts
//! anything: by what a listener's connections reach a worker (handoff, a slot, a shared socket) is none of its business.
//!
//! INVARIANT: a worker gets connections of a listener by [`Effect::Serve`] alone, once, and only while it listens there,
//! may be chosen ([`Worker::takes_part`]) and is not shut out by a predecessor that serves.

mod departures;
mod holding;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::readiness::{Lack, ListenerName, Roll, Verdict};
use super::worker::Worker;
use crate::ids::{Generation, WorkerId};
use departures::Departure;
pub use words::{Comes, Effect, Held, Input, Newcomer, Share};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Member {
    comes: Comes,
    held: BTreeMap<String, Held>,
    /// It waits for the answer to a listener that it has asked for.
    is_kept: bool,
    /// What it lacked when it was waited for no longer, and has not opened since.
    late_with: BTreeSet<ListenerName>,
}

/// The workers of one app, and what they hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "Handshake: Deserialize<'de> + Ord"))]
pub struct Machine<Handshake = ()> {
    roll: Roll,
    members: BTreeMap<WorkerId, Member>,
    /// What workers that start were last said to lack.
    lacks: BTreeMap<WorkerId, Lack>,
    /// Who leaves, and how far it is.
    departures: BTreeMap<WorkerId, Departure<Handshake>>,
}

/// Where a worker stands; nothing once it is gone.
pub type StandingOf<'a> = &'a dyn Fn(WorkerId) -> Option<Worker>;

impl<Handshake> Machine<Handshake> {
    /// An app without workers. One that owes nothing is ready `quiet` after it opened its last listener.
    #[must_use]
    pub fn new(quiet: Duration) -> Self {
        Self {
            roll: Roll::new(quiet),
            members: BTreeMap::new(),
            lacks: BTreeMap::new(),
            departures: BTreeMap::new(),
        }
    }

    /// Sets how long a worker that owes nothing is to open no further listener.
    pub fn set_quiet(&mut self, quiet: Duration) {
        self.roll.set_quiet(quiet);
    }

    /// A worker starts.
    pub fn enrol(&mut self, worker: WorkerId, newcomer: Newcomer, now: Duration) {
        let place = (newcomer.position, newcomer.generation);
        self.roll.enrol(worker, place, newcomer.proof, now);
        let member = Member {
            comes: newcomer.comes,
            held: BTreeMap::new(),
            is_kept: false,
            late_with: BTreeSet::new(),
        };
        self.members.insert(worker, member);
    }

    /// The worker holds a listener: it has asked for it, or was given it. What it holds under this key already stays.
    pub fn hold(&mut self, worker: WorkerId, key: &str, held: Held) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.held.entry(key.to_owned()).or_insert(held);
        }
    }

    /// The worker holds nothing under this key any more. That it has closed it of its own accord is another matter.
    pub fn let_go(&mut self, worker: WorkerId, key: &str) -> Option<Held> {
        self.members.get_mut(&worker)?.held.remove(key)
    }

    /// The worker has taken connections from what it holds under this key: so it listens there, and successors owe it.
    pub fn takes(&mut self, worker: WorkerId, key: &str, now: Duration) {
        if let Some(held) = self.held_as(worker, key) {
            let name = ListenerName::of_request(&held.request, key);
            self.roll.listens(worker, name, now);
        }
    }

    /// Whether the worker was waited for no longer, and has not opened since what it lacked then.
    #[must_use]
    pub fn is_late(&self, worker: WorkerId) -> bool {
        let member = self.members.get(&worker);
        member.is_some_and(|member| !member.late_with.is_empty())
    }

    /// What the worker that starts was last said to lack.
    #[must_use]
    pub fn lack(&self, worker: WorkerId) -> Option<&Lack> {
        self.lacks.get(&worker)
    }

    /// The worker serves nothing any more, though its process may live.
    pub fn clear(&mut self, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.held.clear();
        }
        self.departures.remove(&worker);
    }

    /// The worker's process is gone.
    pub fn gone(&mut self, worker: WorkerId, now: Duration) {
        self.roll.gone(worker, now);
        self.members.remove(&worker);
        self.lacks.remove(&worker);
        self.departures.remove(&worker);
    }

    /// No worker of this generation will be started any more.
    pub fn drop_generation(&mut self, generation: Generation) {
        self.roll.drop_generation(generation);
    }

    /// The listener is one worker's own: whoever starts need not have it.
    pub fn disown(
        &mut self,
        name: &ListenerName,
        now: Duration,
        standing: StandingOf<'_>,
    ) -> Vec<Effect> {
        self.roll.disown(name);
        let mut effects = Vec::new();
        for worker in self.roll.starting() {
            self.reconsider(worker, now, standing, &mut effects);
        }
        effects
    }

    /// Takes down what was seen of a worker, and says what is to be done.
    pub fn step(
        &mut self,
        worker: WorkerId,
        input: Input,
        now: Duration,
        standing: StandingOf<'_>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Listens { key, counts } => {
                self.listens(worker, &key, counts, now);
                self.begin_serving(worker, standing, &mut effects);
            }
            Input::Waits { key } => {
                if let Some(held) = self.held_as(worker, &key) {
                    let name = ListenerName::of_request(&held.request, &key);
                    self.roll.listens(worker, name, now);
                    self.reconsider(worker, now, standing, &mut effects);
                }
            }
            Input::Accepts { key } => {
                if let Some(held) = self.held_as(worker, &key) {
                    let name = ListenerName::of_request(&held.request, &key);
                    self.roll.accepts(worker, name);
                    self.reconsider(worker, now, standing, &mut effects);
                }
            }
            Input::Hides => {
                self.roll.hides(worker);
                self.reconsider(worker, now, standing, &mut effects);
            }
            Input::ListensByItself { names } => {
                for name in names {
                    self.roll.listens(worker, name, now);
                }
                self.reconsider(worker, now, standing, &mut effects);
            }
            Input::Proves => {
                self.proves(worker, now);
                self.reconsider(worker, now, standing, &mut effects);
                self.begin_serving(worker, standing, &mut effects);
            }
            Input::Closes { name } => {
                self.roll.closes(worker, &name, now);
                self.reconsider(worker, now, standing, &mut effects);
            }
            Input::Kept { waits } => {
                self.kept(worker, waits, now);
                self.reconsider(worker, now, standing, &mut effects);
            }
            Input::Leaves => self.leaves(worker, now, standing, &mut effects),
            Input::Admitted => self.begin_serving(worker, standing, &mut effects),
            Input::Moves { position } => {
                self.roll.moves(worker, position);
                self.begin_serving(worker, standing, &mut effects);
            }
            Input::Accepted => {
                self.excuse(worker, now);
                self.becomes_ready(worker, standing, &mut effects);
            }
            Input::Look => self.reconsider(worker, now, standing, &mut effects),
        }
        effects
    }

    fn listens(&mut self, worker: WorkerId, key: &str, counts: bool, now: Duration) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let Some(held) = member.held.get_mut(key) else {
            return;
        };
        held.share = held.share.max(Share::Listens);
        let name = ListenerName::of_request(&held.request, key);
        member.late_with.remove(&name);
        if counts {
            self.roll.listens(worker, name, now);
        }
    }

    fn proves(&mut self, worker: WorkerId, now: Duration) {
        if let Some(member) = self.members.get(&worker)
            && member.comes == Comes::Given
        {
            for (key, held) in &member.held {
                let name = ListenerName::of_request(&held.request, key);
                self.roll.listens(worker, name, now);
            }
        }
        self.roll.proves(worker);
    }

    /// The time in which it opens no further listener begins when it is answered.
    fn kept(&mut self, worker: WorkerId, waits: bool, now: Duration) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.is_kept = waits;
        }
        self.roll.stirs(worker, now);
    }

    /// The worker leaves, or is gone: who follows it may serve what it has.
    fn leaves(
        &mut self,
        worker: WorkerId,
        now: Duration,
        standing: StandingOf<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let position = self.roll.position(worker);
        self.roll.leaves(worker, now);
        for successor in position.map_or_else(Vec::new, |at| self.roll.starting_at(at)) {
            self.begin_serving(successor, standing, effects);
        }
    }

    /// Looks whether the worker is ready by now, and whether others are because it is.
    fn reconsider(
        &mut self,
        worker: WorkerId,
        now: Duration,
        standing: StandingOf<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let mut open = vec![worker];
        while let Some(worker) = open.pop() {
            if self.is_ready_now(worker, now, standing, effects)
                && self.becomes_ready(worker, standing, effects)
            {
                open = self.roll.starting();
            }
        }
    }

    fn is_ready_now(
        &mut self,
        worker: WorkerId,
        now: Duration,
        standing: StandingOf<'_>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let leaves = standing(worker).is_none_or(|standing| standing.departure().is_some());
        let is_kept = (self.members.get(&worker)).is_some_and(|member| member.is_kept);
        if leaves || is_kept || !self.roll.knows(worker) {
            return false;
        }
        match self.roll.verdict(worker, now) {
            Verdict::Ready => return true,
            Verdict::ReadyAt(at) => effects.push(Effect::LookAt { worker, at }),
            Verdict::Lacks(lack) => {
                if self.lacks.get(&worker) != Some(&lack) {
                    self.lacks.insert(worker, lack.clone());
                    effects.push(Effect::Lacks { worker, lack });
                }
            }
        }
        false
    }

    /// The worker is waited for no longer: what it lacks now it may open late.
    fn excuse(&mut self, worker: WorkerId, now: Duration) {
        if let Verdict::Lacks(Lack::Listeners(names) | Lack::EveryListener(names)) =
            self.roll.verdict(worker, now)
            && let Some(member) = self.members.get_mut(&worker)
        {
            member.late_with = names.into_iter().collect();
        }
    }

    /// False when it was ready before.
    fn becomes_ready(
        &mut self,
        worker: WorkerId,
        standing: StandingOf<'_>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !self.roll.settle(worker) {
            return false;
        }
        self.lacks.remove(&worker);
        let Some(member) = self.members.get_mut(&worker) else {
            return false;
        };
        let mut given = Vec::new();
        if member.comes == Comes::Given {
            for held in member.held.values_mut() {
                held.share = held.share.max(Share::Listens);
                given.push(held.listener);
            }
        }
        let is_without = member.held.is_empty();
        effects.push(Effect::HasProven { worker });
        self.begin_serving(worker, standing, effects);
        effects.push(Effect::Ready {
            worker,
            given,
            is_without,
        });
        true
    }

    /// Gives the worker its share of the connections to what it listens on, if it may have one. The one place.
    fn begin_serving(
        &mut self,
        worker: WorkerId,
        standing: StandingOf<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let takes_part = standing(worker).is_some_and(|standing| standing.takes_part());
        if !takes_part || self.roll.is_shut(worker) {
            return;
        }
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let before = effects.len();
        for held in member.held.values_mut() {
            if held.share == Share::Listens {
                held.share = Share::Serves;
                let listener = held.listener;
                effects.push(Effect::Serve { worker, listener });
            }
        }
        if effects.len() > before {
            effects.push(Effect::HasBegun { worker });
        }
    }
}
