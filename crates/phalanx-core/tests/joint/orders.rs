//! The fleet is told what happened, and what it orders is done.

use phalanx_core::dispatch::machine::{Comes, Newcomer};
use phalanx_core::dispatch::readiness::Proof;
use phalanx_core::dispatch::worker::{Admission, Worker};
use phalanx_core::fleet::{Action, Event};
use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};

use crate::fault::Fault;
use crate::judge::Verdict;
use crate::process::{Fate, Process, Release};
use crate::world::{HEALS_AT, Item, World};

impl World {
    pub(crate) fn tell(&mut self, event: Event) -> Verdict {
        for action in self.fleet.step(event, self.now) {
            if self.is_verbose {
                println!("               {action:?}");
            }
            self.carry_out(&action)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: &Action) -> Verdict {
        match *action {
            Action::NewGeneration(generation) => {
                let first = self.releases.is_empty();
                let release = Release::draw(&mut self.rng);
                let release = if first || self.is_healed() {
                    Release::Whole
                } else {
                    release
                };
                self.releases.insert(generation, release);
            }
            Action::DropGeneration(generation) => self.machine.drop_generation(generation),
            Action::Spawn {
                worker,
                position,
                generation,
                held,
            } => self.spawn(worker, (position, generation), held),
            Action::Accept { worker } => self.accept(worker)?,
            Action::Admit { worker } | Action::Promote { worker, .. } => self.admit(worker)?,
            Action::Drain { worker } => drop(self.disconnect(worker)?),
            Action::Stop { worker } => self.stop(worker)?,
            Action::Kill { worker } => {
                self.stand(worker).kill();
                let delay = self.rng.millis(0, 20);
                self.after(delay, Item::Exits(worker, ExitStatus::Signal(9)));
            }
            Action::Refuse => self.is_refusing = true,
            Action::Settled { workers, .. } => self.close_orphans(workers)?,
            Action::Finished(_) => self.is_finished = true,
            Action::BeginWatch | Action::EndWatch | Action::Reply { .. } | Action::Report(_) => {}
        }
        Ok(())
    }

    fn spawn(&mut self, worker: WorkerId, place: (Position, Generation), held: bool) {
        let (position, generation) = place;
        let fate = if self.is_healed() {
            Fate::healthy(&mut self.rng)
        } else {
            Fate::draw(self.releases[&generation], &mut self.rng)
        };
        let newcomer = Newcomer {
            position,
            generation,
            proof: Proof::Listeners,
            comes: Comes::Asking,
        };
        self.machine.enrol(worker, newcomer, self.now);
        let is_open = !held || self.has_fault(Fault::ChoosesWhoIsHeldBack);
        self.standing
            .insert(worker, Worker::new(Admission::HeldBack));
        if is_open {
            self.stand(worker).admit();
        }
        self.held_back.extend(held.then_some(worker));
        self.after(fate.online, Item::Online(worker));
        for &(at, listener) in &fate.listens {
            self.after(at, Item::Listens(worker, listener));
        }
        if let Some(at) = fate.crash.filter(|&at| self.now + at < HEALS_AT) {
            self.after(at, Item::Exits(worker, ExitStatus::Signal(11)));
        }
        if let Some(at) = fate.own_wish.filter(|&at| self.now + at < HEALS_AT) {
            self.after(at, Item::OwnWish(worker));
        }
        if let Some((at, time)) = fate.stuck {
            self.after(at, Item::Stuck(worker, time));
        }
        self.processes.insert(worker, Process::new(position, fate));
    }

    fn stop(&mut self, worker: WorkerId) -> Verdict {
        let serves = self.machine.serves(worker);
        if serves && !self.standing[&worker].is_ready() && self.disconnect(worker)? {
            return Ok(());
        }
        self.stand(worker).stop();
        if !self.processes[&worker].fate.is_deaf {
            let delay = self.rng.millis(0, 30);
            self.after(delay, Item::Exits(worker, ExitStatus::Signal(15)));
        }
        Ok(())
    }
}
