//! Sums of the status: what all workers that there ever were at a position have counted. They never fall.

use std::collections::BTreeMap;

use phalanx_control::api::{PositionTotals, Totals, WorkerStatus};
use phalanx_core::ids::Position;

use super::metrics;
use crate::primary::Figures;

/// By position, in order: those where anything was counted, and those of the live workers.
pub(super) fn by_position(figures: &Figures, workers: &[WorkerStatus]) -> Vec<PositionTotals> {
    let live = workers.iter().map(|worker| worker.position);
    let live = live.filter(|position| !position.is_spare());
    let mut sums: BTreeMap<Position, Totals> = live.map(|at| (at, Totals::default())).collect();
    for (position, count) in metrics::connections(figures) {
        sums.entry(position).or_default().connections = Some(count);
    }
    for (&position, answered) in &figures.answered {
        sums.entry(position).or_default().requests = Some(answered.requests);
    }
    let all = sums.into_iter();
    all.map(|(position, totals)| PositionTotals { position, totals })
        .collect()
}

/// Of all positions; nothing where nobody counts.
pub(super) fn of(positions: &[PositionTotals]) -> Totals {
    let sum = |of: fn(&Totals) -> Option<u64>| {
        let counted = positions.iter().filter_map(|one| of(&one.totals));
        counted.reduce(u64::saturating_add)
    };
    Totals {
        connections: sum(|totals| totals.connections),
        requests: sum(|totals| totals.requests),
    }
}
