//! Rebalances connections without being asked for, where that is wished. When, is decided by `phalanx_core::dispatch::auto_rebalance`.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::dispatch::auto_rebalance::AutoRebalance;
use phalanx_core::fleet::{FleetPhase, FleetView, WorkerState};
use phalanx_core::ids::WorkerId;

use super::Control;
use crate::primary::clock;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks once a second, until the app is gone.
pub(super) async fn run(control: Control) {
    let begun = clock::now();
    let mut auto = AutoRebalance::new();
    loop {
        clock::sleep_until(clock::now() + INTERVAL).await;
        let view = control.view();
        if view.phase == FleetPhase::Finished {
            return;
        }
        if !auto.look(serving(&view), view.settled, clock::now() - begun) {
            continue;
        }
        match control.cluster().rebalance_if_worth_it().await {
            Ok(Some(done)) => {
                tracing::info!(
                    "rebalanced: of {} connections {} were above their workers' shares, and {} are now",
                    done.open,
                    done.above_before,
                    done.above_after
                );
                let now = clock::now() - begun;
                auto.ended(done.above_before, done.above_after, now);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "connections were not rebalanced"),
        }
    }
}

fn serving(view: &FleetView) -> BTreeSet<WorkerId> {
    let all = view.workers.iter();
    let ready = all.filter(|worker| worker.state == WorkerState::Ready);
    ready.map(|worker| worker.worker).collect()
}
