//! The rules of the fleet, one test each. Actions are compared in short: `spawn 3@0 g2` is worker 3
//! at position 0 of generation 2.

mod back;
mod boot;
mod canary;
mod deadlines;
mod hung;
mod limits;
mod oddities;
mod respawn;
mod rollback;
mod rollout;
mod scale;
mod spares;
mod stop;

use std::time::Duration;

use super::{
    Action, Amount, Command, CommandId, Done, Event, Fleet, FleetConfig, Outcome, Refusal,
    ReloadPlan, Report, ScaleTo,
};
use crate::ids::{ExitStatus, WorkerId};

/// A fleet, the time, and what the fleet reported.
struct Bench {
    fleet: Fleet,
    now: Duration,
    reports: Vec<Report>,
    replies: Vec<Result<Done, Refusal>>,
    commands: u64,
}

/// Defaults with this many workers; those that drain are counted, so that one step follows another.
fn workers(workers: u32) -> FleetConfig {
    FleetConfig {
        workers,
        max_draining: Some(Amount::Count(0)),
        ..FleetConfig::default()
    }
}

/// The same without surge, so that old workers go first.
fn without_surge(count: u32, unavailable: u32) -> FleetConfig {
    FleetConfig {
        max_surge: Amount::Count(0),
        max_unavailable: Amount::Count(unavailable),
        ..workers(count)
    }
}

impl Bench {
    fn new(config: FleetConfig) -> Self {
        Self {
            fleet: Fleet::new(config).expect("valid"),
            now: Duration::ZERO,
            reports: Vec::new(),
            replies: Vec::new(),
            commands: 0,
        }
    }

    /// A fleet whose first workers, 1 to `workers`, were spawned.
    fn started(config: FleetConfig) -> Self {
        let mut bench = Self::new(config);
        bench.tell(Event::Start);
        bench
    }

    /// A fleet whose first workers are ready.
    fn serving(config: FleetConfig) -> Self {
        let count = config.workers;
        let mut bench = Self::started(config);
        for worker in 1..=count {
            bench.ready(worker);
        }
        bench
    }

    fn tell(&mut self, event: Event) -> Vec<String> {
        let actions = self.fleet.step(event, self.now);
        let mut told = Vec::new();
        for action in actions {
            told.extend(in_short(&action));
            match action {
                Action::Report(report) => self.reports.push(report),
                Action::Reply { result, .. } => self.replies.push(result),
                Action::NewGeneration(_)
                | Action::DropGeneration(_)
                | Action::Spawn { .. }
                | Action::Admit { .. }
                | Action::Promote { .. }
                | Action::Accept { .. }
                | Action::BeginWatch
                | Action::EndWatch
                | Action::Refuse
                | Action::Drain { .. }
                | Action::Stop { .. }
                | Action::Kill { .. }
                | Action::Settled { .. }
                | Action::Finished(_) => {}
            }
        }
        told
    }

    fn ready(&mut self, worker: u32) -> Vec<String> {
        let worker = WorkerId(worker);
        self.tell(Event::Online { worker });
        self.tell(Event::Ready { worker })
    }

    fn serves(&mut self, worker: u32) -> Vec<String> {
        let worker = WorkerId(worker);
        self.tell(Event::Online { worker });
        self.tell(Event::Serves { worker })
    }

    fn exits(&mut self, worker: u32) -> Vec<String> {
        self.ends(worker, ExitStatus::Code(0))
    }

    fn crashes(&mut self, worker: u32) -> Vec<String> {
        self.ends(worker, ExitStatus::Code(1))
    }

    fn is_killed(&mut self, worker: u32) -> Vec<String> {
        self.ends(worker, ExitStatus::Signal(9))
    }

    fn ends(&mut self, worker: u32, status: ExitStatus) -> Vec<String> {
        let worker = WorkerId(worker);
        self.tell(Event::Exited { worker, status })
    }

