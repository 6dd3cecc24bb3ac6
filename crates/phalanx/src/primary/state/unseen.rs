//! Says when an intercepted worker listens only where phalanx has no part in it: it answers, but nothing is
//! dispatched, and nothing of what waits there outlives the worker.

use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::ids::WorkerId;

use crate::primary::Shared;
use crate::primary::cell::Cell;
use crate::primary::state::Hub;
use crate::primary::state::readiness::own_listeners;
use crate::settings::Adoption;

/// The first look; each further one comes after twice the time.
const FIRST: Duration = Duration::from_secs(1);
const LOOKS: u32 = 6;

/// Looks a few times, until the worker has a listener of the cluster's.
pub(in crate::primary) fn watch(shared: &Weak<Shared>, cell: &Arc<Cell>) {
    if cell.adoption != Adoption::Intercept {
        return;
    }
    let (shared, cell) = (Weak::clone(shared), Arc::clone(cell));
    tokio::spawn(async move {
        for look in 0..LOOKS {
            let next = phalanx_sys::clock::now() + FIRST * (1 << look);
            tokio::time::sleep_until(next.into()).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            if !shared.hub().lives_without_listener(cell.id) {
                return;
            }
            let seen = Arc::clone(&cell);
            let seen = tokio::task::spawn_blocking(move || !own_listeners(&seen).is_empty()).await;
            if seen.unwrap_or(false) {
                shared.hub().unseen.insert(cell.id);
                let message = "listens only where phalanx has no part in it, so far: through io_uring, on a Unix path \
                               that the command does not name, or in another network. Its connections are not \
                               dispatched, and a reload, which takes --allow-unseen, loses some: name the path with \
                               --share unix:PATH, or give it its listeners with --bind";
                return shared.hub().error(cell.id, message.to_owned());
            }
        }
    });
}

impl Hub {
    fn lives_without_listener(&self, worker: WorkerId) -> bool {
        self.workers.contains_key(&worker) && self.machine.held(worker).next().is_none()
    }

    /// How many live workers listen only where phalanx has no part in it.
    pub(in crate::primary) fn unseen_count(&self) -> usize {
        let unseen = self.unseen.iter();
        unseen
            .filter(|&&id| self.lives_without_listener(id))
            .count()
    }
}
