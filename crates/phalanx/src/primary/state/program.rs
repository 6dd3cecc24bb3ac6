//! The programs by which the kernel dispatches: one is kept ready for the next listener.
//!
//! INVARIANT: no eBPF program is loaded under the lock for a worker that asks. It takes tens of milliseconds, so one is
//! kept ready; whoever finds none waits for it beside the lock (`tasks/program.rs`), and asks again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::policy::PolicyName;
use phalanx_sys::steering::{Steering, Unavailable};

use crate::primary::Cluster;
use crate::primary::state::Hub;
use crate::primary::tasks::program;
use crate::settings::{Adoption, DispatchChoice};

impl Hub {
    /// The means to dispatch in the kernel; tried once. Workers are started after [`Cluster::prepare_steering`], so
    /// nothing is loaded here unless the dispatch was changed since.
    pub(in crate::primary) fn steering(&mut self) -> Result<&Arc<Steering>, &Unavailable> {
        self.steering
            .get_or_insert_with(|| Steering::ready().map(Arc::new))
            .as_ref()
    }

    /// May a listener be asked for that is dispatched in the kernel?
    fn wants_steering(&self) -> bool {
        let is_wanted = match self.settings.adoption {
            Adoption::None => false,
            Adoption::Channel => {
                self.dispatch != DispatchChoice::Handoff && self.custom_policy.is_none()
            }
            Adoption::Activation | Adoption::Intercept => true,
        };
        let is_off = match self.dispatch {
            DispatchChoice::Shared => true,
            DispatchChoice::Auto => self.policy == PolicyName::None,
            DispatchChoice::Kernel | DispatchChoice::Handoff => false,
        };
        is_wanted && !is_off
    }

    /// The means to dispatch in the kernel, if a program has to be loaded before there can be another listener.
    pub(super) fn lacking_program(&self) -> Option<Arc<Steering>> {
        let steering = self.steering.as_ref()?.as_ref().ok()?;
        (!steering.is_ready()).then(|| Arc::clone(steering))
    }

    /// Has the next listener's program loaded where blocking is allowed. That is done when a worker is ready and not when the
    /// last program was used, because the verifier would take the processors from the workers that start.
    pub(in crate::primary) fn prepare_next(&self) {
        if let (Some(steering), Ok(runtime)) = (
            self.lacking_program(),
            tokio::runtime::Handle::try_current(),
        ) {
            runtime.spawn_blocking(move || program::prepare(&steering));
        }
    }
}

impl Cluster {
    /// Loads the program that may be needed, beside the lock: the kernel takes its time to verify it. Where blocking
    /// is allowed.
    pub(in crate::primary) fn prepare_steering(&self) {
        self.load_steering();
        let lacking = self.shared.hub().lacking_program();
        if let Some(steering) = lacking {
            program::prepare(&steering);
        }
    }

    /// As [`Cluster::prepare_steering`], for the first listener alone.
    pub(in crate::primary) fn load_steering(&self) {
        // Workers are started side by side: one of them loads it, the others wait.
        static LOADING: Mutex<()> = Mutex::new(());
        let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = {
            let hub = self.shared.hub();
            hub.wants_steering() && hub.steering.is_none()
        };
        if is_first {
            let made = Steering::ready().map(Arc::new);
            self.shared.hub().steering.get_or_insert(made);
        }
    }
}

/// A listener cannot be opened now: its program has to be loaded, which takes longer than anything may under the lock.
#[derive(Debug, thiserror::Error)]
#[error("its program is not loaded yet")]
struct NotReady;

/// Tells whoever wants a listener to wait for its program (`tasks/program.rs`), and to ask again.
pub(super) fn not_ready() -> io::Error {
    io::Error::other(NotReady)
}

pub(super) fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<NotReady>())
}
