//! The way back: from a rollout that failed or is not wanted any more, and to an earlier release.

use std::collections::BTreeSet;

use super::Fleet;
use super::action::Refusal;
use super::change::{Asked, Change, Direction, Kind};
use super::config::Limits;
use super::event::CommandId;
use super::failure::Failure;
use super::report::{Reason, Report};
use super::rollout::stop_starting;
use crate::ids::Position;

impl Fleet {
    /// Returns to the release before the present one; a reload under way is undone instead.
    pub(super) fn rollback(&mut self, command: CommandId) {
        let asked = Asked {
            command,
            wants_back: true,
        };
        match (&mut self.change, self.previous) {
            (Some(change), _) => match change.direction {
                Direction::Forward(Kind::Reload) => self.cancel_rollout(asked),
                Direction::Forward(Kind::Rollback) | Direction::Back { .. } => {
                    change.asked.push(asked);
                }
            },
            (None, Some(previous)) => {
                self.change = Some(Change::forward(
                    (previous, Kind::Rollback),
                    vec![asked],
                    Limits::of(&self.config),
                    None,
                    self.out.now(),
                ));
                self.report_rollout();
            }
            (None, None) => self.out.reply(command, Err(Refusal::NoEarlierRelease)),
        }
    }

    /// The rollout under way is not wanted any more.
    fn cancel_rollout(&mut self, asked: Asked) {
        let Some(mut change) = self.change.take() else {
            return;
        };
        for reload in std::mem::replace(&mut change.asked, vec![asked]) {
            self.out.reply(reload.command, Err(Refusal::Superseded));
        }
        self.out.report(Report::RolloutCancelled {
            generation: change.to,
            base: self.current,
        });
        self.turn_back(change, None, &Reason::RolledBack);
    }

    /// The new generation failed: what starts of it is stopped, and what was replaced goes back.
    pub(super) fn fail_rollout(&mut self, failure: Failure) {
        let Some(change) = self.change.take() else {
            return;
        };
        self.out.report(Report::RolloutFailed {
            generation: change.to,
            base: self.current,
            failure: failure.clone(),
        });
        self.turn_back(change, Some(failure), &Reason::RolloutFailed);
    }

    fn turn_back(&mut self, change: Change, failure: Option<Failure>, reason: &Reason) {
        stop_starting(
            self.roster.workers_mut(),
            change.to,
            reason,
            (&self.config, &mut self.out),
        );
        for position in &change.switched {
            if let Some(seat) = self.roster.seat_mut(*position) {
                seat.forget_failures();
            }
        }
        // A position that neither rollout nor other generation has touched is as it was.
        let on_base: BTreeSet<Position> = self
            .roster
            .wanted(self.target)
            .filter(|seat| {
                let is_untouched = !change.has_switched(seat.position);
                seat.has_ready_of(self.current)
                    || (is_untouched && !seat.holds_other_than(self.current))
            })
            .map(|seat| seat.position)
            .collect();
        self.change = Some(change.back(self.current, failure, on_base, self.out.now()));
    }

    /// The base failed too: what is ready of the failed generation stays, and the revert ends.
    pub(super) fn abandon_rollback(&mut self, failure: &Failure) {
        let Some(change) = self.change.take() else {
            return;
        };
        let mut kept = Vec::new();
        for seat in self.roster.seats_mut() {
            let position = seat.position;
            if position.0 >= self.target || !seat.has_ready() || seat.has_ready_of(self.current) {
                continue;
            }
            kept.push(position);
            stop_starting(
                seat.workers.values_mut(),
                self.current,
                &Reason::RollbackAbandoned,
                (&self.config, &mut self.out),
            );
        }
        self.out.report(Report::RollbackAbandoned {
            generation: self.current,
            kept,
            failure: failure.clone(),
        });
        self.answer(&change, Some(failure));
    }
}
