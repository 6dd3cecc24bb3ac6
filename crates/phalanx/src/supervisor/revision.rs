//! An app whose description can change: it is read anew at each reload, whoever asks for that.
//!
//! What stands is what the last reload that succeeded has taken over. A description that cannot be read changes nothing, and
//! a reload that fails puts back what stood before.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::fleet::FleetConfig;
use phalanx_core::ids::Generation;
use phalanx_core::policy::{PolicyName, Weights};
use phalanx_core::wire::DrainLimits;
use tokio::runtime::Handle;

use super::{SupervisorOptions, drain_limits};
use crate::settings::Settings;

/// What an app is to be from a reload on, as far as that can change while it runs.
#[non_exhaustive]
pub struct Revision {
    /// How its new workers are started. Listeners that the primary has opened stay as they are.
    pub settings: Settings,
    /// Every limit. Where the number of workers is another than that of the revision before, the app is scaled; otherwise it
    /// keeps the number that it has.
    pub fleet: FleetConfig,
    /// Who gets a connection: changed where it is another than that of the revision before.
    pub policy: (PolicyName, Weights),
    limits: DrainLimits,
    /// Told when it has been taken over, with the generation.
    pub(super) taken: Box<dyn FnOnce(Generation) + Send>,
}

impl Revision {
    /// As these options say. `taken` is told when it has been taken over.
    #[must_use]
    pub fn new(
        options: SupervisorOptions,
        taken: impl FnOnce(Generation) + Send + 'static,
    ) -> Self {
        Self {
            limits: drain_limits(&options),
            settings: options.settings,
            fleet: options.fleet,
            policy: (options.policy, options.weights),
            taken: Box::new(taken),
        }
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revision")
            .field("fleet", &self.fleet)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Reads the description; what is wrong with it, in words. May block: it is called on a thread for that.
pub type Revise = Arc<dyn Fn() -> Result<Revision, String> + Send + Sync>;

/// What was taken over.
#[derive(Clone)]
pub(super) struct InForce {
    pub(super) settings: Settings,
    pub(super) fleet: FleetConfig,
    pub(super) policy: (PolicyName, Weights),
    pub(super) limits: DrainLimits,
}

impl InForce {
    pub(super) fn of(revision: &Revision) -> Self {
        Self {
            settings: revision.settings.clone(),
            fleet: revision.fleet.clone(),
            policy: revision.policy.clone(),
            limits: revision.limits,
        }
    }
}

pub(super) struct Revising {
    revise: Revise,
    runtime: Handle,
    in_force: Mutex<InForce>,
}

impl Revising {
    pub(super) fn new(options: &SupervisorOptions) -> Option<Arc<Self>> {
        let revise = options.revise.clone()?;
        let in_force = InForce {
            settings: options.settings.clone(),
            fleet: options.fleet.clone(),
            policy: (options.policy, options.weights.clone()),
            limits: drain_limits(options),
        };
        Some(Arc::new(Self {
            revise,
            runtime: Handle::current(),
            in_force: Mutex::new(in_force),
        }))
    }

    pub(super) fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn read(&self) -> Result<Revision, String> {
        let revise = Arc::clone(&self.revise);
        let read = self.runtime.spawn_blocking(move || revise());
        let lost = |_| "the description of the app could not be read".to_owned();
        read.await.map_err(lost)?
    }
}
