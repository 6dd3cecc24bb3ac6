//! Counts what a fleet reports: workers that were replaced, and why; reloads, how they ended and how long they took.
//!
//! INVARIANT: a count never falls, and each worker is counted once: one that hung and was killed for it did not also crash.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::report::{Reason, Report, WorkerState};
use super::wear::Wear;
use crate::ids::{Position, WorkerId};

/// The upper ends of the classes in which the durations of reloads are counted, in milliseconds.
pub const RELOAD_CLASSES_MS: [u64; 10] = [
    500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 900_000,
];

/// Why a worker was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each has its word in the metrics")]
pub enum Replaced {
    /// It ended although it should not have.
    Crash,
    /// It did not become ready.
    Start,
    /// It lost its channel.
    Channel,
    /// It left by its own wish.
    OwnWish,
    /// It occupied too much memory.
    Memory,
    /// It was old enough.
    Age,
    /// It had answered enough requests.
    Requests,
    /// It hung.
    Hung,
    /// Somebody asked for it.
    Asked,
}

impl Replaced {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Crash,
        Self::Start,
        Self::Channel,
        Self::OwnWish,
        Self::Memory,
        Self::Age,
        Self::Requests,
        Self::Hung,
        Self::Asked,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Start => "start",
            Self::Channel => "channel",
            Self::OwnWish => "own_wish",
            Self::Memory => "memory",
            Self::Age => "age",
            Self::Requests => "requests",
            Self::Hung => "hung",
            Self::Asked => "asked",
        }
    }

    fn of(reason: &Reason) -> Option<Self> {
        match reason {
            Reason::Recycled { wear } => Some(match wear {
                Wear::Memory { .. } => Self::Memory,
                Wear::Age { .. } => Self::Age,
                Wear::Requests { .. } => Self::Requests,
                Wear::Hung { .. } | Wear::Outage { .. } | Wear::Stopped { .. } => Self::Hung,
                Wear::Asked => Self::Asked,
            }),
            Reason::OwnWish => Some(Self::OwnWish),
            Reason::NotReadyInTime | Reason::FailedToStart { .. } => Some(Self::Start),
            Reason::Crashed { .. } => Some(Self::Crash),
            // It is the beginning of an end that says more.
            Reason::ChannelLost
            | Reason::NewPosition
            | Reason::Respawn
            | Reason::Rollout
            | Reason::Rollback
            | Reason::Recycle { .. }
            | Reason::NewSpare
            | Reason::WaitsAsSpare
            | Reason::SpareTakesOver
            | Reason::Runs
            | Reason::Serves
            | Reason::Soaks
            | Reason::SuccessorReady
            | Reason::MakesRoom
            | Reason::ScaledDown
            | Reason::Superseded
            | Reason::RolloutFailed
            | Reason::RolledBack
            | Reason::RollbackAbandoned
            | Reason::FleetStops
            | Reason::Disconnected
            | Reason::DrainTimedOut
            | Reason::ExitTimedOut
            | Reason::Exited { .. } => None,
        }
    }
}

/// How a reload, or a rollback, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each has its word in the metrics")]
pub enum ReloadEnd {
    /// All workers were replaced.
    Succeeded,
    /// The new release failed.
    Failed,
    /// It was undone on request.
    Cancelled,
    /// A newer one took its turn.
    Superseded,
    /// The app was stopped.
    Stopped,
}

impl ReloadEnd {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::Stopped,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Stopped => "stopped",
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    replaced: BTreeMap<(Position, Replaced), u64>,
    /// Workers that live and are counted already.
    counted: BTreeSet<WorkerId>,
    /// Workers that live and have lost their channel.
    lost: BTreeSet<WorkerId>,
    stopping: bool,
    ends: BTreeMap<ReloadEnd, u64>,
    /// When the reload under way began.
    reloading_since: Option<Duration>,
    durations: [u64; RELOAD_CLASSES_MS.len()],
    duration_sum: Duration,
    last_duration: Option<Duration>,
}

impl Tally {
    /// Takes a report into account, that came at `now`.
    pub fn note(&mut self, report: &Report, now: Duration) {
        match report {
            Report::Changed {
                worker,
                position,
                to,
                reason,
                ..
            } => self.changed((*worker, *position), *to, reason),
            Report::RolloutStarted { .. } => {
                self.ends(ReloadEnd::Superseded, now);
                self.reloading_since = Some(now);
            }
            Report::RolloutFinished { .. } => self.ends(ReloadEnd::Succeeded, now),
            Report::RolloutFailed { .. } => self.ends(ReloadEnd::Failed, now),
            Report::RolloutCancelled { .. } => self.ends(ReloadEnd::Cancelled, now),
            Report::StopStarted { .. } => {
                self.ends(ReloadEnd::Stopped, now);
                self.stopping = true;
            }
            Report::RespawnScheduled { .. }
            | Report::CrashLoopEntered { .. }
            | Report::CrashLoopLeft { .. }
            | Report::BootOver
            | Report::CanaryStarted { .. }
            | Report::CanaryProgress { .. }
            | Report::CanaryPassed { .. }
            | Report::RolloutProgress { .. }
            | Report::RolledBack { .. }
            | Report::RollbackAbandoned { .. }
            | Report::FewerListeners { .. }
            | Report::Resizes { .. }
            | Report::ScaleStarted { .. }
            | Report::ScaleProgress { .. }
            | Report::StopProgress { .. } => {}
        }
    }

