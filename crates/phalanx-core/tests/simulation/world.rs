//! A model world: processes with fates, users with wishes, and a wire that delays, loses and
//! doubles what it carries.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use phalanx_core::dispatch::readiness::Lack;
use phalanx_core::fleet::{Action, CommandId, Done, Event, FailureReason, Fleet, Refusal, Report};
use phalanx_core::ids::{ExitStatus, Generation, WorkerId};

use crate::coverage::Coverage;
use crate::judge::{Judge, Verdict};
use crate::model::Model;
use crate::plan::{Fate, Plan, Release};
use crate::process::{Deed, Plot, Process};
use crate::rng::Rng;

/// No history has any business taking more steps.
const MOST_STEPS: u32 = 400_000;

/// One history in the making.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) judge: Judge,
    pub(crate) coverage: Coverage,
    pub(crate) now: Duration,
    /// Faults have ended.
    pub(crate) is_healed: bool,
    pub(crate) fleet: Fleet,
    pub(crate) queue: BTreeMap<(Duration, u64), Item>,
    queued: u64,
    pub(crate) processes: BTreeMap<WorkerId, Process>,
    pub(crate) releases: BTreeMap<Generation, Release>,
    pub(crate) replies: BTreeMap<CommandId, Result<Done, Refusal>>,
    pub(crate) commands: u64,
    /// Watches so far, and since when the present one is.
    pub(crate) watches: u32,
    pub(crate) watched_since: Option<Duration>,
    steps: u32,
    is_verbose: bool,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Item {
    /// The fleet is told.
    Deliver(Event),
    /// A process does something.
    Happen(Plot),
    /// Somebody kills a worker from outside.
    KillSomebody,
    /// A worker is worn out.
    WearSomebody,
    /// The load asks for another size.
    Resize,
    /// Workers send their figures, in the watch of that number.
    Figures(u32),
}

impl World {
    pub(crate) fn new(seed: u64, is_verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let fleet = Fleet::new(plan.config.clone()).expect("the plan has checked it");
        let mut world = Self {
            judge: Judge::new(Model::new(plan.config.clone())),
            coverage: Coverage::default(),
            now: Duration::ZERO,
            is_healed: false,
            fleet,
            queue: BTreeMap::new(),
            queued: 0,
            processes: BTreeMap::new(),
            releases: BTreeMap::new(),
            replies: BTreeMap::new(),
            commands: 0,
            watches: 0,
            watched_since: None,
            steps: 0,
            is_verbose,
            rng,
            plan,
        };
        world.trace("plan", &world.plan);
        let start = if world.rng.chance(90) { 0 } else { 300 };
        world.push(Duration::from_millis(start), Item::Deliver(Event::Start));
        for (at, command) in world.plan.orders.clone() {
            world.order(at, command);
        }
        for event in [
            Event::Start,
            Event::Ready {
                worker: WorkerId(1_000_000),
            },
        ] {
            let at = world.rng.up_to(world.plan.heals_at);
            world.push(at, Item::Deliver(event));
        }
        for at in world.plan.kills.clone() {
            world.push(at, Item::KillSomebody);
        }
        for at in world.plan.resizes.clone() {
            world.push(at, Item::Resize);
        }
        for at in world.plan.wears.clone() {
            world.push(at, Item::WearSomebody);
        }
        world
    }

    /// The faults end. What hangs in the kernel comes loose.
    pub(crate) fn heal(&mut self) {
        self.is_healed = true;
        self.trace("healed", &self.now);
        let killed: Vec<WorkerId> = self
            .processes
            .iter()
            .filter(|(_, process)| process.is_alive && process.was_killed)
            .map(|(worker, _)| *worker)
            .collect();
        for worker in killed {
            self.kill(worker);
        }
    }

    fn kill(&mut self, worker: WorkerId) {
        let is_healed = self.is_healed;
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        process.was_killed = true;
        if is_healed {
            process.fate.kill = Duration::ZERO;
        }
        let plot = process.is_killed(worker);
        self.plot_all(plot);
    }

