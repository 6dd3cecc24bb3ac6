//! Sockets that stop listening, once nobody new has come to them for a moment.

use serde::{Deserialize, Serialize};

use super::{Slot, SlotGroup, SlotTable};
use crate::policy::PositionSet;

/// For how long newcomers have gone elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Quiet {
    /// It was decided after the last time that the table was settled.
    Newly,
    /// For a moment at least.
    Long,
}

impl<S> Slot<S> {
    /// What waits moves when newcomers have gone elsewhere for a moment.
    pub(super) fn move_later(&mut self) {
        self.moves.get_or_insert(Quiet::Newly);
    }

    /// Its holder is dead, or has inherited it and does not serve yet.
    pub(super) fn is_unserved(&self) -> bool {
        self.holder.is_none() || self.is_inherited
    }
}

impl<S> SlotTable<S> {
    /// A moment has passed since this was last called, or since there was nothing to settle. Sockets to which no newcomer has come
    /// for a whole moment stop listening, and what waits in them moves. A moment is longer than most handshakes take. True if there
    /// is more to settle, a moment later.
    pub fn settle(&mut self, group: &mut impl SlotGroup<Socket = S>) -> bool {
        if self.is_settled() {
            return false;
        }
        let active = self.active.iter_mut();
        let active = active.map(|(&position, slot)| (Some(position), slot));
        let others = self.pending.values_mut().chain(self.retired.values_mut());
        let others = others.map(|slot| (None, slot));
        for (position, slot) in active.chain(others) {
            match slot.moves {
                Some(Quiet::Newly) => slot.moves = Some(Quiet::Long),
                Some(Quiet::Long) => {
                    slot.moves = None;
                    if group.waiting(&slot.socket) > 0 {
                        group.empty(position, &mut slot.socket);
                    }
                }
                None => {}
            }
        }
        for (socket, quiet) in std::mem::take(&mut self.closing) {
            match quiet {
                Quiet::Newly => self.closing.push((socket, Quiet::Long)),
                Quiet::Long => group.close(socket),
            }
        }
        !self.is_settled()
    }

    /// Whether there is nothing to settle. While newcomers are for nobody, nothing can move.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let others = self.pending.values().chain(self.retired.values());
        let mut slots = self.active.values().chain(others);
        let rests = self.closing.is_empty() && slots.all(|slot| slot.moves.is_none());
        rests || self.told.is_empty()
    }

    pub(super) fn close_later(&mut self, socket: S) {
        self.closing.push((socket, Quiet::Newly));
    }

    /// Newcomers are for these from now on. Nothing stops listening where they come. What waits for stuck workers, to whom they have
    /// come until now, moves.
    pub(super) fn follow_newcomers(
        &mut self,
        chosen: &PositionSet,
        group: &mut impl SlotGroup<Socket = S>,
    ) {
        let before = std::mem::replace(&mut self.told, chosen.clone());
        if chosen.is_empty() {
            self.wait_for_somebody(group);
            return;
        }
        for (&position, slot) in &mut self.active {
            let came_here = before.is_empty() || before.contains(position);
            if chosen.contains(position) {
                slot.moves = None;
            } else if came_here && self.aside.contains(&position) && group.migrates() {
                slot.move_later();
            }
        }
    }

    /// Newcomers are for nobody, and come anywhere.
    fn wait_for_somebody(&mut self, group: &mut impl SlotGroup<Socket = S>) {
        let others = self.pending.values_mut().chain(self.retired.values_mut());
        let slots = self.active.values_mut().chain(others);
        for moves in slots.filter_map(|slot| slot.moves.as_mut()) {
            *moves = Quiet::Newly;
        }
        for (socket, _) in std::mem::take(&mut self.closing) {
            if group.is_listening(&socket) {
                self.spare.push(socket);
            } else {
                group.close(socket);
            }
        }
    }
}
