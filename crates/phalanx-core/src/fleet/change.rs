//! The bookkeeping of one rollout or roll-back. What it does to the workers is decided in
//! `rollout`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::action::Failure;
use super::event::CommandId;
use super::report::Reason;
use crate::ids::{Generation, Position};

/// Kills from outside that a rollout puts up with at one position.
pub(super) const TOLERATED_KILLS: u32 = 3;
/// Crashes, after having been ready, that a rollout puts up with at one position.
pub(super) const TOLERATED_CRASHES: u32 = 1;

/// A rollout, or the roll-back that follows its failure.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The generation that every position is to get.
    pub(super) to: Generation,
    pub(super) direction: Direction,
    /// The reloads to answer when it ends.
    pub(super) commands: Vec<CommandId>,
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
    Forward,
    Back {
        failed: Generation,
        failure: Failure,
    },
}

/// Workers of the generation that a position lost.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    crashes: u32,
    kills: u32,
}

impl Change {
    pub(super) fn forward(to: Generation, commands: Vec<CommandId>, now: Duration) -> Self {
        Self {
            to,
            direction: Direction::Forward,
            commands,
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
        failure: Failure,
        done: BTreeSet<Position>,
        now: Duration,
    ) -> Self {
        Self {
            to: base,
            direction: Direction::Back {
                failed: self.to,
                failure,
            },
            commands: self.commands,
            switched: BTreeSet::new(),
            moved_at: now,
            proven: true,
            done,
            losses: BTreeMap::new(),
        }
    }

    /// A newer generation takes its place; of the positions taken it keeps those that hold nothing
    /// ready.
    pub(super) fn supersede(
        &mut self,
        to: Generation,
        command: CommandId,
        unready: &BTreeSet<Position>,
        now: Duration,
    ) {
        self.to = to;
        self.commands.push(command);
        self.switched.retain(|position| unready.contains(position));
        self.moved_at = now;
        self.proven = false;
        self.done.clear();
        self.losses.clear();
    }

    pub(super) fn is_rollback(&self) -> bool {
        match self.direction {
            Direction::Forward => false,
            Direction::Back { .. } => true,
        }
    }

    /// Why it spawns workers.
    pub(super) fn spawn_reason(&self) -> Reason {
        match self.direction {
            Direction::Forward => Reason::Rollout,
            Direction::Back { .. } => Reason::Rollback,
        }
    }

    pub(super) fn has_switched(&self, position: Position) -> bool {
        self.switched.contains(&position)
    }

    pub(super) fn is_done(&self, position: Position) -> bool {
        self.done.contains(&position)
    }

    pub(super) fn done_count(&self) -> u32 {
        u32::try_from(self.done.len()).unwrap_or(u32::MAX)
    }

    /// Whether a position that lost its worker may be switched out of turn: with an unproven
    /// release only one is at risk.
    pub(super) fn takes_vacancies(&self) -> bool {
        self.proven || self.switched.is_empty()
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
        if losses.crashes <= TOLERATED_CRASHES {
            self.moved_at = now;
        }
        losses.crashes
    }
}
