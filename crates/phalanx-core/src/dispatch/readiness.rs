//! When a worker is ready: which listeners it owes, and what else has to prove that it serves.
//!
//! A successor owes every listener that its predecessor held. What is known is kept by release, because a
//! revert returns to what the earlier release held. A release that was never seen to serve owes what the one
//! before it holds at the same position; where that position is new, what all positions hold. Where nothing
//! is known yet, a worker is ready when it has opened no further listener for a while.
//!
//! To listen is not yet to accept: a program may listen first and fail to load then. Where the predecessor was seen to accept
//! connections, a successor has to be seen at it, too, as long as it can be looked at.
//!
//! INVARIANT: a worker that is not ready gets no new connections while another that is serves at its position.

mod lack;
mod name;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, Position, WorkerId};
pub use lack::Lack;
pub use name::ListenerName;

/// A listener that was closed so long before its worker left is one that the app has given up; one that is closed
/// later may belong to the leave.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);

/// What proves that a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "each is judged in its own way")]
pub enum Proof {
    /// That it holds the listeners that it owes; or its word, if it gives one before.
    Listeners,
    /// Its word, and the listeners that it owes.
    Word,
    /// A good answer, and the listeners that it owes.
    Answer,
    /// That its program runs.
    Running,
}

/// Ports on which debuggers wait: of Node, Python (debugpy), Java (JDWP), Go (Delve).
const DEBUG_PORTS: [u16; 4] = [9229, 5678, 5005, 2345];

/// Whether a socket that a worker opened by itself is a debugger's, which proves nothing. `inspector` is the
/// port that the worker's inspector was given, if it has one: 0 for any.
#[must_use]
pub fn is_debugger(address: SocketAddr, inspector: Option<u16>) -> bool {
    let port = address.port();
    let is_inspector = inspector == Some(port);
    let may_be = DEBUG_PORTS.contains(&port) || inspector == Some(0);
    is_inspector || (address.ip().is_loopback() && may_be)
}

/// Whether a worker is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each is acted upon")]
pub enum Verdict {
    /// It is.
    Ready,
    /// It will be at this time, if it opens and closes no listener until then.
    ReadyAt(Duration),
    /// It is not.
    Lacks(Lack),
}

/// What is known of one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Candidate {
    position: Position,
    generation: Generation,
    proof: Proof,
    held: BTreeSet<ListenerName>,
    /// Where it was seen to accept connections.
    accepting: BTreeSet<ListenerName>,
    /// It cannot be seen to accept connections, whether it does or not.
    is_hidden: bool,
    /// Listeners that it has closed since it is ready, and when.
    closed: BTreeMap<ListenerName, Duration>,
    /// When it last opened or closed a listener.
    changed_at: Duration,
    /// It gave its word or its answer.
    has_proof: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Starting,
    Ready,
    Leaving,
}

type Held = BTreeMap<Position, BTreeSet<ListenerName>>;

/// The workers of one app, and what the app's releases were seen to hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Roll {
    quiet: Duration,
    candidates: BTreeMap<WorkerId, Candidate>,
    known: BTreeMap<Generation, Held>,
    /// Where ready workers were seen to accept connections.
    accepted: Held,
    /// The generation that last became ready, by position.
    served: BTreeMap<Position, Generation>,
    /// Workers of this app open listeners to try them, and close them again.
    rehearses: bool,
}

