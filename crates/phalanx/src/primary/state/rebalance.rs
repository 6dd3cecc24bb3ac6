//! Rebalancing, carried out: asks workers for their loads, has those that hold more than their share end connections politely, and
//! keeps newcomers away from them meanwhile. What is decided is in `phalanx_core::dispatch::rebalance`.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::dispatch::rebalance::{Holding, Rebalance};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::wire::outgoing;

use crate::primary::sockets::channel::Outgoing;
use crate::primary::state::Hub;
use crate::primary::state::choice::Dispatch;
use crate::primary::state::load::Source;
use crate::primary::{Cluster, Shared, clock};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long the first reports of loads are waited for.
const FIRST_REPORTS: Duration = Duration::from_secs(1);

/// The rebalance under way, if one is.
#[derive(Debug, Default)]
pub(in crate::primary) struct Rebalancing(Option<Rebalance>);

impl Rebalancing {
    pub(in crate::primary) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }
}

/// What a rebalance has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebalanced {
    /// Connections that workers held above their shares when it began.
    pub above_before: u32,
    /// The same when it ended.
    pub above_after: u32,
    /// Open connections of all workers that serve.
    pub open: u32,
}

/// Why connections cannot be rebalanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebalanceError {
    /// Workers that do not tell how many connections they have.
    #[error(
        "not every worker tells how many connections it has, and ends them politely: Node workers do without --no-preload, and programs \
         that serve with the library"
    )]
    Untold,
    /// A listener whose connections nobody distributes.
    #[error(
        "all workers accept from one socket, so nobody decides who gets the clients that come back: use another dispatch"
    )]
    Shared,
    /// One is under way.
    #[error("connections are being rebalanced already")]
    UnderWay,
}

impl Cluster {
    /// Has workers that hold more than their share of the open connections end some of them politely: `Connection: close` with
    /// the next answer, GOAWAY over HTTP/2. Clients that come back land on those who hold less. Returns when the shares are even, and
    /// after 10 s in any case. Upgraded connections stay where they are.
    ///
    /// # Errors
    /// [`RebalanceError`].
    pub async fn rebalance(&self) -> Result<Rebalanced, RebalanceError> {
        self.shared.hub().begin_rebalance()?;
        // Whoever asked may go away: what has begun is brought to its end all the same.
        let running = tokio::spawn(run(Arc::downgrade(&self.shared)));
        running.await.unwrap_or(Err(RebalanceError::Untold))
    }
}

async fn run(shared: Weak<Shared>) -> Result<Rebalanced, RebalanceError> {
    let first = clock::now() + FIRST_REPORTS;
    loop {
        clock::sleep_until(clock::now() + LOOK).await;
        let Some(shared) = shared.upgrade() else {
            return Err(RebalanceError::Untold);
        };
        let mut hub = shared.hub();
        if !hub.has_all_loads() {
            if clock::now() < first {
                continue;
            }
            hub.end_rebalance();
            return Err(RebalanceError::Untold);
        }
        if let Some(done) = hub.look_at_balance() {
            hub.end_rebalance();
            return Ok(done);
        }
    }
}

impl Hub {
    fn begin_rebalance(&mut self) -> Result<(), RebalanceError> {
        if self.rebalancing.is_under_way() {
            return Err(RebalanceError::UnderWay);
        }
        let mut streams = self.listeners.values().filter(|listener| !listener.udp);
        if streams.any(|listener| listener.choice.dispatch == Dispatch::Shared) {
            return Err(RebalanceError::Shared);
        }
        let was_needed = self.needs_load();
        self.rebalancing.0 = Some(Rebalance::new(clock::now() - self.epoch));
        if !was_needed {
            self.watch_loads(true);
        }
        Ok(())
    }

    fn end_rebalance(&mut self) {
        for (worker, _) in self.serving() {
            self.shed(worker, 0);
        }
        self.set_at_share(&BTreeSet::new());
        self.rebalancing.0 = None;
        if !self.needs_load() {
            self.watch_loads(false);
        }
    }

    fn watch_loads(&mut self, wanted: bool) {
        let all: Vec<WorkerId> = self.workers.keys().copied().collect();
        for worker in all {
            self.watch_load_of(worker, wanted);
        }
    }

    /// The workers that have their share of newcomers.
    fn serving(&self) -> Vec<(WorkerId, Position)> {
        let all = self.workers.values();
        let serving = all.filter(|state| state.cell.is_ready() && state.cell.takes_part());
        serving
            .map(|state| (state.cell.id, state.cell.position()))
            .collect()
    }

    fn has_all_loads(&self) -> bool {
        let is_told = |(worker, _): &(WorkerId, Position)| {
            let state = self.workers.get(worker);
            state.is_none_or(|state| state.load_source.source != Source::Unknown)
        };
        self.serving().iter().all(is_told)
    }

    fn holdings(&self) -> Vec<Holding> {
        let Some(board) = self.board.as_deref() else {
            return Vec::new();
        };
        let serving = self.serving().into_iter();
        serving
            .map(|(worker, position)| Holding {
                worker,
                open: board.load(position.0).open,
            })
            .collect()
    }

    /// Looks, and has done what follows. The outcome when it is over.
    fn look_at_balance(&mut self) -> Option<Rebalanced> {
        let held = self.holdings();
        let now = clock::now() - self.epoch;
        let rebalance = self.rebalancing.0.as_mut()?;
        let step = rebalance.look(&held, now);
        if step.is_over {
            return Some(Rebalanced {
                above_before: rebalance.excess(),
                above_after: Rebalance::above(&held),
                open: held.iter().map(|one| one.open).sum(),
            });
        }
        self.set_at_share(&step.aside);
        for (worker, count) in step.shed {
            self.shed(worker, count);
        }
        None
    }

    /// Newcomers are for others than these.
    fn set_at_share(&mut self, full: &BTreeSet<WorkerId>) {
        self.ledger.set_at_share(full);
        let states = full.iter().filter_map(|worker| self.workers.get(worker));
        let positions: BTreeSet<Position> = states.map(|state| state.cell.position()).collect();
        for listener in self.listeners.values_mut() {
            if let Some(slots) = listener.slots.as_mut() {
                slots.set_at_share(&positions);
            }
        }
        self.pump();
    }

    fn shed(&mut self, worker: WorkerId, count: u32) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        if channel.has_room_for_answers() {
            let number = channel.next_seq();
            channel.queue(Outgoing {
                bytes: outgoing::shed(count, number),
                handle: None,
            });
        }
    }
}