    /// Lets the world run until nothing more happens before `until`, or until `is_over`.
    pub(crate) fn run(&mut self, until: Duration, is_over: impl Fn(&Self) -> bool) -> Verdict {
        while !is_over(self) {
            let next_item = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next_tick = self.fleet.next_deadline().map(|at| at.max(self.now));
            let Some(next) = next_item.into_iter().chain(next_tick).min() else {
                break;
            };
            if next > until {
                self.now = until;
                break;
            }
            self.now = next;
            if next_tick == Some(next) && next_item != Some(next) {
                if !self.is_healed && self.rng.chance(10) {
                    // The runtime's timer is late.
                    self.now += self.rng.millis(0, 20);
                }
                self.tell(&Event::Tick)?;
            } else if let Some((_, item)) = self.queue.pop_first() {
                self.happen(item)?;
            }
        }
        Ok(())
    }

    fn happen(&mut self, item: Item) -> Verdict {
        match item {
            Item::Deliver(event) => self.tell(&event)?,
            Item::Happen(plot) => {
                if !(plot.is_fault && self.is_healed) {
                    self.act(plot);
                }
            }
            Item::Figures(watch) => self.send_figures(watch),
            Item::Resize => self.resize(),
            Item::WearSomebody => self.wear_somebody(),
            Item::KillSomebody => {
                let alive: Vec<WorkerId> = self
                    .processes
                    .iter()
                    .filter(|(_, process)| process.is_alive)
                    .map(|(worker, _)| *worker)
                    .collect();
                if !alive.is_empty() && !self.is_healed {
                    let worker = self.rng.pick(&alive);
                    self.kill(worker);
                }
            }
        }
        Ok(())
    }

