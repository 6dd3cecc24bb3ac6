//! The lock: whatever is decided is decided while it is held, and nothing waits under it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx_core::policy::PolicyName;

use super::Hub;
use crate::primary::clock;
use crate::primary::release::private;
use crate::primary::tasks::trees;
use crate::settings::{DispatchChoice, Settings};

/// What all handles of a cluster share.
pub(crate) struct Shared {
    hub: Mutex<Hub>,
    /// Somebody keeps the clock going.
    keeps_time: AtomicBool,
    pub(crate) trees: Arc<trees::Trees>,
    pub(in crate::primary) places: private::Places,
}

impl Shared {
    /// A cluster without workers, with every default.
    pub(in crate::primary) fn new(policy: PolicyName) -> Arc<Self> {
        Arc::new_cyclic(|shared| Self {
            hub: Mutex::new(Hub::new(
                shared.clone(),
                Settings::default(),
                policy,
                DispatchChoice::Auto,
            )),
            keeps_time: AtomicBool::new(false),
            trees: Arc::new(trees::Trees::new()),
            places: private::Places::default(),
        })
    }

    /// Has the clock kept going from now on. Needs a runtime around it.
    pub(crate) fn keep_time(self: &Arc<Self>) {
        if !self.keeps_time.swap(true, Ordering::AcqRel) {
            let cluster = Arc::downgrade(self);
            tokio::spawn(clock::keep_while(move || cluster.strong_count() > 0));
        }
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        // The state stays consistent at every point where code could panic: no half-done transitions.
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