    fn changed(
        &mut self,
        (worker, position): (WorkerId, Position),
        to: WorkerState,
        reason: &Reason,
    ) {
        if *reason == Reason::ChannelLost {
            self.lost.insert(worker);
        }
        let is_gone = to == WorkerState::Gone;
        let lost = is_gone && self.lost.remove(&worker);
        let why = Replaced::of(reason).or(lost.then_some(Replaced::Channel));
        if let Some(why) = why.filter(|_| !self.stopping)
            && self.counted.insert(worker)
        {
            let count = self.replaced.entry((position, why)).or_default();
            *count = count.saturating_add(1);
        }
        if is_gone {
            self.counted.remove(&worker);
        }
    }

    fn ends(&mut self, end: ReloadEnd, now: Duration) {
        let Some(since) = self.reloading_since.take() else {
            return;
        };
        let took = now.saturating_sub(since);
        let count = self.ends.entry(end).or_default();
        *count = count.saturating_add(1);
        let class = RELOAD_CLASSES_MS
            .iter()
            .position(|&end| took <= Duration::from_millis(end));
        if let Some(class) = class {
            self.durations[class] = self.durations[class].saturating_add(1);
        }
        self.duration_sum = self.duration_sum.saturating_add(took);
        self.last_duration = Some(took);
    }

    /// Workers that were replaced, by position and reason.
    pub fn replaced(&self) -> impl Iterator<Item = (Position, Replaced, u64)> {
        let all = self.replaced.iter();
        all.map(|(&(position, why), &count)| (position, why, count))
    }

    /// Reloads that ended so.
    #[must_use]
    pub fn reloads(&self, end: ReloadEnd) -> u64 {
        self.ends.get(&end).copied().unwrap_or(0)
    }

    /// Reloads that took no longer than each of [`RELOAD_CLASSES_MS`], and longer than the one before.
    #[must_use]
    pub fn reload_classes(&self) -> [u64; RELOAD_CLASSES_MS.len()] {
        self.durations
    }

    /// How long all reloads took together.
    #[must_use]
    pub fn reload_time(&self) -> Duration {
        self.duration_sum
    }

    /// How long the last reload took.
    #[must_use]
    pub fn last_reload(&self) -> Option<Duration> {
        self.last_duration
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Amount;
    use crate::ids::{ExitStatus, Generation};

    fn changed(worker: u32, to: WorkerState, reason: Reason) -> Report {
        Report::Changed {
            worker: WorkerId(worker),
            position: Position(0),
            generation: Generation(1),
            from: None,
            to,
            reason,
        }
    }

    fn started() -> Report {
        Report::RolloutStarted {
            generation: Generation(2),
            base: Generation(1),
            workers: 1,
            canaries: None,
            max_surge: Amount::Count(1),
            max_unavailable: Amount::Count(0),
        }
    }

    const KILLED: Reason = Reason::Crashed {
        status: ExitStatus::Signal(9),
    };

    #[test]
    fn a_worker_that_hung_and_was_killed_for_it_is_counted_once() {
        let mut tally = Tally::default();
        let silent = Duration::from_secs(20);
        let wear = Wear::Hung { silent };
        let hung = changed(1, WorkerState::Draining, Reason::Recycled { wear });
        for report in [hung, changed(1, WorkerState::Gone, KILLED)] {
            tally.note(&report, Duration::ZERO);
        }
        tally.note(&changed(2, WorkerState::Gone, KILLED), Duration::ZERO);
        let counts: Vec<_> = tally.replaced().collect();
        assert_eq!(
            counts,
            [
                (Position(0), Replaced::Crash, 1),
                (Position(0), Replaced::Hung, 1)
            ]
        );
    }

    #[test]
    fn who_crashes_loses_its_channel_first_and_is_counted_as_crashed() {
        let mut tally = Tally::default();
        let exited = Reason::Exited {
            status: ExitStatus::Code(0),
        };
        for (worker, end) in [(1, KILLED), (2, exited)] {
            let lost = changed(worker, WorkerState::Stopping, Reason::ChannelLost);
            tally.note(&lost, Duration::ZERO);
            tally.note(&changed(worker, WorkerState::Gone, end), Duration::ZERO);
        }
        let reasons: Vec<_> = tally.replaced().map(|(_, why, _)| why).collect();
        assert_eq!(reasons, [Replaced::Crash, Replaced::Channel]);
    }

    #[test]
    fn what_ends_while_the_app_stops_is_not_replaced() {
        let mut tally = Tally::default();
        let stop = Report::StopStarted {
            fast: true,
            workers: 1,
        };
        tally.note(&stop, Duration::ZERO);
        tally.note(&changed(1, WorkerState::Gone, KILLED), Duration::ZERO);
        assert_eq!(tally.replaced().count(), 0);
    }

    #[test]
    fn a_reload_ends_once_and_took_its_time() {
        let mut tally = Tally::default();
        let finished = Report::RolloutFinished {
            generation: Generation(2),
        };
        let history = [(started(), 10), (started(), 12), (finished.clone(), 15)];
        for (report, second) in &history {
            tally.note(report, Duration::from_secs(*second));
        }
        tally.note(&finished, Duration::from_secs(20));
        assert_eq!(tally.reloads(ReloadEnd::Succeeded), 1);
        assert_eq!(tally.reloads(ReloadEnd::Superseded), 1);
        assert_eq!(tally.reload_time(), Duration::from_secs(5));
        assert_eq!(tally.last_reload(), Some(Duration::from_secs(3)));
        assert_eq!(tally.reload_classes()[2..4], [1, 1]);
    }
}
