//! The rules of spares: so many at most, none with connections, and only the right release takes over.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::ids::{Generation, Position, WorkerId};

use crate::judge::{Judge, Verdict};
use crate::known::Known;
use crate::model::Model;

impl Model {
    /// All that are no spares.
    pub(crate) fn serving(&self) -> impl Iterator<Item = &Known> {
        let all = self.workers.values();
        all.filter(|known| !known.position.is_spare())
    }

    fn spares(&self) -> impl Iterator<Item = &Known> {
        let all = self.workers.values();
        all.filter(|known| known.position.is_spare())
    }

    pub(crate) fn spare_ids(&self) -> BTreeSet<WorkerId> {
        let all = self.workers.iter();
        let spares = all.filter(|(_, known)| known.position.is_spare());
        spares.map(|(id, _)| *id).collect()
    }

    /// Whether as many as are wanted are ready, and nothing else lives in their places.
    pub(crate) fn has_its_spares(&self) -> bool {
        let wanted = if self.target == 0 {
            0
        } else {
            self.config.spares
        };
        let count = u32::try_from(self.spares().count()).expect("few spares");
        count == wanted && self.spares().all(|known| known.serves && !known.is_leaving)
    }

    pub(crate) fn note_promoted(&mut self, worker: WorkerId, position: Position, now: Duration) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.position = position;
            known.is_held = false;
        }
        self.note_ready(worker, now);
    }
}

impl Judge {
    /// There is one process at a place at most, and no more places than spares.
    pub(crate) fn judge_spare(
        &self,
        worker: WorkerId,
        place: Position,
        generation: Generation,
    ) -> Verdict {
        let model = &self.model;
        let is_newest = match model.rolling {
            Some(rolling) => generation == rolling,
            None => model.may_be_mixed || generation == model.base,
        };
        if !is_newest {
            return Err(format!(
                "spare {worker} is of an old generation, {generation}"
            ));
        }
        if place.0 - Position::SPARES >= model.config.spares {
            return Err(format!("worker {worker} is one spare too many"));
        }
        match model.at(place).next() {
            Some(_) => Err(format!(
                "worker {worker} spawned in the place of another spare"
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn judge_promotion(&self, worker: WorkerId, position: Position) -> Verdict {
        let model = &self.model;
        let known = self.known(worker)?;
        if !(known.position.is_spare() && known.is_held && known.serves && known.is_starting()) {
            return Err(format!(
                "worker {worker} promoted, but it is no ready spare"
            ));
        }
        if !model.is_wanted(position) || model.is_stopping {
            return Err(format!(
                "worker {worker} promoted to position {position} in vain"
            ));
        }
        let is_right = Some(known.generation) == model.rolling
            || known.generation == model.base
            || model.may_be_mixed;
        if !is_right {
            return Err(format!(
                "worker {worker} promoted, of a generation that is given up"
            ));
        }
        // Who is to be recycled serves until then; `judge_turn` sees to it that it has its turn.
        let may_serve = model.rolling.is_none();
        let is_needed = model
            .at(position)
            .all(|other| other.is_leaving || (may_serve && other.is_ready()));
        if !is_needed {
            return Err(format!(
                "worker {worker} promoted to a position that is held"
            ));
        }
        if let Some(canaries) = model.canaries
            && Some(known.generation) == model.rolling
            && !model.is_rescaled
        {
            let taken = model.positions_of(known.generation);
            let canaries = usize::try_from(canaries).expect("few workers");
            if taken >= canaries {
                return Err(format!(
                    "worker {worker} promoted before the canaries had passed"
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn judge_settled_spares(&self) -> Verdict {
        if self.model.has_its_spares() {
            return Ok(());
        }
        Err("settled without its spares".to_owned())
    }
}
