//! How many workers there are and how many there may be: the numbers that the limits are about.

use super::seat::Seat;

/// The numbers that the limits are about, kept true while a step decides.
pub(super) struct Census {
    /// Workers that are ready.
    pub(super) ready: u32,
    /// How many must stay ready when one is taken down.
    pub(super) floor: u32,
    /// Processes, with one reserved for each vacant position, without those that finish their work.
    pub(super) working: u32,
    /// The same with them.
    pub(super) processes: u32,
    /// How many that finish their work the limit overlooks.
    pub(super) draining: u32,
    /// How many processes there may be, those overlooked left aside.
    pub(super) limit: u32,
    /// How many extra processes there may be.
    pub(super) surge: u32,
    /// How many more may start.
    pub(super) starts: u32,
    /// How many more may start for the change under way: one, if none does.
    pub(super) starts_of_change: u32,
}

/// A worker to be spawned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At a position without any process.
    Empty,
    /// At one whose last worker is on its way out.
    Vacant,
    /// Beside another one that serves or starts.
    Beside,
}

impl Place {
    /// Where one more worker of this seat would be.
    pub(super) fn at(seat: &Seat) -> Self {
        if seat.counted() == 0 {
            Self::Empty
        } else if seat.is_vacant() {
            Self::Vacant
        } else {
            Self::Beside
        }
    }
}

impl Census {
    pub(super) fn may_take_down(&self) -> bool {
        self.ready > self.floor
    }

    pub(super) fn has_room(&self, place: Place) -> bool {
        let (working, processes) = self.with(place);
        let counted = processes.saturating_sub(self.draining).max(working);
        place == Place::Empty || counted <= self.limit
    }

    /// There may be no extra worker at all.
    pub(super) fn never_has_room(&self) -> bool {
        self.surge == 0
    }

    pub(super) fn may_start(&self, for_change: bool) -> bool {
        self.starts > 0 || (for_change && self.starts_of_change > 0)
    }

    pub(super) fn add(&mut self, place: Place, for_change: bool) {
        (self.working, self.processes) = self.with(place);
        self.add_start(for_change);
    }

    /// One more starts, which is a spare.
    pub(super) fn add_start(&mut self, for_change: bool) {
        self.starts = self.starts.saturating_sub(1);
        if for_change {
            self.starts_of_change = 0;
        }
    }

    /// `working` and `processes` with one more.
    fn with(&self, place: Place) -> (u32, u32) {
        match place {
            Place::Empty => (self.working, self.processes),
            Place::Vacant => (self.working, self.processes + 1),
            Place::Beside => (self.working + 1, self.processes + 1),
        }
    }
}