impl Roll {
    /// An app of which nothing is known. A worker that owes nothing is ready `quiet` after it opened its
    /// last listener.
    #[must_use]
    pub fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            candidates: BTreeMap::new(),
            known: BTreeMap::new(),
            accepted: BTreeMap::new(),
            served: BTreeMap::new(),
            rehearses: false,
        }
    }

    /// Sets how long a worker that owes nothing is to open no further listener.
    pub fn set_quiet(&mut self, quiet: Duration) {
        self.quiet = quiet;
    }

    /// Whether the worker was enrolled and is not gone.
    #[must_use]
    pub fn knows(&self, worker: WorkerId) -> bool {
        self.candidates.contains_key(&worker)
    }

    /// The worker's position, as long as it is not gone.
    #[must_use]
    pub fn position(&self, worker: WorkerId) -> Option<Position> {
        self.candidates.get(&worker).map(|one| one.position)
    }

    /// A worker starts.
    pub fn enrol(
        &mut self,
        worker: WorkerId,
        (position, generation): (Position, Generation),
        proof: Proof,
        now: Duration,
    ) {
        self.forget_given_up(position, now);
        self.candidates.insert(
            worker,
            Candidate {
                position,
                generation,
                proof,
                held: BTreeSet::new(),
                accepting: BTreeSet::new(),
                is_hidden: false,
                closed: BTreeMap::new(),
                changed_at: now,
                has_proof: proof == Proof::Running,
                stage: Stage::Starting,
            },
        );
    }

    /// The worker listens on it.
    pub fn listens(&mut self, worker: WorkerId, name: ListenerName, now: Duration) {
        let Some(candidate) = self.candidates.get_mut(&worker) else {
            return;
        };
        candidate.changed_at = now;
        candidate.closed.remove(&name);
        // A port that the kernel chose while the worker served was opened for the moment (a data connection, a helper):
        // a successor that starts has no reason to open one.
        if candidate.stage == Stage::Ready && !name.is_free_port() {
            let known = self.known.entry(candidate.generation).or_default();
            known
                .entry(candidate.position)
                .or_default()
                .insert(name.clone());
        }
        candidate.held.insert(name);
    }

    /// The worker was seen to accept connections there.
    pub fn accepts(&mut self, worker: WorkerId, name: ListenerName) {
        let Some(candidate) = self.candidates.get_mut(&worker) else {
            return;
        };
        if candidate.stage == Stage::Ready {
            let accepted = self.accepted.entry(candidate.position).or_default();
            accepted.insert(name.clone());
        }
        candidate.accepting.insert(name);
    }

    /// The worker cannot be seen to accept connections, whether it does or not.
    pub fn hides(&mut self, worker: WorkerId) {
        if let Some(candidate) = self.candidates.get_mut(&worker) {
            candidate.is_hidden = true;
        }
    }

    /// The worker is about to open another listener: if it has to be watched for those, then from now on.
    pub fn stirs(&mut self, worker: WorkerId, now: Duration) {
        let candidate = self.candidates.get_mut(&worker);
        if let Some(candidate) = candidate.filter(|candidate| candidate.stage == Stage::Starting) {
            candidate.changed_at = now;
        }
    }

    /// The worker has closed it.
    pub fn closes(&mut self, worker: WorkerId, name: &ListenerName, now: Duration) {
        let Some(candidate) = self.candidates.get_mut(&worker) else {
            return;
        };
        if !candidate.held.remove(name) {
            return;
        }
        candidate.changed_at = now;
        match candidate.stage {
            Stage::Starting => self.rehearses = true,
            Stage::Ready => drop(candidate.closed.insert(name.clone(), now)),
            Stage::Leaving => {}
        }
    }

    /// The listener is not the app's any more, but one worker's own: nobody owes it.
    pub fn disown(&mut self, name: &ListenerName) {
        for candidate in self.candidates.values_mut() {
            candidate.held.remove(name);
        }
        let accepted = self.accepted.values_mut();
        let known = self.known.values_mut().flat_map(BTreeMap::values_mut);
        for known in known.chain(accepted) {
            known.remove(name);
        }
    }

    /// The worker has said that it is ready, or answered well.
    pub fn proves(&mut self, worker: WorkerId) {
        if let Some(candidate) = self.candidates.get_mut(&worker) {
            candidate.has_proof = true;
        }
    }

    /// A spare takes a position: what it holds is held there.
    pub fn moves(&mut self, worker: WorkerId, position: Position) {
        let Some(candidate) = self.candidates.get_mut(&worker) else {
            return;
        };
        let place = std::mem::replace(&mut candidate.position, position);
        let (held, generation) = (candidate.held.clone(), candidate.generation);
        if candidate.stage == Stage::Ready {
            let known = self.known.entry(generation).or_default();
            known.remove(&place);
            known.insert(position, held);
            if let Some(accepted) = self.accepted.remove(&place) {
                self.accepted.entry(position).or_default().extend(accepted);
            }
            self.served.remove(&place);
            self.served.insert(position, generation);
        }
    }

    /// The worker leaves: it is nobody's reason to wait any more.
    pub fn leaves(&mut self, worker: WorkerId, now: Duration) {
        let Some(candidate) = self.candidates.get(&worker) else {
            return;
        };
        self.forget_given_up(candidate.position, now);
        if let Some(candidate) = self.candidates.get_mut(&worker) {
            candidate.stage = Stage::Leaving;
        }
    }

    /// The worker is gone.
    pub fn gone(&mut self, worker: WorkerId, now: Duration) {
        self.leaves(worker, now);
        self.candidates.remove(&worker);
    }

    /// No worker of this generation will be started any more.
    pub fn drop_generation(&mut self, generation: Generation) {
        if !self.served.values().any(|&served| served == generation) {
            self.known.remove(&generation);
        }
    }

    /// Listeners that ready workers of this position have closed for good are not owed by anybody.
    fn forget_given_up(&mut self, position: Position, now: Duration) {
        let ready = self.candidates.values_mut();
        let ready = ready.filter(|one| one.position == position && one.stage == Stage::Ready);
        for candidate in ready {
            let known = self.known.get_mut(&candidate.generation);
            let mut known = known.and_then(|held| held.get_mut(&position));
            candidate.closed.retain(|name, &mut at| {
                let is_given_up = now.saturating_sub(at) >= GIVEN_UP_AFTER;
                if is_given_up && let Some(known) = known.as_mut() {
                    known.remove(name);
                }
                !is_given_up
            });
        }
    }

    /// What a worker of this generation owes at this position; nothing if nothing is known.
    ///
    /// Nobody outside knows the port of a listener that a worker opened by itself and the kernel chose: it is owed
    /// only where there is no other. Whether it is seen at all depends on when somebody looks.
    fn owed(&self, position: Position, generation: Generation) -> BTreeSet<ListenerName> {
        let mut owed = self.was_held(position, generation);
        if !owed.iter().all(ListenerName::is_own_free_port) {
            owed.retain(|name| !name.is_own_free_port());
        }
        owed
    }

    /// What is known to be held at this position.
    fn was_held(&self, position: Position, generation: Generation) -> BTreeSet<ListenerName> {
        let release = match self.known.get(&generation) {
            Some(_) => Some(generation),
            None => self
                .served
                .get(&position)
                .or_else(|| self.served.values().max())
                .copied(),
        };
        let Some(held) = release.and_then(|release| self.known.get(&release)) else {
            return BTreeSet::new();
        };
        if let Some(own) = held.get(&position) {
            return own.clone();
        }
        let mut all = held.values();
        let first = all.next().cloned().unwrap_or_default();
        all.fold(first, |common, one| &common & one)
    }

    /// Where the worker listens only, and its predecessor was seen to accept connections.
    fn unaccepted(&self, candidate: &Candidate) -> Vec<ListenerName> {
        let accepted = self.accepted.get(&candidate.position);
        let judged =
            accepted.filter(|_| candidate.proof == Proof::Listeners && !candidate.is_hidden);
        let owed = judged
            .into_iter()
            .flatten()
            .filter(|&name| candidate.held.contains(name) && !candidate.accepting.contains(name));
        owed.cloned().collect()
    }

    /// Whether the worker is ready. One that is not known, or leaves, lacks everything.
    #[must_use]
    pub fn verdict(&self, worker: WorkerId, now: Duration) -> Verdict {
        let Some(candidate) = self.candidates.get(&worker) else {
            return Verdict::Lacks(Lack::AnyListener);
        };
        if candidate.stage == Stage::Ready {
            return Verdict::Ready;
        }
        match (candidate.proof, candidate.has_proof) {
            (Proof::Running, _) => return Verdict::Ready,
            (Proof::Word, false) => return Verdict::Lacks(Lack::Word),
            (Proof::Answer, false) => return Verdict::Lacks(Lack::Answer),
            (Proof::Listeners | Proof::Word | Proof::Answer, _) => {}
        }
        let owed = self.owed(candidate.position, candidate.generation);
        let missing: Vec<_> = owed.difference(&candidate.held).cloned().collect();
        if !missing.is_empty() {
            let lack = if candidate.held.is_empty() {
                Lack::EveryListener(missing)
            } else {
                Lack::Listeners(missing)
            };
            return Verdict::Lacks(lack);
        }
        let unaccepted = self.unaccepted(candidate);
        if !unaccepted.is_empty() {
            return Verdict::Lacks(Lack::Accepting(unaccepted));
        }
        if candidate.has_proof {
            return Verdict::Ready;
        }
        if candidate.held.is_empty() {
            return Verdict::Lacks(Lack::AnyListener);
        }
        let quiet_at = candidate.changed_at.saturating_add(self.quiet);
        if (owed.is_empty() || self.rehearses) && now < quiet_at {
            return Verdict::ReadyAt(quiet_at);
        }
        Verdict::Ready
    }

    /// The worker counts as ready from now on, whatever it lacks. False if it did already, or leaves.
    pub fn settle(&mut self, worker: WorkerId) -> bool {
        let Some(candidate) = self.candidates.get_mut(&worker) else {
            return false;
        };
        if candidate.stage != Stage::Starting {
            return false;
        }
        candidate.stage = Stage::Ready;
        let known = self.known.entry(candidate.generation).or_default();
        known.insert(candidate.position, candidate.held.clone());
        let accepted = self.accepted.entry(candidate.position).or_default();
        accepted.extend(candidate.accepting.iter().cloned());
        self.served.insert(candidate.position, candidate.generation);
        true
    }

    /// Whether the worker is to get no new connections yet, on any listener.
    #[must_use]
    pub fn is_shut(&self, worker: WorkerId) -> bool {
        let Some(candidate) = self.candidates.get(&worker) else {
            return false;
        };
        let awaits_proof = match candidate.proof {
            Proof::Word | Proof::Answer => !candidate.has_proof,
            Proof::Listeners | Proof::Running => false,
        };
        let mut all = self.candidates.values();
        let mut has_predecessor =
            || all.any(|other| other.position == candidate.position && other.stage == Stage::Ready);
        candidate.stage == Stage::Starting && (awaits_proof || has_predecessor())
    }

    /// Those at this position that start.
    #[must_use]
    pub fn starting_at(&self, position: Position) -> Vec<WorkerId> {
        let all = self.candidates.iter();
        let starting = all.filter(|(_, candidate)| {
            candidate.position == position && candidate.stage == Stage::Starting
        });
        starting.map(|(&worker, _)| worker).collect()
    }

    /// Those that start, wherever.
    #[must_use]
    pub fn starting(&self) -> Vec<WorkerId> {
        let all = self.candidates.iter();
        let starting = all.filter(|(_, candidate)| candidate.stage == Stage::Starting);
        starting.map(|(&worker, _)| worker).collect()
    }
}
