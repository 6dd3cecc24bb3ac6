//! Looks at a worker that is to leave. The walks through the kernel's tables take their time (60 to 85 ms at a load of 20), so
//! they are done one after the other on a thread that may wait; what follows from a look is decided in `phalanx-core`
//! (`dispatch/drain.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_core::clock::Moment;
use phalanx_sys::connections::{self, Handshake};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::{Arrivals, Leaver, Mailbox};

/// Looks once, at that moment.
pub(in crate::primary) fn look_at(mailbox: Mailbox, cell: Arc<Cell>, at: Moment) {
    tokio::spawn(async move {
        clock::sleep_until(at).await;
        look(&mailbox, &cell).await
    });
}

/// Nothing when it leaves no more, or the cluster is gone.
async fn look(mailbox: &Mailbox, cell: &Cell) -> Option<()> {
    let arrivals = mailbox.open()?.arrivals(cell.id)?;
    // Handshakes come before everything else: what ends meanwhile is seen twice.
    let handshakes = match arrivals.handshakes {
        Some(known) => known,
        None => handshakes(mailbox, cell, &arrivals.walk).await?,
    };
    let leaver = mailbox.open()?.leaver(cell.id)?;
    let open = open_connections(cell, &leaver, &arrivals.walk).await?;
    let primary = mailbox.open()?;
    primary.sees_leaver(cell.id, &leaver, &handshakes, open);
    Some(())
}

/// What cannot be found out must not hold up a drain.
async fn handshakes(
    mailbox: &Mailbox,
    cell: &Cell,
    walk: &Mutex<()>,
) -> Option<Arc<BTreeSet<Handshake>>> {
    let _turn = walk.lock().await;
    // Who has waited finds what was seen meanwhile.
    let Arrivals {
        ports, handshakes, ..
    } = mailbox.open()?.arrivals(cell.id)?;
    if let Some(known) = handshakes {
        return Some(known);
    }
    let seen_at = clock::now();
    let walked = ports.clone();
    let walk = spawn_blocking(move || connections::handshakes(&walked));
    let found = walk.await.ok()?.unwrap_or_else(|error| {
        tracing::debug!(worker = cell.id.0, %error, "handshakes cannot be seen");
        BTreeSet::new()
    });
    let found = Arc::new(found);
    let primary = mailbox.open()?;
    primary.handshakes_seen(ports, seen_at, Arc::clone(&found));
    Some(found)
}

/// Its open connections. They are counted at some cost, and matter only when nothing else is left.
async fn open_connections(cell: &Cell, leaver: &Leaver, walk: &Mutex<()>) -> Option<usize> {
    if leaver.queued || leaver.arriving || leaver.counted_at.is_empty() {
        return Some(0);
    }
    let _turn = walk.lock().await;
    let (pid, ports) = (cell.pid, leaver.counted_at.clone());
    let count = spawn_blocking(move || connections::open_connections(pid, &ports));
    let count = count.await.ok()?.unwrap_or_else(|error| {
        tracing::debug!(worker = cell.id.0, %error, "its connections cannot be counted");
        0
    });
    Some(count)
}