    /// Tells the fleet, has the step judged, and carries out what the fleet wants.
    fn tell(&mut self, event: &Event) -> Verdict {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err("the fleet spins".to_owned());
        }
        self.trace("event", event);
        let actions = self.fleet.step(event.clone(), self.now);
        for action in &actions {
            self.trace("    action", action);
            self.coverage.note(action);
        }
        self.judge.step(event, &actions, self.now)?;
        let may_stall = self.plan.some_hang || self.model().surge() == 0;
        if !may_stall && actions.iter().any(has_stalled) {
            return Err("a rollout stalled although there was room and nothing hangs".to_owned());
        }
        let deadline = self.fleet.next_deadline();
        let is_idle_tick = *event == Event::Tick && actions.is_empty();
        if is_idle_tick && deadline.is_some_and(|deadline| deadline <= self.now) {
            return Err(format!(
                "the tick changed nothing and is due again: {deadline:?}"
            ));
        }
        if self.steps.is_multiple_of(4) {
            self.expect_rest()?;
        }
        for action in actions {
            self.carry_out(action);
        }
        Ok(())
    }

    /// Whatever the fleet left undone waits for something: an event that means nothing moves
    /// nothing.
    fn expect_rest(&mut self) -> Verdict {
        let worker = WorkerId(u32::MAX);
        let actions = self.fleet.step(Event::Online { worker }, self.now);
        if actions.is_empty() {
            Ok(())
        } else {
            Err(format!("the step before had left undone: {actions:?}"))
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::NewGeneration(generation) => {
                let release = Release::draw(&mut self.rng);
                self.trace("release", &(generation, release));
                self.releases.insert(generation, release);
            }
            Action::Spawn {
                worker, generation, ..
            } => {
                let fate = if self.is_healed {
                    Fate::healthy(&mut self.rng)
                } else {
                    Fate::draw(&self.plan, self.releases[&generation], &mut self.rng)
                };
                self.trace("fate", &fate);
                let process = Process::new(fate, generation);
                self.plot_all(process.begins(worker));
                self.processes.insert(worker, process);
            }
            Action::Drain { worker } => {
                let plots = self.processes[&worker].drains(worker);
                self.plot_all(plots);
            }
            Action::Stop { worker } => {
                let plot = self.processes[&worker].is_stopped(worker);
                self.plot_all(plot);
            }
            Action::Kill { worker } => self.kill(worker),
            Action::Reply { command, result } => {
                self.replies.insert(command, result);
            }
            Action::Accept { worker } => {
                let process = self.processes.get_mut(&worker);
                let life = process.and_then(|process| {
                    process.serves = true;
                    process.lives(worker)
                });
                self.plot_all(life);
            }
            Action::BeginWatch => {
                self.watches += 1;
                self.watched_since = Some(self.now);
                self.push(Duration::from_secs(1), Item::Figures(self.watches));
            }
            Action::EndWatch => self.watched_since = None,
            Action::DropGeneration(_)
            | Action::Admit { .. }
            | Action::Promote { .. }
            | Action::Refuse
            | Action::Report(_)
            | Action::Settled { .. }
            | Action::Finished(_) => {}
        }
    }

    fn plot_all(&mut self, plots: impl IntoIterator<Item = Plot>) {
        for plot in plots {
            self.push(plot.after, Item::Happen(plot));
        }
    }

    /// A process does something, and the fleet will hear of it.
    fn act(&mut self, plot: Plot) {
        let worker = plot.worker;
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        if !process.is_alive {
            return;
        }
        match plot.deed {
            Deed::FailsToSpawn => {
                process.is_alive = false;
                let reason = "no such file".to_owned();
                self.send(Event::SpawnFailed { worker, reason });
            }
            Deed::GoesOnline => self.send_lossy(Event::Online { worker }),
            Deed::GetsReady => {
                process.serves = true;
                let life = process.lives(worker);
                self.send_lossy(Event::Serves { worker });
                self.send(Event::Ready { worker });
                self.plot_all(life);
            }
            Deed::Lacks => {
                let lack = Lack::Listeners(Vec::new());
                self.send(Event::Lacks { worker, lack });
            }
            Deed::Leaves => {
                let plots = process.drains(worker);
                self.send(Event::Leaving { worker });
                self.plot_all(plots);
            }
            Deed::Disconnects => self.disconnect(worker),
            Deed::Exits(status) => self.exit(worker, status),
        }
    }

    fn exit(&mut self, worker: WorkerId, status: ExitStatus) {
        self.disconnect(worker);
        if let Some(process) = self.processes.get_mut(&worker) {
            process.is_alive = false;
        }
        self.send(Event::Exited { worker, status });
    }

    fn disconnect(&mut self, worker: WorkerId) {
        let process = self.processes.get_mut(&worker);
        if process.is_some_and(|process| std::mem::take(&mut process.is_connected)) {
            self.send_lossy(Event::Disconnected { worker });
        }
    }

    /// Carries an event to the fleet, sometimes late, sometimes twice.
    pub(crate) fn send(&mut self, event: Event) {
        let delay = if self.is_healed || self.rng.chance(90) {
            self.rng.millis(0, 3)
        } else {
            self.rng.millis(0, 2_000)
        };
        if !self.is_healed && self.rng.chance(3) {
            let again = delay + self.rng.millis(0, 500);
            self.push(again, Item::Deliver(event.clone()));
        }
        self.push(delay, Item::Deliver(event));
    }

    /// The same, and sometimes loses it.
    pub(crate) fn send_lossy(&mut self, event: Event) {
        if self.is_healed || self.rng.chance(90) {
            self.send(event);
        }
    }

    pub(crate) fn push(&mut self, after: Duration, item: Item) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), item);
    }

    fn trace(&self, what: &str, detail: &dyn Debug) {
        if self.is_verbose {
            println!("{:>10.3}s {what} {detail:?}", self.now.as_secs_f64());
        }
    }
}

/// A rollout that goes forward; a revert may have to wait too long for a base that crashes.
fn has_stalled(action: &Action) -> bool {
    matches!(
        action,
        Action::Report(Report::RolloutFailed { failure, .. })
            if matches!(failure.reason, FailureReason::Stalled { .. })
    )
}
