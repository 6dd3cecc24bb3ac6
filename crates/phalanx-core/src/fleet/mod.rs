//! The fleet.

mod action;
mod amount;
mod config;
mod event;
mod report;
mod view;

use std::time::Duration;

pub use action::{Action, Done, Failure, FailureReason, Outcome, Refusal};
pub use amount::{Amount, AmountError};
pub use config::{BootPolicy, ConfigError, FleetConfig, MAX_WORKERS};
pub use event::{Command, CommandId, Event, ScaleTo};
pub use report::{Reason, Report, WorkerState};
pub use view::{FleetPhase, FleetView, RolloutView, VacancyView, WorkerView};

use crate::ids::Generation;

/// The machine that decides which workers live.
#[derive(Clone, Debug)]
pub struct Fleet {
    config: FleetConfig,
}

impl Fleet {
    /// A fleet that waits for [`Event::Start`].
    ///
    /// # Errors
    ///
    /// What [`FleetConfig::check`] refuses.
    pub fn new(config: FleetConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config })
    }

    /// Takes in what happened and says what is to be done.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        drop((event, now));
        Vec::new()
    }

    /// When [`Event::Tick`] is due, if no other event comes first.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        None
    }

    /// What the fleet looks like now.
    #[must_use]
    pub fn view(&self) -> FleetView {
        FleetView {
            phase: FleetPhase::New,
            target: self.config.workers,
            generation: Generation(1),
            rollout: None,
            settled: false,
            workers: Vec::new(),
            vacancies: Vec::new(),
        }
    }
}
