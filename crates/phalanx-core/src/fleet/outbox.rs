//! The actions of one step, and the time at which they are decided.

use std::time::Duration;

use super::action::{Action, Done, Refusal};
use super::event::CommandId;
use super::report::Report;

/// Collects the actions of one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    now: Duration,
    actions: Vec<Action>,
}

impl Outbox {
    /// Begins a step. Time never runs backwards: an earlier `now` is taken for the last one.
    pub(super) fn begin(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Ends a step.
    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The moment `delay` from now; the end of time if that is later.
    pub(super) fn after(&self, delay: Duration) -> Duration {
        self.now.saturating_add(delay)
    }

    /// Whether that moment has come.
    pub(super) fn is_due(&self, at: Duration) -> bool {
        at <= self.now
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.push(Action::Report(report));
    }

    pub(super) fn reply(&mut self, command: CommandId, result: Result<Done, Refusal>) {
        self.push(Action::Reply { command, result });
    }
}
