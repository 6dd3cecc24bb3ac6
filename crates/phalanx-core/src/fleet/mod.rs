//! The fleet: which workers live, which are asked to go, and when.
//!
//! [`Fleet`] is a machine without clock, I/O or randomness of its own: [`Fleet::step`] takes an
//! event and the time and says what is to be done. The same seed and the same events give the same
//! actions. Each step takes in the event (`lifecycle`, `verdict`, `commands`), lets deadlines pass,
//! and then compares what lives with what should live (`reconcile`, `rollout`), so that no order of
//! events, and no lost one, can leave it waiting for something that will not come.
//!
//! # Words
//!
//! A position is *vacant* when nobody serves or starts there. A position is *switched* when the
//! rollout has taken it: from then on its spawns are of the rollout's generation. It is *done* once
//! a worker of that generation was ready there.
//!
//! # The two limits
//!
//! `surge`: a worker is spawned beside another of its position only if all live processes, with one
//! reserved for each vacant position, then number at most `target + max_surge`. A process that
//! crashed but lingers (its channel ended, its exit is due) is not counted: its replacement does
//! not wait for it. Of those that finish their work, `max_draining` are overlooked (all of them,
//! unless told otherwise or no surge is allowed), so that a rollout does not wait for slow drains.
//! Filling a vacant position that holds no process is always allowed.
//!
//! `unavailable`: a ready worker is taken down only if at least `target - max_unavailable` others
//! are ready; positions that stay empty because respawning is off are not counted in the target.
//! The one exception keeps a fleet that crashes all the time from holding a worker for ever: a
//! worker that is no longer needed, because its successor is ready or its position is surplus, goes
//! after `ready_timeout` at the latest.
//!
//! And no more than `max_starting` workers start at the same moment, but for one of a rollout.
//!
//! # What catches a bad release
//!
//! Readiness and its time limit; the soak time, in which the first successor serves and gets no
//! connections; the second crash at a position; and canaries (`canary`): so many positions are taken
//! first, and the others wait until these have been watched. Whatever fails, `rollback` leads back to
//! the base. An earlier base is kept for the command that returns to it.
//!
//! # Recycling
//!
//! A worker that is worn out ([`Event::Worn`]) or to be replaced by hand gives way to a successor of the same release
//! (`recycle`): one position at a time, the successor first, and after any reload.
//!
//! # Spares
//!
//! So many workers may be kept ready without connections (`spares`). They hold places beyond all positions, take no part in the
//! limits above, and are of the newest release, in which a reload therefore begins with them.
//!
//! # Size
//!
//! The target changes by command, and by load where the runtime watches it ([`Elastic`], [`Event::Resize`]).
//!
//! # Why a rollout ends
//!
//! It takes positions lowest first, as the limits allow. A position whose old worker ends meanwhile
//! is switched at once, out of turn, so that an old release that crashes or leaves all the time
//! cannot hold the rollout up; but while the new release is unproven only one position is, and the
//! others respawn the release that is known to work. Every try of the new release ends, by
//! readiness, failure or time limit; a failure ends the rollout, except SIGKILL from outside, which
//! is retried three times. And a rollout in which nothing moves for the sum of all time limits
//! fails as stalled.

mod action;
mod amount;
mod canary;
mod census;
mod change;
mod commands;
mod config;
mod cores;
mod elastic;
mod event;
mod failure;
mod hung;
mod lifecycle;
mod milestones;
mod outbox;
mod reconcile;
mod recycle;
mod report;
mod rollback;
mod rollout;
mod roster;
mod seat;
mod spares;
mod tally;
mod verdict;
mod view;
mod wear;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serializer;

pub use crate::health::HealthSummary;
pub use action::{Action, Done, Outcome, Refusal};
pub use amount::{Amount, AmountError};
use change::{Change, QueuedReloads};
use commands::Scaling;
pub use config::{BootPolicy, ConfigError, FleetConfig, MAX_WORKERS};
pub use cores::CoreCount;
pub use elastic::{
    Elastic, ElasticLimit, ElasticRange, ElasticReason, ElasticSample, Resize, ResizeReason,
};
pub use event::{Canary, Command, CommandId, Event, RecycleTarget, ReloadPlan, ScaleTo};
pub use failure::{Failure, FailureReason};
use outbox::Outbox;
use recycle::Recycling;
pub use report::{Reason, Report, WorkerState};
use roster::Roster;
pub use tally::{RELOAD_CLASSES_MS, ReloadEnd, Replaced, Tally};
use verdict::Boot;
pub use view::{FleetPhase, FleetView, RolloutView, VacancyView, WorkerView};
pub use wear::{Recycled, Wear, WearGauge, WearLimits, WearSample};
use worker::Worker;

