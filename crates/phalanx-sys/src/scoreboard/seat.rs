//! What a worker writes to the scoreboard.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use super::Scoreboard;
use super::row::{Lane, Row, tick_now};

/// A worker's place at the scoreboard: it counts what the worker does. Threads may share it.
#[derive(Clone, Debug)]
pub struct Seat {
    pub(super) board: Arc<Scoreboard>,
    pub(super) position: u32,
    pub(super) lane: Lane,
}

impl Seat {
    /// The worker has accepted a connection.
    pub fn accepted(&self) {
        if let Some(row) = self.row() {
            row.held[self.lane.index()].fetch_add(1, Relaxed);
        }
    }

    /// The worker has closed a connection that it had accepted.
    pub fn closed(&self) {
        if let Some(row) = self.row() {
            // A worker that dies between the two leaves one too many open; the other way round,
            // it would be taken off twice.
            row.held[self.lane.index()].fetch_sub(1, Relaxed);
            row.closed.fetch_add(1, Release);
        }
    }

    /// Connections that this worker holds: accepted, and not closed.
    #[must_use]
    pub fn held(&self) -> u32 {
        let held = |row: &Row| {
            row.held[self.lane.index()]
                .load(Relaxed)
                .max(0)
                .unsigned_abs()
        };
        self.row().map_or(0, held)
    }

    /// The worker has accepted what there was: a moment to put right what was given to it uncounted.
    pub fn caught_up(&self) {
        if let Some(place) = self.board.place(self.position) {
            place.recount();
        }
    }

    /// A request has begun.
    pub fn began(&self) {
        if let Some(row) = self.row()
            && row.outstanding[self.lane.index()].fetch_add(1, Relaxed) <= 0
        {
            row.busy_from(tick_now());
        }
    }

    /// A request has ended, and this is how long it took.
    pub fn ended(&self, took: Duration) {
        if let Some(row) = self.row() {
            row.outstanding[self.lane.index()].fetch_sub(1, Relaxed);
            row.observe(took, tick_now());
        }
    }

    /// A request has ended that says nothing about the worker's speed: it was cut short, or it was
    /// meant to last (an upgrade, a stream of events).
    pub fn ended_untimed(&self) {
        if let Some(row) = self.row() {
            row.outstanding[self.lane.index()].fetch_sub(1, Relaxed);
        }
    }

    /// What a worker tells that cannot reach this memory itself: `held` connections are open, and
    /// `closed` were closed since it told before.
    pub fn report(&self, held: u32, closed: u32, outstanding: u32, slowest: Option<Duration>) {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        if let Some(row) = self.row() {
            row.held[self.lane.index()].store(count(held), Relaxed);
            row.closed.fetch_add(count(closed), Relaxed);
            let before = row.outstanding[self.lane.index()].swap(count(outstanding), Relaxed);
            if before <= 0 && outstanding > 0 {
                row.busy_from(tick_now());
            }
            if let Some(slowest) = slowest {
                row.observe(slowest, tick_now());
            }
            self.caught_up();
        }
    }

    fn row(&self) -> Option<&Row> {
        Some(self.board.place(self.position)?.row)
    }
}
