//! What becomes true of the whole fleet: it has booted, it is settled, a generation is history,
//! everything is gone.

use super::action::{Action, Done, Outcome};
use super::config::BootPolicy;
use super::report::Report;
use super::seat::{Past, Seat};
use super::{Fleet, Phase};
use crate::ids::Generation;

impl Fleet {
    /// The boot is over once a worker is ready, or if there is nothing to wait for.
    pub(super) fn conclude_boot(&mut self) {
        let Some(boot) = &self.boot else { return };
        let may_try = self.first_tries_left() > 0;
        let is_left = |seat: &Seat| {
            let is_untried = seat.past == Past::Untried;
            !boot.failed.contains(&seat.position) && (may_try || !is_untried)
        };
        if self.roster.wanted(self.target).any(is_left) {
            return;
        }
        match (&boot.failure, self.config.boot) {
            (Some(failure), BootPolicy::Exit) if self.target > 0 => {
                let failure = failure.clone();
                self.end(Outcome::BootFailed { failure }, Vec::new());
            }
            (Some(_) | None, BootPolicy::Exit | BootPolicy::Retry) => {
                self.boot = None;
                self.out.report(Report::BootOver);
            }
        }
    }

    /// Tells once that the fleet is as it should be.
    pub(super) fn settle(&mut self) {
        let is_settled = self.change.is_none()
            && self.has_its_spares()
            && self.roster.surplus(self.target).next().is_none()
            && self
                .roster
                .wanted(self.target)
                .all(|seat| seat.workers.len() == 1 && seat.has_ready_of(self.current));
        if !is_settled {
            self.settled = None;
        } else if self.settled != Some(self.current) {
            self.settled = Some(self.current);
            self.out.push(Action::Settled {
                generation: self.current,
                workers: self.target,
            });
        }
    }

    /// Forgets generations that nobody is of and nobody will be of again.
    pub(super) fn drop_generations(&mut self) {
        if self.snapshots.len() == 1 {
            return;
        }
        let in_use: Vec<Generation> = self
            .roster
            .workers()
            .map(|worker| worker.generation)
            .chain(self.change.as_ref().map(|change| change.to))
            .chain([self.current])
            .chain(self.previous)
            .collect();
        let out = &mut self.out;
        self.snapshots.retain(|generation| {
            let keep = in_use.contains(generation);
            if !keep {
                out.push(Action::DropGeneration(*generation));
            }
            keep
        });
    }

    pub(super) fn end_if_all_gone(&mut self) {
        let is_over = self.target > 0
            && self.change.is_none()
            && self.boot.is_none()
            && self.roster.is_empty()
            && self.roster.wanted(self.target).all(|seat| seat.abandoned);
        if is_over {
            self.end(Outcome::AllGone, Vec::new());
            self.finish_when_empty();
        }
    }

    pub(super) fn finish_when_empty(&mut self) {
        if !self.roster.is_empty() {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Ending { outcome, stops } => {
                for command in stops {
                    self.out.reply(command, Ok(Done::Stopped));
                }
                self.out.push(Action::Finished(outcome));
            }
            other @ (Phase::New | Phase::Running | Phase::Finished) => self.phase = other,
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        match self.phase {
            Phase::Ending { .. } => true,
            Phase::New | Phase::Running | Phase::Finished => false,
        }
    }
}
