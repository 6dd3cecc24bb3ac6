//! What a fleet knows of one position: who holds it, and when to try again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::FleetConfig;
use super::outbox::Outbox;
use super::report::Report;
use super::wear::{Recycled, Wear};
use super::worker::Worker;
use crate::backoff::Backoff;
use crate::ids::{Generation, Position, WorkerId};
use crate::rng::SplitMix64;

/// One position. Usually one worker holds it; its successor and those on their way out may be there
/// too.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) position: Position,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// When the next try is due; none for at once.
    pub(super) retry_at: Option<Duration>,
    /// Stays empty: respawning is off, and its worker ended unasked.
    pub(super) abandoned: bool,
    /// The waiting has reached its cap and no run was stable since.
    pub(super) crash_loop: bool,
    pub(super) past: Past,
    /// How often it lost a worker unexpectedly.
    pub(super) restarts: u32,
    /// When and why its worker was last recycled.
    pub(super) recycled: Option<Recycled>,
    /// When a try failed last.
    failed_at: Duration,
    backoff: Backoff,
}

/// What became of a position since it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Nothing yet.
    Untried,
    /// A worker was spawned for it.
    Tried,
    /// A worker of it was ready.
    Served,
}

impl Seat {
    pub(super) fn new(position: Position) -> Self {
        Self {
            position,
            workers: BTreeMap::new(),
            retry_at: None,
            abandoned: false,
            crash_loop: false,
            past: Past::Untried,
            restarts: 0,
            recycled: None,
            failed_at: Duration::ZERO,
            backoff: Backoff::default(),
        }
    }

    /// Forgets what was known, but for who lives: the position was given up and is wanted again.
    pub(super) fn renew(&mut self) {
        *self = Self {
            past: if self.has_ready() {
                Past::Served
            } else {
                Past::Untried
            },
            workers: std::mem::take(&mut self.workers),
            ..Self::new(self.position)
        };
    }

    /// Another release is to be tried: its tries begin at once.
    pub(super) fn forget_failures(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        self.abandoned = false;
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(|worker| worker.is_ready())
    }

    pub(super) fn has_ready(&self) -> bool {
        self.ready().next().is_some()
    }

    pub(super) fn has_ready_of(&self, generation: Generation) -> bool {
        self.ready().any(|worker| worker.generation == generation)
    }

    pub(super) fn has_served(&self) -> bool {
        self.past == Past::Served
    }

    /// Why its worker is being replaced.
    pub(super) fn wear(&self) -> Option<Wear> {
        self.ready().find_map(|worker| worker.worn)
    }

    /// Nobody serves or starts here.
    pub(super) fn is_vacant(&self) -> bool {
        !self.workers.values().any(Worker::is_active)
    }

    /// Nobody of this generation serves or starts here.
    pub(super) fn lacks(&self, generation: Generation) -> bool {
        !self
            .workers
            .values()
            .any(|worker| worker.is_active() && worker.generation == generation)
    }

    /// Somebody of another generation serves or starts here.
    pub(super) fn holds_other_than(&self, generation: Generation) -> bool {
        self.workers
            .values()
            .any(|worker| worker.is_active() && worker.generation != generation)
    }

    /// A failed try is not over.
    pub(super) fn is_blocked(&self) -> bool {
        self.workers.values().any(Worker::is_failed_try)
    }

    /// Its workers as the limit on extra processes counts them.
    pub(super) fn counted(&self) -> u32 {
        let counted = self.workers.values().filter(|worker| worker.is_counted());
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    /// Of these, those that do not finish their work.
    pub(super) fn counted_active(&self) -> u32 {
        let counted = self.workers.values().filter(|worker| worker.is_counted());
        u32::try_from(counted.filter(|worker| !worker.is_retiring()).count()).unwrap_or(u32::MAX)
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// The worker that is to stay if several are ready: one of the wanted generation, else of the
    /// base, else one that is not worn out, else the youngest.
    pub(super) fn keeper(&self, wanted: Generation, base: Generation) -> Option<WorkerId> {
        self.ready()
            .max_by_key(|worker| {
                let generation = worker.generation;
                (
                    generation == wanted,
                    generation == base,
                    worker.worn.is_none(),
                    worker.id,
                )
            })
            .map(|worker| worker.id)
    }

    /// Counts a failure and schedules the next try. Without respawning there is none, unless the
    /// worker to be replaced still serves.
    pub(super) fn record_failure(
        &mut self,
        config: &FleetConfig,
        rng: &mut SplitMix64,
        out: &mut Outbox,
    ) {
        self.failed_at = out.now();
        let delay = self.backoff.record_failure(&config.backoff, rng);
        self.retry_at = (!delay.is_zero()).then(|| out.after(delay));
        self.abandoned = !config.respawn && self.is_vacant();
        if self.abandoned {
            return;
        }
        if self.backoff.is_at_cap(&config.backoff) && !self.crash_loop {
            self.crash_loop = true;
            out.report(Report::CrashLoopEntered {
                position: self.position,
                failures: self.backoff.failures(),
            });
        }
    }

    /// The failure just recorded was a kill from outside: the next try need not wait longer than
    /// after `limit` failures, unless others came before. True if it comes sooner now.
    pub(super) fn excuse(&mut self, limit: u32, config: &FleetConfig, out: &Outbox) -> bool {
        self.backoff.excuse(limit);
        let delay = config.backoff.nominal_delay(self.backoff.failures());
        let sooner = out.after(delay);
        let is_sooner = self.retry_at.is_some_and(|at| at > sooner);
        if is_sooner {
            self.retry_at = Some(sooner);
        }
        is_sooner
    }

    /// Tells when the next try will be.
    pub(super) fn report_retry(&self, out: &mut Outbox) {
        if !self.abandoned {
            let retry_at = self.retry_at.unwrap_or(out.now());
            out.report(Report::RespawnScheduled {
                position: self.position,
                delay: retry_at.saturating_sub(out.now()),
                failures: self.backoff.failures(),
            });
        }
    }

    /// A worker of it was ready for `ready_for`: a stable run makes the past forgotten. True if it
    /// was stable.
    pub(super) fn record_run(
        &mut self,
        ready_for: Duration,
        config: &FleetConfig,
        out: &mut Outbox,
    ) -> bool {
        let is_stable = ready_for >= config.backoff.stable_after();
        if is_stable {
            self.backoff.reset();
            if std::mem::take(&mut self.crash_loop) {
                out.report(Report::CrashLoopLeft {
                    position: self.position,
                });
            }
        }
        is_stable
    }

    /// Acts on what has come due: the next try, or the end of a crash loop.
    pub(super) fn pass_time(&mut self, wanted: Generation, config: &FleetConfig, out: &mut Outbox) {
        self.retry_at = self.retry_at.filter(|at| !out.is_due(*at));
        let stable_at = self.stable_at(wanted, config);
        if stable_at.is_some_and(|at| out.is_due(at)) {
            self.record_run(config.backoff.stable_after(), config, out);
        }
    }

    /// When a run of the wanted generation that might end a crash loop will be stable. One that serves while its successors fail
    /// says nothing about them.
    pub(super) fn stable_at(&self, wanted: Generation, config: &FleetConfig) -> Option<Duration> {
        if !self.crash_loop {
            return None;
        }
        let ready_since = self
            .workers
            .values()
            .filter(|worker| worker.is_ready() || worker.is_spare())
            .filter(|worker| worker.generation == wanted && worker.since >= self.failed_at)
            .map(|worker| worker.since)
            .min()?;
        Some(ready_since.saturating_add(config.backoff.stable_after()))
    }
}
