//! The rules of recycling: no more positions at a time than are allowed, not during a reload, and the successor first.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::fleet::{CommandId, Reason, RecycleTarget, Report, Wear};
use phalanx_core::ids::{Position, WorkerId};

use crate::judge::{Judge, Verdict};
use crate::known::Known;
use crate::model::Model;

impl Model {
    pub(crate) fn note_recycle(&mut self, id: CommandId, target: RecycleTarget) {
        let is_meant = |worker: WorkerId, known: &Known| match target {
            RecycleTarget::All => true,
            RecycleTarget::Position(position) => known.position == position,
            RecycleTarget::Worker(id) => id == worker,
        };
        let meant: BTreeSet<WorkerId> = self
            .workers
            .iter()
            .filter(|(worker, known)| known.is_ready() && is_meant(**worker, known))
            .filter(|(_, known)| self.is_wanted(known.position))
            .map(|(worker, _)| *worker)
            .collect();
        self.recycles.insert(id, meant);
    }

    pub(crate) fn note_hung(&mut self, worker: WorkerId, wear: Wear) {
        let is_ready = self.workers.get(&worker).is_some_and(Known::is_ready);
        if is_ready && matches!(wear, Wear::Hung { .. } | Wear::Outage { .. }) {
            self.hung.insert(worker);
        }
    }

    /// One that shows life keeps its place, and its turn is over, unless its successor is on its way already.
    pub(crate) fn note_recovered(&mut self, worker: WorkerId) {
        if !self.hung.remove(&worker) {
            return;
        }
        let turn = self.turns.iter().find(|(_, old)| **old == worker);
        let Some((&position, _)) = turn else {
            return;
        };
        let mut others = self.workers.iter().filter(|(id, _)| **id != worker);
        if !others.any(|(_, known)| known.position == position && !known.is_leaving) {
            self.turns.remove(&position);
        }
    }

    /// One that hangs is killed without having been asked.
    pub(crate) fn note_kill(&mut self, worker: WorkerId, now: Duration) {
        let is_ready = Known::is_ready;
        if let Some(known) = self
            .workers
            .get_mut(&worker)
            .filter(|known| is_ready(known))
        {
            known.is_retiring = true;
            known.is_leaving = true;
            known.stopped_at = Some(now);
        }
    }

    /// The successor of the worker that serves there has been spawned.
    pub(crate) fn note_turn(&mut self, position: Position, successor: WorkerId) {
        let at = |known: &Known| known.position == position && known.is_ready();
        let mut others = self.workers.iter().filter(|(id, _)| **id != successor);
        let old = others.find(|(_, known)| at(known));
        if let Some((&worker, _)) = old {
            self.turns.insert(position, worker);
        }
    }

    /// A turn is over when the old worker is gone and who is left serves, or somebody there has failed.
    pub(crate) fn note_gone(&mut self) {
        let serves_or_leaves = |known: &Known| known.is_ready() || known.is_leaving;
        let is_over = |(position, old): (&Position, &WorkerId)| {
            let is_served =
                !self.workers.contains_key(old) && self.at(*position).all(serves_or_leaves);
            let has_failed = self.streaks.contains_key(position);
            is_served || has_failed || !self.is_wanted(*position) || self.is_stopping
        };
        let over = self.turns.iter().filter(|turn| is_over(*turn));
        let over: Vec<Position> = over.map(|(position, _)| *position).collect();
        for position in over {
            self.turns.remove(&position);
        }
    }
}

impl Judge {
    pub(crate) fn judge_turn(&self, report: &Report) -> Verdict {
        let Report::Changed {
            worker,
            position,
            reason,
            ..
        } = report
        else {
            return Ok(());
        };
        let model = &self.model;
        let is_successor = matches!(reason, Reason::Recycle { .. });
        let others: Vec<_> = model
            .turns
            .keys()
            .filter(|other| *other != position)
            .collect();
        let most = usize::try_from(model.config.max_recycling.get()).unwrap_or(usize::MAX);
        if is_successor && others.len() >= most {
            return Err(format!(
                "position {position} is recycled while {others:?} still are"
            ));
        }
        if is_successor && model.rolling.is_some() {
            return Err(format!(
                "position {position} is recycled while a reload is under way"
            ));
        }
        let mut others = model.workers.iter().filter(|(id, _)| *id != worker);
        let has_successor =
            others.any(|(_, known)| known.position == *position && known.is_ready());
        let is_position = !position.is_spare();
        if is_position && matches!(reason, Reason::Recycled { .. }) && !has_successor {
            return Err(format!(
                "worker {worker} was recycled before its successor was ready"
            ));
        }
        Ok(())
    }

    /// Nobody but one that hangs is killed while it serves, and nobody before its successor serves, if there may be one more.
    pub(crate) fn judge_kill_of_hung(&self, worker: WorkerId, known: &Known) -> Verdict {
        let model = &self.model;
        let others = model.workers.iter().filter(|(id, _)| **id != worker);
        let mut others = others.filter(|(_, other)| other.position == known.position);
        let has_successor = others.any(|(_, other)| other.is_ready());
        let is_wanted = model.is_wanted(known.position);
        if has_successor || !is_wanted || model.surge() == 0 || model.is_stopping {
            return Ok(());
        }
        Err(format!(
            "worker {worker}, which hangs, was killed before its successor was ready"
        ))
    }

    pub(crate) fn judge_recycled(&self, command: CommandId) -> Verdict {
        let model = &self.model;
        let left = model
            .recycles
            .get(&command)
            .and_then(|meant| meant.iter().find(|id| model.workers.contains_key(id)));
        match left {
            Some(worker) => Err(format!("recycled, but worker {worker} lives")),
            None => Ok(()),
        }
    }
}