use crate::ids::{Generation, Position, WorkerId};
use crate::rng::SplitMix64;

/// The machine that decides which workers live.
#[derive(Clone, Debug)]
pub struct Fleet {
    config: FleetConfig,
    rng: SplitMix64,
    out: Outbox,
    phase: Phase,
    target: u32,
    /// The base: the generation of the last rollout that succeeded, and of respawns.
    current: Generation,
    last_generation: Generation,
    /// The base before the present one, which can be returned to.
    previous: Option<Generation>,
    /// A worker of the base has been ready.
    has_served: bool,
    last_worker: WorkerId,
    roster: Roster,
    /// The generations that the runtime keeps a snapshot of.
    snapshots: BTreeSet<Generation>,
    /// None once the boot is over.
    boot: Option<Boot>,
    change: Option<Change>,
    /// Reloads that wait for the boot or for a revert to end.
    queued_reloads: Option<QueuedReloads>,
    scaling: Option<Scaling>,
    recycling: Recycling,
    settled: Option<Generation>,
    /// The release that spares were of last.
    spare_generation: Generation,
    /// The runtime was told to watch.
    watches: bool,
}

/// What the fleet is about.
#[derive(Clone, Debug)]
enum Phase {
    /// Waits for [`Event::Start`].
    New,
    /// Keeps its workers.
    Running,
    /// Waits for the last worker to go.
    Ending {
        outcome: Outcome,
        stops: Vec<CommandId>,
    },
    /// Everything is gone.
    Finished,
}

