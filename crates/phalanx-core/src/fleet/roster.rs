//! Who lives, by position and by id.
//!
//! INVARIANT: a worker is in the seat of its position, and `holders` knows it, until its process is
//! gone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::seat::Seat;
use super::worker::Worker;
use crate::ids::{Position, WorkerId};

/// The seats of all positions up to the target, those above it that still hold workers, and the places of spares.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    seats: BTreeMap<Position, Seat>,
    holders: BTreeMap<WorkerId, Position>,
}

impl Roster {
    /// Makes positions `from..to` wanted, as if they had never been.
    pub(super) fn open(&mut self, from: u32, to: u32) {
        for position in (from..to).map(Position) {
            match self.seats.entry(position) {
                Entry::Vacant(entry) => {
                    entry.insert(Seat::new(position));
                }
                Entry::Occupied(mut entry) => entry.get_mut().renew(),
            }
        }
    }

    /// Forgets the positions from `target` on that nobody holds any more, but for the places of so many spares.
    pub(super) fn close_empty(&mut self, target: u32, spares: u32) {
        self.seats.retain(|position, seat| {
            let index = position.0.checked_sub(Position::SPARES);
            let is_kept = index.map_or(position.0 < target, |index| index < spares);
            is_kept || !seat.workers.is_empty()
        });
    }

    /// The place of the spare of this index.
    pub(super) fn spare_seat_mut(&mut self, index: u32) -> &mut Seat {
        let position = Position(Position::SPARES.saturating_add(index));
        self.seats
            .entry(position)
            .or_insert_with(|| Seat::new(position))
    }

    /// The places of spares.
    pub(super) fn spare_seats(&self) -> impl Iterator<Item = &Seat> {
        self.seats
            .range(Position(Position::SPARES)..)
            .map(|(_, seat)| seat)
    }

    pub(super) fn spare_seats_mut(&mut self) -> impl Iterator<Item = &mut Seat> {
        self.seats
            .range_mut(Position(Position::SPARES)..)
            .map(|(_, seat)| seat)
    }

    pub(super) fn insert(&mut self, worker: Worker) {
        self.holders.insert(worker.id, worker.position);
        let seat = self.seats.entry(worker.position);
        seat.or_insert_with(|| Seat::new(worker.position))
            .workers
            .insert(worker.id, worker);
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        let position = self.holders.remove(&id)?;
        self.seats.get_mut(&position)?.workers.remove(&id)
    }

    pub(super) fn worker(&self, id: WorkerId) -> Option<&Worker> {
        let position = self.holders.get(&id)?;
        self.seats.get(position)?.workers.get(&id)
    }

    pub(super) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        let position = self.holders.get(&id)?;
        self.seats.get_mut(position)?.workers.get_mut(&id)
    }

    pub(super) fn seat(&self, position: Position) -> Option<&Seat> {
        self.seats.get(&position)
    }

    pub(super) fn seat_mut(&mut self, position: Position) -> Option<&mut Seat> {
        self.seats.get_mut(&position)
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.seats.values()
    }

    pub(super) fn seats_mut(&mut self) -> impl Iterator<Item = &mut Seat> {
        self.seats.values_mut()
    }

    /// The seats of wanted positions, below the target, lowest first.
    pub(super) fn wanted(&self, target: u32) -> impl Iterator<Item = &Seat> {
        self.seats.range(..Position(target)).map(|(_, seat)| seat)
    }

    /// The seats of surplus positions, from the target on.
    pub(super) fn surplus(&self, target: u32) -> impl Iterator<Item = &Seat> {
        self.seats
            .range(Position(target)..Position(Position::SPARES))
            .map(|(_, seat)| seat)
    }

    pub(super) fn wanted_mut(&mut self, target: u32) -> impl Iterator<Item = &mut Seat> {
        self.seats
            .range_mut(..Position(target))
            .map(|(_, seat)| seat)
    }

    pub(super) fn surplus_mut(
        &mut self,
        target: u32,
    ) -> impl DoubleEndedIterator<Item = &mut Seat> {
        self.seats
            .range_mut(Position(target)..Position(Position::SPARES))
            .map(|(_, seat)| seat)
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.seats.values().flat_map(|seat| seat.workers.values())
    }

    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.seats
            .values_mut()
            .flat_map(|seat| seat.workers.values_mut())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.holders.len()).unwrap_or(u32::MAX)
    }
}
