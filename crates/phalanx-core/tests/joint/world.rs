//! A model world: the fleet's orders, processes with fates, clients, and a wire that delays and loses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use phalanx_core::backoff::BackoffConfig;
use phalanx_core::dispatch::machine::Machine;
use phalanx_core::dispatch::worker::Worker;
use phalanx_core::fleet::{
    BootPolicy, Command, CommandId, Event, Fleet, FleetConfig, ReloadPlan, ScaleTo,
};
use phalanx_core::ids::{ExitStatus, Generation, WorkerId};
use phalanx_core::ledger::{Ledger, ListenerId};

use crate::fault::Fault;
use crate::judge::{Connections, Owner, Verdict};
use crate::process::{ADMIN, Process, Release, WEB};
use crate::rng::Rng;

/// No history has any business taking more steps.
const MOST_STEPS: u32 = 200_000;
/// When faults end.
pub(crate) const HEALS_AT: Duration = Duration::from_secs(20);
/// A worker that owes nothing is ready after so long without another listener.
const QUIET: Duration = Duration::from_millis(300);

/// A listener, and what waits in the kernel for it.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    pub(crate) backlog: VecDeque<u64>,
}

/// A worker on its way out.
#[derive(Debug)]
pub(crate) struct Draining {
    pub(crate) began: Duration,
    /// It is told to leave within that, whatever it does.
    pub(crate) limit: Duration,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Item {
    Fleet(Event),
    Online(WorkerId),
    Listens(WorkerId, ListenerId),
    /// The worker's event loop turns.
    Reads(WorkerId),
    /// The primary reads what the worker wrote.
    Answers(WorkerId),
    Answered(WorkerId, u64),
    Drain(WorkerId),
    /// The word to leave reaches the worker.
    Told(WorkerId),
    OwnWish(WorkerId),
    Stuck(WorkerId, Duration),
    Exits(WorkerId, ExitStatus),
    LookAt(WorkerId),
    Arrives(ListenerId),
    LookAtStuck,
    Forgive,
    LosePatience,
    Abandoned,
}

/// One history in the making.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) config: FleetConfig,
    pub(crate) fleet: Fleet,
    pub(crate) machine: Machine<u32>,
    pub(crate) ledger: Ledger<u64>,
    pub(crate) standing: BTreeMap<WorkerId, Worker>,
    pub(crate) drains: BTreeMap<WorkerId, Draining>,
    pub(crate) listeners: BTreeMap<ListenerId, Listener>,
    pub(crate) abandoned: BTreeMap<ListenerId, Duration>,
    pub(crate) last_handoff: BTreeMap<WorkerId, Duration>,
    /// The offers on their way, by number.
    pub(crate) offers: BTreeMap<u64, u64>,
    pub(crate) connections: Connections,
    pub(crate) processes: BTreeMap<WorkerId, Process>,
    pub(crate) releases: BTreeMap<Generation, Release>,
    /// Newcomers are refused: the app stops.
    pub(crate) is_refusing: bool,
    pub(crate) is_finished: bool,
    /// Who was spawned to be held back, and has not been admitted.
    pub(crate) held_back: BTreeSet<WorkerId>,
    fault: Option<Fault>,
    queue: BTreeMap<(Duration, u64), Item>,
    queued: u64,
    commands: u64,
    steps: u32,
    pub(crate) is_verbose: bool,
    /// Every so many steps the primary is continued from what was written down of it.
    pub(crate) continued_every: Option<u32>,
}

