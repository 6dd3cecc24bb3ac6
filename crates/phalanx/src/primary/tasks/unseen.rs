//! Looks whether an intercepted worker listens only where phalanx has no part in it.

use std::sync::Arc;
use std::time::Duration;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::Mailbox;
use crate::primary::tasks::observe::own_listeners;
use crate::settings::Adoption;

/// The first look; each further one comes after twice the time.
const FIRST: Duration = Duration::from_secs(1);
const LOOKS: u32 = 6;

/// Looks a few times, until the worker has a listener of the cluster's.
pub(in crate::primary) fn watch(mailbox: Mailbox, cell: &Arc<Cell>) {
    if cell.adoption != Adoption::Intercept {
        return;
    }
    let cell = Arc::clone(cell);
    tokio::spawn(async move {
        for look in 0..LOOKS {
            clock::pause(FIRST * (1 << look)).await;
            let Some(primary) = mailbox.open() else {
                return;
            };
            if !primary.lives_without_listener(cell.id) {
                return;
            }
            drop(primary);
            let seen = Arc::clone(&cell);
            let seen = tokio::task::spawn_blocking(move || !own_listeners(&seen).is_empty()).await;
            let Some(primary) = mailbox.open() else {
                return;
            };
            // What was seen may be a listener that it has got of the cluster meanwhile.
            if seen.unwrap_or(false) && primary.lives_without_listener(cell.id) {
                return primary.listens_unseen(cell.id);
            }
        }
    });
}