    fn spawn_fails(&mut self, worker: u32) -> Vec<String> {
        self.tell(Event::SpawnFailed {
            worker: WorkerId(worker),
            reason: "no such file".to_owned(),
        })
    }

    fn leaves(&mut self, worker: u32) -> Vec<String> {
        let worker = WorkerId(worker);
        self.tell(Event::Leaving { worker })
    }

    fn disconnects(&mut self, worker: u32) -> Vec<String> {
        let worker = WorkerId(worker);
        self.tell(Event::Disconnected { worker })
    }

    /// Gives a command; the first has number 1.
    fn command(&mut self, command: Command) -> Vec<String> {
        self.commands += 1;
        let id = CommandId(self.commands);
        self.tell(Event::Command { id, command })
    }

    fn reload(&mut self) -> Vec<String> {
        self.command(Command::Reload(ReloadPlan::default()))
    }

    fn scale(&mut self, count: u32) -> Vec<String> {
        self.command(Command::Scale(ScaleTo::Exactly(count)))
    }

    /// Lets time pass and ticks whenever the fleet wants it.
    fn wait(&mut self, time: Duration) -> Vec<String> {
        let until = self.now + time;
        let mut told = Vec::new();
        while let Some(deadline) = self.fleet.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(deadline);
            told.extend(self.tell(Event::Tick));
        }
        self.now = until;
        told
    }

    fn secs(&mut self, secs: u64) -> Vec<String> {
        self.wait(Duration::from_secs(secs))
    }

    fn millis(&mut self, millis: u64) -> Vec<String> {
        self.wait(Duration::from_millis(millis))
    }

    fn has_reported(&self, is_it: impl Fn(&Report) -> bool) -> bool {
        self.reports.iter().any(is_it)
    }

    /// The one reply there must have been.
    fn only_reply(&self) -> &Result<Done, Refusal> {
        match self.replies.as_slice() {
            [reply] => reply,
            [] | [_, ..] => panic!("expected one reply: {:?}", self.replies),
        }
    }

    /// `ready` of all workers, as `3@0 g2`.
    fn serving_now(&self) -> Vec<String> {
        let view = self.fleet.view();
        view.workers
            .iter()
            .filter(|worker| worker.state == super::WorkerState::Ready)
            .map(|at| format!("{}@{} g{}", at.worker, at.position, at.generation))
            .collect()
    }
}

fn in_short(action: &Action) -> Option<String> {
    let text = match action {
        Action::NewGeneration(generation) => format!("new g{generation}"),
        Action::DropGeneration(generation) => format!("drop g{generation}"),
        Action::Spawn {
            worker,
            position,
            generation,
            held,
        } => {
            let held = if *held { " held" } else { "" };
            format!("spawn {worker}@{position} g{generation}{held}")
        }
        Action::Admit { worker } => format!("admit {worker}"),
        Action::Promote { worker, position } => format!("promote {worker}@{position}"),
        Action::Accept { worker } => format!("accept {worker}"),
        Action::BeginWatch => "watch".to_owned(),
        Action::EndWatch => "watch ends".to_owned(),
        Action::Drain { worker } => format!("drain {worker}"),
        Action::Stop { worker } => format!("stop {worker}"),
        Action::Kill { worker } => format!("kill {worker}"),
        Action::Reply { command, result } => {
            let verdict = if result.is_ok() { "done" } else { "refused" };
            format!("{verdict} #{}", command.0)
        }
        // It comes with every end; a test of its own says when.
        Action::Refuse | Action::Report(_) => return None,
        Action::Settled { generation, .. } => format!("settled g{generation}"),
        Action::Finished(Outcome::Stopped) => "finished: stopped".to_owned(),
        Action::Finished(Outcome::BootFailed { .. }) => "finished: boot failed".to_owned(),
        Action::Finished(Outcome::AllGone) => "finished: all gone".to_owned(),
    };
    Some(text)
}

/// No actions.
const NOTHING: [&str; 0] = [];