impl Fleet {
    /// A fleet that waits for [`Event::Start`].
    ///
    /// # Errors
    ///
    /// What [`FleetConfig::check`] refuses.
    pub fn new(config: FleetConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            rng: SplitMix64::new(config.seed),
            out: Outbox::default(),
            phase: Phase::New,
            target: config.workers,
            current: Generation(1),
            last_generation: Generation(1),
            previous: None,
            has_served: false,
            last_worker: WorkerId(0),
            roster: Roster::default(),
            snapshots: BTreeSet::new(),
            boot: Some(Boot::default()),
            change: None,
            queued_reloads: None,
            scaling: None,
            recycling: Recycling::default(),
            settled: None,
            spare_generation: Generation(1),
            watches: false,
            config,
        })
    }

    /// Changes every limit from now on. Deadlines that run keep the length that they were given. The number of workers is
    /// [`Command::Scale`]'s business, and the seed that of the start.
    ///
    /// # Errors
    ///
    /// What [`FleetConfig::check`] refuses; then nothing is changed.
    pub fn configure(&mut self, config: FleetConfig) -> Result<(), ConfigError> {
        config.check()?;
        self.config = config;
        Ok(())
    }

    /// Takes in what happened at `now`, a monotonic time since an arbitrary start, and says what is
    /// to be done. Never panics on a late, doubled or unknown event: it changes nothing.
    ///
    /// Only [`Event::Tick`] lets deadlines pass. After a pause of its own the runtime tells
    /// everything that has arrived first and ticks then, so that no worker is judged late whose
    /// word was only not read yet.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        self.out.begin(now);
        match event {
            Event::Start => self.start(),
            Event::SpawnFailed { worker, reason } => self.spawn_failed(worker, reason),
            Event::Online { worker } => self.online(worker),
            Event::Serves { worker } => self.serves(worker),
            Event::Ready { worker } => self.ready(worker),
            Event::Lacks { worker, lack } => self.lacks(worker, lack),
            Event::Leaving { worker } => self.leaving(worker),
            Event::Extends { worker, by } => self.extends(worker, by),
            Event::Disconnected { worker } => self.disconnected(worker),
            Event::Exited { worker, status } => self.exited(worker, status),
            Event::Health { worker, health } => self.take_health(worker, health),
            Event::Hung { worker } => self.hung(worker),
            Event::Resize(resize) => self.resize(resize),
            Event::Worn { worker, wear } => self.worn(worker, wear),
            Event::Recovered { worker } => self.recovered(worker),
            Event::Command { id, command } => self.command(id, command),
            Event::Tick => self.expire(),
        }
        self.reconcile();
        self.out.take()
    }

    /// What a command means now. It gets exactly one reply: at once, or later from whatever it sets in motion.
    fn command(&mut self, id: CommandId, command: Command) {
        match (command, &mut self.phase) {
            (Command::Reload(plan), Phase::New | Phase::Running) => self.reload(id, plan),
            (Command::Rollback, Phase::New | Phase::Running) => self.rollback(id),
            (Command::Scale(to), Phase::New | Phase::Running) => self.scale(id, to),
            (Command::Recycle(target), Phase::New | Phase::Running) => self.recycle(id, target),
            (
                Command::Reload(_) | Command::Rollback | Command::Scale(_) | Command::Recycle(_),
                Phase::Ending { .. } | Phase::Finished,
            ) => {
                self.out.reply(id, Err(Refusal::Stopping));
            }
            (Command::Stop, Phase::New | Phase::Running) => self.stop(id, false),
            (Command::StopFast, Phase::New | Phase::Running) => self.stop(id, true),
            (Command::Stop, Phase::Ending { stops, .. }) => stops.push(id),
            (Command::StopFast, Phase::Ending { stops, .. }) => {
                stops.push(id);
                self.report_stop(true);
                self.hurry();
            }
            (Command::Stop | Command::StopFast, Phase::Finished) => {
                self.out.reply(id, Ok(Done::Stopped));
            }
        }
    }

    /// When [`Event::Tick`] is due, if no other event comes first. Stepping earlier does no harm.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let deadlines = self.roster.workers().filter_map(Worker::deadline);
        let others = match self.phase {
            Phase::Running => self.other_deadlines().min(),
            Phase::New | Phase::Ending { .. } | Phase::Finished => None,
        };
        deadlines
            .chain(others)
            .filter(|deadline| *deadline < Duration::MAX)
            .min()
    }

    /// What a running fleet waits for, but for the states of its workers.
    fn other_deadlines(&self) -> impl Iterator<Item = Duration> {
        let release = self
            .roster
            .workers()
            .filter_map(|worker| worker.redundant_since)
            .map(|since| since.saturating_add(self.config.ready_timeout));
        let seats = self
            .roster
            .seats()
            .flat_map(|seat| {
                let wanted = self.wanted_generation(seat.position);
                [seat.retry_at, seat.stable_at(wanted, &self.config)]
            })
            .flatten();
        release
            .chain(seats)
            .chain(self.stall_at())
            .chain(self.head_start_until())
            .chain(self.watch_deadline())
    }

    /// What the fleet looks like now.
    #[must_use]
    pub fn view(&self) -> FleetView {
        FleetView {
            phase: match self.phase {
                Phase::New => FleetPhase::New,
                Phase::Running if self.boot.is_some() => FleetPhase::Booting,
                Phase::Running => FleetPhase::Running,
                Phase::Ending { .. } => FleetPhase::Stopping,
                Phase::Finished => FleetPhase::Finished,
            },
            target: self.target,
            generation: self.current,
            rollout: self.change.as_ref().map(|change| RolloutView {
                generation: change.to,
                rolling_back: change.is_rollback(),
                done: change.done_count(),
                workers: self.target,
                watching: change.canary.is_some_and(|canary| canary.is_watching()),
            }),
            previous: self.previous,
            spares: self.config.spares,
            settled: self.settled.is_some(),
            workers: self.roster.seats().flat_map(view::workers_of).collect(),
            vacancies: self
                .roster
                .wanted(self.target)
                .filter_map(view::vacancy_of)
                .collect(),
        }
    }

    fn is_wanted(&self, position: Position) -> bool {
        position.0 < self.target
    }
}

/// Durations leave as whole milliseconds, in fields whose names end in `_ms`.
fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
