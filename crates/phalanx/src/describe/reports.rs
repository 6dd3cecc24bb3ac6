//! What the fleet reports, in words, and how much it matters.

use std::time::Duration;

use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::fleet::{HealthSummary, Reason, Report, WorkerState};
use phalanx_core::ids::{Generation, Position, WorkerId};
use phalanx_core::level::{Level, counted};

#[expect(clippy::too_many_lines, reason = "a table of words")]
pub(super) fn text_of(report: &Report) -> String {
    match report {
        Report::Changed {
            worker,
            position,
            to,
            reason,
            ..
        } => change_text(*worker, *position, *to, reason),
        Report::RespawnScheduled {
            position,
            delay,
            failures,
        } => respawn_text(*position, *delay, *failures),
        Report::CrashLoopEntered { position, failures } => format!(
            "position {position} is in a crash loop: {failures} failures in a row; it keeps trying"
        ),
        Report::CrashLoopLeft { position } => format!("position {position} left its crash loop"),
        Report::BootOver => "the start is over".to_owned(),
        Report::RolloutStarted {
            generation,
            workers,
            canaries,
            ..
        } => rollout_text(*generation, *workers, *canaries),
        Report::CanaryStarted {
            canaries, watch, ..
        } => format!("reload: watching {} for {watch:?}", counted(*canaries)),
        Report::CanaryProgress {
            elapsed,
            watch,
            canary,
            others,
            ..
        } => format!(
            "reload: watched for {:.0?} of {watch:?}: {}",
            Duration::from_secs(elapsed.as_secs()),
            figures(canary, others)
        ),
        Report::CanaryPassed { canary, others, .. } => passed_text(canary, others),
        Report::RolloutCancelled { generation, base } => {
            format!("reload: generation {generation} is undone; going back to {base}")
        }
        Report::RolloutProgress { done, workers, .. } => {
            format!("reload: {done} of {workers} replaced")
        }
        Report::RolloutFinished { generation } => format!("reload: generation {generation} serves"),
        Report::RolloutFailed {
            generation,
            base,
            failure,
        } => {
            format!("reload: generation {generation} failed: {failure}; going back to {base}")
        }
        Report::RolledBack { generation, .. } => format!("reload: back on generation {generation}"),
        Report::RollbackAbandoned {
            generation,
            failure,
            ..
        } => {
            format!("reload: {generation} failed too: {failure}; the workers that are ready stay")
        }
        Report::FewerListeners { worker, missing } => fewer_text(*worker, missing),
        Report::Resizes { from, to, why } if from == to => {
            format!("the size stays {}: {why}", counted(*to))
        }
        Report::Resizes { from, to, why } => {
            format!("the size changes from {from} to {}: {why}", counted(*to))
        }
        Report::ScaleStarted { from, to } => format!("scaling from {from} to {}", counted(*to)),
        Report::ScaleProgress { done, of } => format!("scaling: {done} of {of} done"),
        Report::StopStarted { fast, workers } => {
            format!(
                "stopping {}{}",
                counted(*workers),
                if *fast { " at once" } else { "" }
            )
        }
        Report::StopProgress { remaining } => format!("stopping: {} left", counted(*remaining)),
    }
}

fn rollout_text(generation: Generation, workers: u32, canaries: Option<u32>) -> String {
    let first = canaries.map(|canaries| format!(", {canaries} of them first"));
    format!(
        "reload: {} to replace by generation {generation}{}",
        counted(workers),
        first.unwrap_or_default()
    )
}

fn passed_text(canary: &HealthSummary, others: &HealthSummary) -> String {
    let verdict = if canary.reporting > 0 && !canary.is_enough() {
        "too few answers to judge"
    } else {
        "all well"
    };
    format!("reload: {verdict}, going on: {}", figures(canary, others))
}

fn fewer_text(worker: WorkerId, missing: &[ListenerName]) -> String {
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    let missing = missing.join(" and ");
    format!("worker {worker} is accepted without {missing}")
}

/// How canaries and the others do; nothing where no worker reports figures.
fn figures(canary: &HealthSummary, others: &HealthSummary) -> String {
    if canary.reporting == 0 && others.reporting == 0 {
        return "no crash, no hang; the workers report no figures".to_owned();
    }
    let of = |summary: &HealthSummary| {
        let p99 = summary.p99_us.map_or("none".to_owned(), |p99| {
            format!("{:.1?}", Duration::from_micros(p99))
        });
        let (errors, requests) = (summary.server_errors, summary.requests);
        format!("{errors} errors in {requests} requests, p99 {p99}")
    };
    format!("new: {}; old: {}", of(canary), of(others))
}

fn change_text(worker: WorkerId, position: Position, to: WorkerState, reason: &Reason) -> String {
    let who = format!("worker {worker} at position {position}");
    // The channel ends before the exit is known: said first, it explains the successor that starts meanwhile.
    if is_trouble(reason) || *reason == Reason::ChannelLost {
        format!("{who} {reason}")
    } else {
        format!("{who} is {to}: {reason}")
    }
}

fn respawn_text(position: Position, delay: Duration, failures: u32) -> String {
    let plural = if failures == 1 { "" } else { "s" };
    let when = if delay.is_zero() {
        "at once".to_owned()
    } else {
        format!("in {delay:.1?}")
    };
    format!("position {position}: next try {when}, after {failures} failure{plural}")
}

pub(super) fn level_of(report: &Report) -> Level {
    match report {
        Report::Changed { reason, .. } if is_trouble(reason) => Level::Warn,
        Report::RespawnScheduled { delay, .. } if delay.is_zero() => Level::Debug,
        Report::RolloutProgress { done, workers, .. } if !is_milestone(*done, *workers) => {
            Level::Debug
        }
        Report::ScaleProgress { done, of } if !is_milestone(*done, *of) => Level::Debug,
        Report::Changed {
            reason:
                Reason::ChannelLost
                | Reason::Respawn
                | Reason::SpareTakesOver
                | Reason::Recycle { .. }
                | Reason::Recycled { .. },
            ..
        }
        | Report::RespawnScheduled { .. }
        | Report::CrashLoopLeft { .. }
        | Report::RolloutStarted { .. }
        | Report::CanaryStarted { .. }
        | Report::CanaryPassed { .. }
        | Report::RolloutProgress { .. }
        | Report::RolloutFinished { .. }
        | Report::Resizes { .. }
        | Report::ScaleStarted { .. }
        | Report::ScaleProgress { .. }
        | Report::StopStarted { .. } => Level::Info,
        Report::Changed { .. }
        | Report::BootOver
        | Report::CanaryProgress { .. }
        | Report::StopProgress { .. } => Level::Debug,
        Report::RolledBack { .. }
        | Report::RolloutCancelled { .. }
        | Report::FewerListeners { .. } => Level::Warn,
        Report::CrashLoopEntered { .. }
        | Report::RolloutFailed { .. }
        | Report::RollbackAbandoned { .. } => Level::Error,
    }
}

/// Of many steps every tenth part is worth a line; of few, each.
fn is_milestone(done: u32, of: u32) -> bool {
    let tenths = |count: u32| u64::from(count) * 10 / u64::from(of.max(1));
    of <= 10 || tenths(done) != tenths(done.saturating_sub(1))
}

fn is_trouble(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Crashed { .. }
            | Reason::FailedToStart { .. }
            | Reason::NotReadyInTime
            | Reason::DrainTimedOut
            | Reason::ExitTimedOut
    )
}
