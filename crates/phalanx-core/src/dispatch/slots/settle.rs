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
}

impl<S> SlotTable<S> {
    /// A moment has passed: sockets for which newcomers have not come that long stop listening, and what waits in them moves. A
    /// moment is longer than most handshakes take. True if there is more to settle, a moment later.
    pub fn settle(&mut self, group: &mut impl SlotGroup<Socket = S>) -> bool {
        for (&position, slot) in &mut self.active {
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

    /// Whether there is nothing to settle.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.closing.is_empty() && self.active.values().all(|slot| slot.moves.is_none())
    }

    pub(super) fn close_later(&mut self, socket: S) {
        self.closing.push((socket, Quiet::Newly));
    }

    /// Where newcomers come again, or may come because nobody is chosen, nothing stops listening.
    pub(super) fn keep_where_newcomers_come(
        &mut self,
        chosen: &PositionSet,
        group: &mut impl SlotGroup<Socket = S>,
    ) {
        for (&position, slot) in &mut self.active {
            if chosen.is_empty() || chosen.contains(position) {
                slot.moves = None;
            }
        }
        if !chosen.is_empty() {
            return;
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
