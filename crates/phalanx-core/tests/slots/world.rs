//! A listener, its workers, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use phalanx_core::dispatch::slots::{SlotGroup as _, SlotTable};
use phalanx_core::ids::{Position, WorkerId};

use crate::fault::Fault;
use crate::kernel::{Connection, Kernel, Socket};
use crate::rng::Rng;

/// What is wrong, if something is.
pub(crate) type Verdict = Result<(), String>;

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not asked for its socket yet.
    Starting,
    /// It accepts, and is not ready yet.
    Listening(Socket),
    Serving(Socket),
    Leaving(Socket),
}

impl Stage {
    /// It is a successor that does not serve yet.
    fn is_coming(self) -> bool {
        matches!(self, Self::Starting | Self::Listening(_))
    }

    fn socket(self) -> Option<Socket> {
        match self {
            Self::Starting => None,
            Self::Listening(socket) | Self::Serving(socket) | Self::Leaving(socket) => Some(socket),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    position: Position,
    stage: Stage,
    is_stuck: bool,
}

pub(crate) struct World {
    rng: Rng,
    kernel: Kernel,
    table: SlotTable<Socket>,
    workers: BTreeMap<WorkerId, Worker>,
    /// Slots whose holder has gone and that are to be given up in a moment.
    unheld: Vec<Position>,
    positions: u32,
    started: u32,
    arrived: Connection,
    /// How many had arrived when the slots were settled last: a moment is longer than a handshake.
    arrived_before: Connection,
    served: BTreeSet<Connection>,
    is_verbose: bool,
}

impl World {
    pub(crate) fn new(seed: u64, migrates: bool, fault: Option<Fault>, is_verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let (kernel, first) = Kernel::new(migrates, fault);
        Self {
            positions: rng.between(1, 4),
            rng,
            kernel,
            table: SlotTable::new(first),
            workers: BTreeMap::new(),
            unheld: Vec::new(),
            started: 0,
            arrived: 0,
            arrived_before: 0,
            served: BTreeSet::new(),
            is_verbose,
        }
    }

    fn say(&self, what: &str) {
        if self.is_verbose {
            println!("{what}");
        }
    }

    /// One thing that may happen.
    pub(crate) fn step(&mut self) -> Verdict {
        match self.rng.between(0, 99) {
            0..=19 => self.arrive()?,
            20..=34 => drop(self.kernel.establish()),
            35..=49 => self.accept(),
            50..=59 => self.start(),
            60..=69 => self.listen(),
            70..=79 => self.serve(),
            80..=85 => self.leave(),
            86..=91 => self.die(),
            92..=93 => self.stick(),
            94..=96 => drop(self.give_up()),
            _ => drop(self.settle()?),
        }
        if self.kernel.fault == Some(Fault::SettlesAtOnce) {
            while self.table.settle(&mut self.kernel) {}
        }
        self.judge()
    }

    /// A moment passes. False if there is nothing more to settle.
    fn settle(&mut self) -> Result<bool, String> {
        self.kernel.establish_until(self.arrived_before);
        self.arrived_before = self.arrived;
        self.say("a moment passes");
        self.look();
        let more = self.table.settle(&mut self.kernel);
        if !more {
            self.expect_nobody_stranded()?;
        }
        Ok(more)
    }

    /// Where queues move and somebody serves, nobody waits for a worker that does not: save for those whose handshake ended late.
    fn expect_nobody_stranded(&self) -> Verdict {
        let serves =
            |worker: &Worker| matches!(worker.stage, Stage::Serving(_)) && !worker.is_stuck;
        if !self.kernel.migrates || !self.workers.values().any(serves) {
            return Ok(());
        }
        let accepts = |worker: &Worker| serves(worker) || matches!(worker.stage, Stage::Leaving(_));
        let accepting = self.workers.values().filter(|worker| accepts(worker));
        let accepting: BTreeSet<_> = accepting
            .filter_map(|worker| worker.stage.socket())
            .collect();
        let mut waiting = self.kernel.waiting_in_time();
        match waiting.find(|socket| !accepting.contains(socket)) {
            Some(socket) => Err(format!("somebody waits in {socket}, where nobody accepts")),
            None => Ok(()),
        }
    }

    /// Nothing goes wrong any more: everybody is replaced until nothing waits.
    pub(crate) fn heal(&mut self) -> Verdict {
        for worker in self.workers.values_mut() {
            worker.is_stuck = false;
        }
        self.table.set_aside(BTreeSet::new(), &mut self.kernel);
        self.replace(Position(0))?;
        while self.settle()? {}
        // Slow handshakes end in slots that were emptied before.
        while self.kernel.establish() {}
        while self.give_up() {}
        while self.settle()? {}
        self.expect_nothing_left()?;

        let all: Vec<_> = self.workers.keys().copied().collect();
        for worker in all {
            self.end(worker);
            self.judge()?;
        }
        // What cannot move waits for the next worker: it may take a few generations.
        for _ in 0..40 {
            for position in (0..self.positions).map(Position) {
                self.replace(position)?;
            }
            while self.give_up() {}
            while self.settle()? {}
            let serving: Vec<_> = self.workers.keys().copied().collect();
            for worker in serving {
                while self.accept_as(worker) {}
            }
            self.judge()?;
        }
        let unserved = (1..=self.arrived).find(|connection| !self.served.contains(connection));
        match unserved {
            Some(connection) => Err(format!("{connection} was never served")),
            None => Ok(()),
        }
    }

    /// A successor serves at the position, and who was there leaves.
    fn replace(&mut self, position: Position) -> Verdict {
        let old: Vec<_> = self.at(position);
        let is_coming = |worker: &WorkerId| self.workers[worker].stage.is_coming();
        let (coming, serving) = old.into_iter().partition::<Vec<_>, _>(is_coming);
        for worker in coming {
            self.end(worker);
        }
        let new = self.start_at(position);
        self.listen_as(new);
        self.serve_as(new);
        self.judge()?;
        for worker in serving {
            self.leave_as(worker);
            while self.accept_as(worker) {}
            self.end(worker);
            self.judge()?;
        }
        Ok(())
    }

    /// Where queues move, nothing waits where nobody accepts: somebody serves, and the moment has passed.
    fn expect_nothing_left(&self) -> Verdict {
        let workers = self.workers.values();
        let held: BTreeSet<_> = workers.filter_map(|worker| worker.stage.socket()).collect();
        let mut waiting = self.kernel.waiting();
        match waiting.find(|(socket, _)| self.kernel.migrates && !held.contains(socket)) {
            Some((socket, count)) => Err(format!("{count} wait in {socket}, which nobody has")),
            None => Ok(()),
        }
    }

    fn judge(&self) -> Verdict {
        match self.kernel.lost.first() {
            Some(connection) => Err(format!("{connection} was lost with its socket")),
            None => Ok(()),
        }
    }

    fn arrive(&mut self) -> Verdict {
        self.arrived += 1;
        let is_slow = self.rng.between(0, 9) == 0;
        let Some(socket) = self.kernel.arrive(self.arrived, is_slow) else {
            return Err(format!("{} was refused", self.arrived));
        };
        self.say(&format!("{} arrives in {socket}", self.arrived));
        let serving = |worker: &&Worker| matches!(worker.stage, Stage::Serving(_));
        let mut serving = self.workers.values().filter(serving).peekable();
        let is_served = |worker: &Worker| worker.stage == Stage::Serving(socket);
        if serving.peek().is_some() && !serving.any(is_served) {
            return Err(format!(
                "{} went to {socket}, where nobody serves, though others do",
                self.arrived
            ));
        }
        Ok(())
    }

    fn accept(&mut self) {
        if let Some(worker) = self.any(|worker| worker.stage.socket().is_some()) {
            self.accept_as(worker);
        }
    }

    /// False if there was nothing to accept.
    fn accept_as(&mut self, worker: WorkerId) -> bool {
        let Some(at) = self.workers.get(&worker).filter(|at| !at.is_stuck) else {
            return false;
        };
        let accepted = at.stage.socket().and_then(|from| self.kernel.accept(from));
        self.served.extend(accepted);
        accepted.is_some()
    }

    fn start(&mut self) {
        let position = Position(self.rng.between(0, self.positions - 1));
        // A position has one successor at a time.
        let is_coming = |worker: &WorkerId| self.workers[worker].stage.is_coming();
        if !self.at(position).iter().any(is_coming) {
            self.start_at(position);
        }
    }

    fn start_at(&mut self, position: Position) -> WorkerId {
        self.started += 1;
        let worker = WorkerId(self.started);
        let new = Worker {
            position,
            stage: Stage::Starting,
            is_stuck: false,
        };
        self.workers.insert(worker, new);
        self.say(&format!("{worker:?} starts at {position:?}"));
        worker
    }

    fn listen(&mut self) {
        if let Some(worker) = self.any(|worker| worker.stage == Stage::Starting) {
            self.listen_as(worker);
        }
    }

    fn listen_as(&mut self, worker: WorkerId) {
        let position = self.workers[&worker].position;
        let found = self.table.find(position, worker, &mut self.kernel);
        let socket = found.copied().unwrap_or_else(|| {
            let new = self.kernel.socket();
            self.table.bring(worker, new, &mut self.kernel);
            new
        });
        self.say(&format!("{worker:?} listens on {socket}"));
        self.set(worker, Stage::Listening(socket));
    }

    fn serve(&mut self) {
        if let Some(worker) = self.any(|worker| matches!(worker.stage, Stage::Listening(_))) {
            self.serve_as(worker);
        }
    }

    fn serve_as(&mut self, worker: WorkerId) {
        let Worker {
            position, stage, ..
        } = self.workers[&worker];
        let Stage::Listening(socket) = stage else {
            return;
        };
        self.say(&format!("{worker:?} serves"));
        self.table.serves(position, worker, &mut self.kernel);
        // Its predecessor's turn is over.
        for other in self.at(position) {
            if let Stage::Serving(own) = self.workers[&other].stage {
                self.set(other, Stage::Leaving(own));
            }
        }
        self.set(worker, Stage::Serving(socket));
    }

    fn leave(&mut self) {
        if let Some(worker) = self.any(|worker| matches!(worker.stage, Stage::Serving(_))) {
            self.leave_as(worker);
        }
    }

    fn leave_as(&mut self, worker: WorkerId) {
        let Worker {
            position, stage, ..
        } = self.workers[&worker];
        if let Some(socket) = stage.socket() {
            self.say(&format!("{worker:?} leaves"));
            self.table.excludes(position, worker, &mut self.kernel);
            self.set(worker, Stage::Leaving(socket));
        }
    }

    fn die(&mut self) {
        if let Some(worker) = self.any(|_| true) {
            self.end(worker);
        }
    }

    /// The worker ends, whether somebody has killed it or it has left.
    fn end(&mut self, worker: WorkerId) {
        let Some(dead) = self.workers.remove(&worker) else {
            return;
        };
        self.say(&format!("{worker:?} ends"));
        match self.kernel.fault {
            Some(Fault::ForgetsTheDead) => return,
            Some(Fault::ClosesWithItsWorker) => {
                if let Some(socket) = dead.stage.socket() {
                    self.kernel.close(socket);
                }
            }
            _ => {}
        }
        if self.table.gone(dead.position, worker, &mut self.kernel) {
            self.unheld.push(dead.position);
        }
    }

    /// A worker stops to accept, or goes on.
    fn stick(&mut self) {
        let Some(worker) = self.any(|worker| matches!(worker.stage, Stage::Serving(_))) else {
            return;
        };
        if let Some(at) = self.workers.get_mut(&worker) {
            at.is_stuck = !at.is_stuck;
        }
        self.look();
    }

    /// Those that are stuck are set aside, if others are not.
    fn look(&mut self) {
        let serving: Vec<_> = (self.workers.values())
            .filter(|worker| matches!(worker.stage, Stage::Serving(_)))
            .collect();
        let stuck = serving.iter().filter(|worker| worker.is_stuck);
        let stuck: BTreeSet<_> = stuck.map(|worker| worker.position).collect();
        let others = stuck.len() < serving.len();
        let aside = if others { stuck } else { BTreeSet::new() };
        self.say(&format!("stuck: {aside:?}"));
        self.table.set_aside(aside, &mut self.kernel);
    }

    /// False if there was nothing to give up.
    fn give_up(&mut self) -> bool {
        if self.unheld.is_empty() {
            return false;
        }
        let position = self.unheld.remove(0);
        if self.kernel.fault != Some(Fault::NeverGivesUp) {
            self.say(&format!("{position:?} is given up"));
            self.table.give_up(position, &mut self.kernel);
        }
        true
    }

    /// A worker like that, if there is one.
    fn any(&mut self, is_it: impl Fn(&Worker) -> bool) -> Option<WorkerId> {
        let all = self.workers.iter();
        let such = all.filter(|(_, worker)| is_it(worker));
        let such: Vec<_> = such.map(|(&id, _)| id).collect();
        (!such.is_empty()).then(|| self.rng.pick(&such))
    }

    fn at(&self, position: Position) -> Vec<WorkerId> {
        let all = self.workers.iter();
        let there = all.filter(|(_, worker)| worker.position == position);
        there.map(|(&id, _)| id).collect()
    }

    fn set(&mut self, worker: WorkerId, stage: Stage) {
        if let Some(at) = self.workers.get_mut(&worker) {
            at.stage = stage;
        }
    }
}
