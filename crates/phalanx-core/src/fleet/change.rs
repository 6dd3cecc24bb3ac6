//! The bookkeeping of one rollout or revert. What it does to the workers is decided in
//! `rollout`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::canary::CanaryStage;
use super::config::Limits;
use super::event::{CommandId, ReloadPlan};
use super::failure::Failure;
use super::report::Reason;
use crate::ids::{Generation, Position};

/// Kills from outside that a rollout puts up with at one position.
pub(super) const TOLERATED_KILLS: u32 = 3;
/// Crashes, after having been ready, that a rollout puts up with at one position.
const TOLERATED_CRASHES: u32 = 1;

/// A rollout, or the revert that follows its failure.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The generation that every position is to get.
    pub(super) to: Generation,
    pub(super) direction: Direction,
    /// Whom to answer when it ends.
    pub(super) asked: Vec<Asked>,
    pub(super) limits: Limits,
    pub(super) canary: Option<CanaryStage>,
    /// Positions that it has taken.
    pub(super) switched: BTreeSet<Position>,
    /// When a position was last switched, tried again or done.
    pub(super) moved_at: Duration,
    /// Whether a worker of the generation has been ready.
    proven: bool,
    done: BTreeSet<Position>,
    losses: BTreeMap<Position, Losses>,
}

/// Whether it goes forward or back.
#[derive(Clone, Debug)]
pub(super) enum Direction {
    Forward(Kind),
    Back {
        failed: Generation,
        /// None if it goes back on request.
        failure: Option<Failure>,
    },
}

/// What a rollout that goes forward is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A new generation.
    Reload,
    /// An earlier one.
    Rollback,
}

/// A command that waits for the end of a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) command: CommandId,
    /// It wants what a revert brings.
    pub(super) wants_back: bool,
}

/// Reloads that wait for their turn. The last one's plan is carried out.
#[derive(Clone, Debug)]
pub(super) struct QueuedReloads {
    pub(super) commands: Vec<CommandId>,
    pub(super) plan: ReloadPlan,
}

/// Workers of the generation that a position lost.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    crashes: u32,
    kills: u32,
}

impl Change {
    pub(super) fn forward(
        (to, kind): (Generation, Kind),
        asked: Vec<Asked>,
        limits: Limits,
        canary: Option<CanaryStage>,
        now: Duration,
    ) -> Self {
        Self {
            to,
            direction: Direction::Forward(kind),
            asked,
            limits,
            canary,
            switched: BTreeSet::new(),
            moved_at: now,
            proven: false,
            done: BTreeSet::new(),
            losses: BTreeMap::new(),
        }
    }

    /// The way back to `base`, with the positions that are there already.
    pub(super) fn back(
        self,
        base: Generation,
        failure: Option<Failure>,
        done: BTreeSet<Position>,
        now: Duration,
    ) -> Self {
        Self {
            to: base,
            direction: Direction::Back {
                failed: self.to,
                failure,
            },
            asked: self.asked,
            limits: self.limits,
            canary: None,
            switched: BTreeSet::new(),
            moved_at: now,
            proven: true,
            done,
            losses: BTreeMap::new(),
        }
    }

    /// A newer generation takes its place; of the positions taken it keeps those that hold nothing
    /// ready, but no more than it has canaries.
    pub(super) fn supersede(
        &mut self,
        to: Generation,
        (limits, canary): (Limits, Option<CanaryStage>),
        (unready, target): (&BTreeSet<Position>, u32),
        now: Duration,
    ) {
        self.to = to;
        self.direction = Direction::Forward(Kind::Reload);
        self.limits = limits;
        self.canary = canary;
        let most = canary.map_or(u32::MAX, |canary| canary.count(target));
        let kept = self.switched.intersection(unready).copied();
        self.switched = kept.zip(0..most).map(|(position, _)| position).collect();
        self.moved_at = now;
        self.proven = false;
        self.done.clear();
        self.losses.clear();
    }

    pub(super) fn is_rollback(&self) -> bool {
        match self.direction {
            Direction::Forward(_) => false,
            Direction::Back { .. } => true,
        }
    }

    /// Why it spawns workers.
    pub(super) fn spawn_reason(&self) -> Reason {
        match self.direction {
            Direction::Forward(Kind::Reload) => Reason::Rollout,
            Direction::Forward(Kind::Rollback) | Direction::Back { .. } => Reason::Rollback,
        }
    }

    pub(super) fn has_switched(&self, position: Position) -> bool {
        self.switched.contains(&position)
    }

    /// Whether a worker of the generation was ready at each position that was taken.
    pub(super) fn has_done_all(&self) -> bool {
        self.switched.iter().all(|position| self.is_done(*position))
    }

    pub(super) fn is_done(&self, position: Position) -> bool {
        self.done.contains(&position)
    }

    pub(super) fn done_count(&self) -> u32 {
        u32::try_from(self.done.len()).unwrap_or(u32::MAX)
    }

    /// Whether a position that lost its worker may be switched out of turn: with an unproven
    /// release only one is at risk, and with canaries no more than these.
    pub(super) fn takes_vacancies(&self, target: u32) -> bool {
        (self.proven || self.switched.is_empty()) && self.may_switch(target)
    }

    /// Whether one more position may be taken: before the canaries have passed, only theirs.
    pub(super) fn may_switch(&self, target: u32) -> bool {
        let taken = u32::try_from(self.switched.len()).unwrap_or(u32::MAX);
        self.canary
            .as_ref()
            .is_none_or(|canary| canary.has_room(taken, target))
    }

    /// Whether no position but those of the canaries may be taken yet.
    pub(super) fn is_confined(&self) -> bool {
        self.canary.is_some_and(|canary| !canary.has_passed())
    }

    /// Whether a worker of the generation has been ready.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Crashes after readiness that it puts up with at one position.
    pub(super) fn tolerated_crashes(&self) -> u32 {
        if self.is_confined() {
            0
        } else {
            TOLERATED_CRASHES
        }
    }

    /// Takes a position.
    pub(super) fn switch(&mut self, position: Position, now: Duration) {
        self.switched.insert(position);
        self.moved_at = now;
    }

    /// A worker of the generation is ready there. True if that is news.
    pub(super) fn record_ready(&mut self, position: Position, now: Duration) -> bool {
        self.proven = true;
        self.give_up(position, now)
    }

    /// Waits no longer for that position. True if that is news.
    pub(super) fn give_up(&mut self, position: Position, now: Duration) -> bool {
        let news = self.done.insert(position);
        if news {
            self.moved_at = now;
        }
        news
    }

    /// Waits for that position again.
    pub(super) fn undo(&mut self, position: Position) {
        self.done.remove(&position);
    }

    /// The position is no longer wanted.
    pub(super) fn forget(&mut self, position: Position) {
        self.switched.remove(&position);
        self.done.remove(&position);
        self.losses.remove(&position);
    }

    /// Counts a kill from outside; returns how many there have been. A tolerated one is followed by
    /// another try, so the rollout has moved.
    pub(super) fn record_kill(&mut self, position: Position, now: Duration) -> u32 {
        let losses = self.losses.entry(position).or_default();
        losses.kills += 1;
        if losses.kills <= TOLERATED_KILLS {
            self.moved_at = now;
        }
        losses.kills
    }

    /// Counts a crash after readiness, likewise.
    pub(super) fn record_crash(&mut self, position: Position, now: Duration) -> u32 {
        let losses = self.losses.entry(position).or_default();
        losses.crashes += 1;
        let crashes = losses.crashes;
        if crashes <= self.tolerated_crashes() {
            self.moved_at = now;
        }
        crashes
    }
}
