//! Looks at a worker that is to leave. The walks through the kernel's tables take their time and are done without the
//! lock; what follows from a look is decided in `phalanx-core` (`dispatch/drain.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_core::clock::Moment;
use phalanx_sys::connections::{self, Handshake};

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::{Inbox, Leaver, Mailbox};

/// Looks once, at that moment.
pub(in crate::primary) fn look_at(mailbox: Mailbox, cell: Arc<Cell>, at: Moment) {
    tokio::spawn(async move {
        clock::sleep_until(at).await;
        if let Some(primary) = mailbox.open() {
            look(&*primary, &cell);
        }
    });
}

fn look(primary: &dyn Inbox, cell: &Cell) {
    // Handshakes come before everything else: what ends meanwhile is seen twice.
    let Some(handshakes) = handshakes(primary, cell) else {
        return;
    };
    if let Some(leaver) = primary.leaver(cell.id) {
        let open = open_connections(cell, &leaver);
        primary.sees_leaver(cell.id, &leaver, &handshakes, open);
    }
}

/// What cannot be found out must not hold up a drain.
fn handshakes(primary: &dyn Inbox, cell: &Cell) -> Option<Arc<BTreeSet<Handshake>>> {
    let arrivals = primary.arrivals(cell.id)?;
    if let Some(known) = arrivals.handshakes {
        return Some(known);
    }
    let seen_at = clock::now();
    let found = connections::handshakes(&arrivals.ports).unwrap_or_else(|error| {
        tracing::debug!(worker = cell.id.0, %error, "handshakes cannot be seen");
        BTreeSet::new()
    });
    let found = Arc::new(found);
    primary.handshakes_seen(arrivals.ports, seen_at, Arc::clone(&found));
    Some(found)
}

/// Its open connections. They are counted at some cost, and matter only when nothing else is left.
fn open_connections(cell: &Cell, leaver: &Leaver) -> usize {
    if leaver.queued || leaver.arriving {
        return 0;
    }
    connections::open_connections(cell.pid, &leaver.counted_at).unwrap_or_else(|error| {
        tracing::debug!(worker = cell.id.0, %error, "its connections cannot be counted");
        0
    })
}