fn draw_config(rng: &mut Rng) -> FleetConfig {
    FleetConfig {
        workers: rng.between(1, 4),
        ready_timeout: rng.millis(800, 3_000),
        drain_timeout: rng.millis(500, 4_000),
        kill_timeout: rng.millis(200, 1_000),
        soak: rng.pick(&[0, 0, 400]) * Duration::from_millis(1),
        backoff: BackoffConfig::new(
            Duration::from_millis(50),
            Duration::from_secs(1),
            Duration::from_secs(2),
        )
        .expect("a fair backoff"),
        boot: BootPolicy::Retry,
        seed: rng.seed(),
        ..FleetConfig::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, is_verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let config = draw_config(&mut rng);
        let fleet = Fleet::new(config.clone()).expect("a fair configuration");
        let mut world = Self {
            rng,
            now: Duration::ZERO,
            config,
            fleet,
            machine: Machine::new(QUIET),
            ledger: Ledger::new(4),
            standing: BTreeMap::new(),
            drains: BTreeMap::new(),
            listeners: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            last_handoff: BTreeMap::new(),
            offers: BTreeMap::new(),
            connections: Connections::default(),
            processes: BTreeMap::new(),
            releases: BTreeMap::new(),
            is_refusing: false,
            is_finished: false,
            held_back: BTreeSet::new(),
            fault,
            queue: BTreeMap::new(),
            queued: 0,
            commands: 0,
            steps: 0,
            is_verbose,
            continued_every: None,
        };
        world.after(Duration::ZERO, Item::Fleet(Event::Start));
        world.after(Duration::from_millis(250), Item::LookAtStuck);
        world.plan();
        world
    }

    /// Clients, and what is wanted of the fleet.
    fn plan(&mut self) {
        for _ in 0..self.rng.between(50, 300) {
            let at = self.rng.up_to(HEALS_AT + Duration::from_secs(5));
            let listener = if self.rng.chance(70) { WEB } else { ADMIN };
            self.at(at, Item::Arrives(listener));
        }
        for _ in 0..self.rng.between(0, 5) {
            let at = self.rng.up_to(HEALS_AT);
            let command = match self.rng.between(0, 4) {
                0 => Command::Scale(ScaleTo::Exactly(self.rng.between(1, 4))),
                1 => Command::Rollback,
                _ => Command::Reload(ReloadPlan::default()),
            };
            self.order(at, command);
        }
    }

    pub(crate) fn order(&mut self, at: Duration, command: Command) {
        self.commands += 1;
        let id = CommandId(self.commands);
        self.at(at, Item::Fleet(Event::Command { id, command }));
    }

    pub(crate) fn has_fault(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.now >= HEALS_AT
    }

    pub(crate) fn process(&mut self, worker: WorkerId) -> &mut Process {
        self.processes
            .get_mut(&worker)
            .expect("a worker that was started")
    }

    pub(crate) fn stand(&mut self, worker: WorkerId) -> &mut Worker {
        self.standing
            .get_mut(&worker)
            .expect("a worker that was started")
    }

    pub(crate) fn after(&mut self, time: Duration, item: Item) {
        self.at(self.now + time, item);
    }

    pub(crate) fn at(&mut self, at: Duration, item: Item) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), item);
    }

    pub(crate) fn send(&mut self, event: Event) {
        let delay = self.rng.millis(0, 3);
        self.after(delay, Item::Fleet(event));
    }

    /// The same, and sometimes loses it.
    pub(crate) fn send_lossy(&mut self, event: Event) {
        if self.is_healed() || self.rng.chance(90) {
            self.send(event);
        }
    }

    /// Plays until that time, or until the app has ended.
    pub(crate) fn run(&mut self, until: Duration) -> Verdict {
        while !self.is_finished {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err("the app spins".to_owned());
            }
            let next_item = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next_tick = self.fleet.next_deadline().map(|at| at.max(self.now));
            let Some(next) = next_item.into_iter().chain(next_tick).min() else {
                break;
            };
            if next > until {
                break;
            }
            self.now = next;
            if self
                .continued_every
                .is_some_and(|every| self.steps.is_multiple_of(every))
            {
                self.continue_from_text()?;
            }
            if next_item == Some(next) {
                if let Some((_, item)) = self.queue.pop_first() {
                    self.happens(item)?;
                }
            } else {
                self.tell(Event::Tick)?;
            }
            self.expect_one_owner()?;
            self.expect_drains_to_end()?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// The dispatch machine is written down and read again.
    fn continue_from_text(&mut self) -> Verdict {
        let text = serde_json::to_string(&(&self.machine, &self.standing));
        let text = text.map_err(|error| format!("cannot be written down: {error}"))?;
        (self.machine, self.standing) = serde_json::from_str(&text)
            .map_err(|error| format!("cannot be read again: {error}"))?;
        Ok(())
    }

    fn happens(&mut self, item: Item) -> Verdict {
        if self.is_verbose && !matches!(item, Item::LookAtStuck) {
            println!("{:>9.3}s {item:?}", self.now.as_secs_f64());
        }
        match item {
            Item::Fleet(event) => self.tell(event),
            Item::Arrives(listener) => self.arrives(listener),
            Item::LookAtStuck => self.look_at_stuck(),
            Item::Abandoned => self.look_at_abandoned(),
            Item::Forgive => {
                self.ledger.forgive();
                self.pump()
            }
            Item::LosePatience => {
                self.ledger.lose_patience();
                self.pump()
            }
            Item::LookAt(worker) => self.look_at(worker),
            Item::Drain(worker) => self.look_at_drain(worker),
            Item::Answers(worker) if self.processes[&worker].is_alive => self.read_answers(worker),
            Item::Answers(_) => Ok(()),
            Item::Online(worker)
            | Item::Listens(worker, _)
            | Item::Reads(worker)
            | Item::Answered(worker, _)
            | Item::Told(worker)
            | Item::OwnWish(worker)
            | Item::Stuck(worker, _)
            | Item::Exits(worker, _) => {
                if self.processes[&worker].is_alive {
                    self.acts(worker, item)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// A client connects, if somebody listens and is not about to stop.
    fn arrives(&mut self, listener: ListenerId) -> Verdict {
        if self.is_refusing || !self.listeners.contains_key(&listener) {
            return Ok(());
        }
        let connection = self.connections.arrives(listener);
        if let Some(opened) = self.listeners.get_mut(&listener) {
            opened.backlog.push_back(connection);
        }
        self.pump()
    }

    /// An offer is on its way to the worker.
    pub(crate) fn delivers(&mut self, worker: WorkerId, seq: u64, connection: u64) {
        self.offers.insert(seq, connection);
        self.connections.goes(connection, Owner::Offered(worker));
        self.last_handoff.insert(worker, self.now);
        self.process(worker).inbox.push((seq, connection));
        let delay = self.rng.millis(0, 5);
        self.after(delay, Item::Reads(worker));
    }

    /// A process that lives does something.
    fn acts(&mut self, worker: WorkerId, item: Item) -> Verdict {
        let waits = self.processes[&worker].stuck_until;
        let is_held_up = waits > self.now && !matches!(item, Item::Exits(..));
        if is_held_up && !self.is_healed() {
            self.at(waits, item);
            return Ok(());
        }
        match item {
            Item::Online(_) => self.send_lossy(Event::Online { worker }),
            Item::Listens(_, listener) => self.listens(worker, listener)?,
            Item::Reads(_) => self.reads(worker),
            Item::Answered(_, connection) => {
                self.process(worker).serving.remove(&connection);
                if self.connections.owner(connection) == Some(Owner::Worker(worker)) {
                    self.connections.goes(connection, Owner::Answered);
                }
            }
            Item::Told(_) => {
                self.process(worker).leaves = true;
                self.after(Duration::ZERO, Item::Reads(worker));
                if self.processes[&worker].fate.closes {
                    self.releases(worker, WEB)?;
                    self.releases(worker, ADMIN)?;
                }
            }
            Item::OwnWish(_) => {
                self.process(worker).leaves = true;
                self.after(Duration::ZERO, Item::Reads(worker));
                self.leaves(worker)?;
            }
            Item::Stuck(_, time) => self.process(worker).stuck_until = self.now + time,
            Item::Exits(_, status) => return self.exited(worker, status),
            Item::Fleet(_)
            | Item::Answers(_)
            | Item::Drain(_)
            | Item::LookAt(_)
            | Item::Arrives(_)
            | Item::LookAtStuck
            | Item::Forgive
            | Item::LosePatience
            | Item::Abandoned => {}
        }
        if self.processes[&worker].is_done() {
            self.after(
                Duration::from_millis(2),
                Item::Exits(worker, ExitStatus::Code(0)),
            );
        }
        Ok(())
    }

    fn reads(&mut self, worker: WorkerId) {
        for (seq, connection) in std::mem::take(&mut self.process(worker).inbox) {
            let is_lost = !self.is_healed() && self.rng.chance(5);
            let accepted = !self.processes[&worker].leaves && !is_lost;
            if accepted {
                let time = self.rng.millis(5, 300);
                self.process(worker).serving.insert(connection);
                self.after(time, Item::Answered(worker, connection));
            }
            self.process(worker).outbox.push((seq, accepted));
        }
        self.after(Duration::from_millis(1), Item::Answers(worker));
    }
}
