//! What a fleet looks like from outside, for status displays.

use std::time::Duration;

use serde::Serialize;

use super::report::WorkerState;
use super::seat::Seat;
use super::wear::Recycled;
use super::worker::Cause;
use crate::ids::{Generation, Position, WorkerId};

/// A fleet at one moment. All times count from the same arbitrary start as `now` in
/// [`Fleet::step`](super::Fleet::step).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetView {
    /// What the fleet is about.
    pub phase: FleetPhase,
    /// How many workers it should have.
    pub target: u32,
    /// The generation that respawns get: that of the last successful rollout.
    pub generation: Generation,
    /// The generation that a revert would return to.
    pub previous: Option<Generation>,
    /// The rollout or revert under way.
    pub rollout: Option<RolloutView>,
    /// How many spares there should be, besides the target.
    pub spares: u32,
    /// Whether every position has one ready worker of the generation and nothing else lives.
    pub settled: bool,
    /// All that live, by position and age.
    pub workers: Vec<WorkerView>,
    /// Positions without a worker that serves or starts.
    pub vacancies: Vec<VacancyView>,
}

/// What a fleet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "status names each")]
pub enum FleetPhase {
    /// Not started.
    New,
    /// No worker has been ready yet.
    Booting,
    /// It serves.
    Running,
    /// Its workers are asked to end.
    Stopping,
    /// Everything is gone.
    Finished,
}

/// A rollout or revert under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RolloutView {
    /// The generation that every position is to get.
    pub generation: Generation,
    /// Whether it goes back after a failure.
    pub rolling_back: bool,
    /// Positions that have had a ready worker of that generation.
    pub done: u32,
    /// Positions in all.
    pub workers: u32,
    /// Whether it waits for what its canaries do.
    pub watching: bool,
}

/// One worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerView {
    /// Its identity.
    pub worker: WorkerId,
    /// The position it holds, or the place of a spare ([`Position::is_spare`]).
    pub position: Position,
    /// Its release.
    pub generation: Generation,
    /// Where it is in its life.
    pub state: WorkerState,
    /// When it entered that state.
    pub since: Duration,
    /// When it was spawned.
    pub spawned_at: Duration,
    /// Whether it leaves by its own wish.
    pub voluntary: bool,
    /// How often the position lost a worker unexpectedly.
    pub restarts: u32,
    /// When and why the position's worker was last recycled.
    pub recycled: Option<Recycled>,
}

/// A position without a worker that serves or starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VacancyView {
    /// The position.
    pub position: Position,
    /// How often it lost a worker unexpectedly.
    pub restarts: u32,
    /// When the next try is due; none if it waits for room or for the others' first attempt, or
    /// stays empty because respawning is off.
    pub retry_at: Option<Duration>,
    /// Whether the waiting has reached its cap.
    pub crash_loop: bool,
}

pub(super) fn workers_of(seat: &Seat) -> impl Iterator<Item = WorkerView> {
    seat.workers.values().map(|worker| WorkerView {
        worker: worker.id,
        position: worker.position,
        generation: worker.generation,
        state: worker.state_name(),
        since: worker.since,
        spawned_at: worker.spawned_at,
        voluntary: worker.cause() == Some(Cause::OwnWish),
        restarts: seat.restarts,
        recycled: seat.recycled,
    })
}

pub(super) fn vacancy_of(seat: &Seat) -> Option<VacancyView> {
    seat.is_vacant().then_some(VacancyView {
        position: seat.position,
        restarts: seat.restarts,
        retry_at: seat.retry_at,
        crash_loop: seat.crash_loop,
    })
}
