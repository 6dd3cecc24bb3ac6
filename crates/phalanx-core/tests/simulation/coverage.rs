//! Which situations the histories reached: a simulation that never rolls back proves nothing about
//! reverts.

use std::collections::BTreeMap;

use phalanx_core::fleet::{Action, Done, FailureReason, Outcome, Reason, Refusal, Report};

/// How often each situation came up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

/// The situations that a run of many histories must have reached.
pub(crate) const SITUATIONS: [&str; 46] = [
    "boot failed",
    "all gone",
    "stopped",
    "reloaded",
    "rollout failed",
    "rollout stalled",
    "rolled back",
    "revert abandoned",
    "scaled",
    "scaling failed",
    "superseded command",
    "refused while stopping",
    "invalid",
    "settled",
    "crash loop entered",
    "crash loop left",
    "respawned",
    "left by its own wish",
    "lost its channel",
    "never ready",
    "drain timed out",
    "exit timed out",
    "made room",
    "successor ready",
    "superseded start",
    "crashed in a rollout",
    "killed too often",
    "canaries watched",
    "canaries passed",
    "canary unhealthy",
    "canary hung",
    "rollout cancelled",
    "went back on request",
    "nothing to go back to",
    "soaked",
    "ended in its soak",
    "admitted",
    "accepted with fewer listeners",
    "resized",
    "recycled",
    "recycled on request",
    "recycling failed",
    "spare ready",
    "promoted",
    "spare took over",
    "spare was worn",
];

impl Coverage {
    pub(crate) fn note(&mut self, action: &Action) {
        if let Some(situation) = situation_of(action) {
            *self.0.entry(situation).or_default() += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (situation, times) in &other.0 {
            *self.0.entry(situation).or_default() += times;
        }
    }

    pub(crate) fn times(&self, situation: &str) -> u64 {
        self.0.get(situation).copied().unwrap_or(0)
    }
}

fn situation_of(action: &Action) -> Option<&'static str> {
    match action {
        Action::NewGeneration(_)
        | Action::DropGeneration(_)
        | Action::Spawn { .. }
        | Action::BeginWatch
        | Action::EndWatch
        | Action::Refuse
        | Action::Drain { .. }
        | Action::Stop { .. }
        | Action::Kill { .. } => None,
        Action::Admit { .. } => Some("admitted"),
        Action::Promote { .. } => Some("promoted"),
        Action::Accept { .. } => Some("accepted with fewer listeners"),
        Action::Reply { result, .. } => Some(of_result(result)),
        Action::Report(report) => of_report(report),
        Action::Settled { .. } => Some("settled"),
        Action::Finished(outcome) => Some(match outcome {
            Outcome::Stopped => "stopped",
            Outcome::BootFailed { .. } => "boot failed",
            Outcome::AllGone => "all gone",
        }),
    }
}

fn of_result(result: &Result<Done, Refusal>) -> &'static str {
    match result {
        Ok(Done::Reloaded { .. }) => "reloaded",
        Ok(Done::RolledBack { .. }) => "went back on request",
        Ok(Done::Scaled { .. }) => "scaled",
        Ok(Done::Recycled { .. }) => "recycled on request",
        Ok(Done::Stopped) => "stop answered",
        Err(Refusal::RolloutFailed { .. }) => "reload refused",
        Err(Refusal::ScaleFailed { .. }) => "scaling failed",
        Err(Refusal::RecycleFailed { .. }) => "recycling failed",
        Err(Refusal::NoEarlierRelease) => "nothing to go back to",
        Err(Refusal::Superseded) => "superseded command",
        Err(Refusal::Stopping) => "refused while stopping",
        Err(Refusal::Invalid { .. }) => "invalid",
    }
}

fn of_report(report: &Report) -> Option<&'static str> {
    match report {
        Report::Changed {
            position,
            reason: Reason::Recycled { .. },
            ..
        } if position.is_spare() => Some("spare was worn"),
        Report::Changed { reason, .. } => of_reason(reason),
        Report::CrashLoopEntered { .. } => Some("crash loop entered"),
        Report::CrashLoopLeft { .. } => Some("crash loop left"),
        Report::RolloutFailed { failure, .. } => Some(match failure.reason {
            FailureReason::Stalled { .. } => "rollout stalled",
            FailureReason::KilledTooOften { .. } => "killed too often",
            FailureReason::Crashed { .. } => "crashed in a rollout",
            FailureReason::Hung => "canary hung",
            FailureReason::Unhealthy { .. } => "canary unhealthy",
            FailureReason::EndedInSoak { .. } => "ended in its soak",
            FailureReason::SpawnFailed { .. }
            | FailureReason::ExitedBeforeReady { .. }
            | FailureReason::NotReadyInTime { .. }
            | FailureReason::LeftBeforeReady
            | FailureReason::ChannelLost => "rollout failed",
        }),
        Report::Resizes { .. } => Some("resized"),
        Report::RolledBack { .. } => Some("rolled back"),
        Report::RollbackAbandoned { .. } => Some("revert abandoned"),
        Report::CanaryStarted { .. } => Some("canaries watched"),
        Report::CanaryPassed { .. } => Some("canaries passed"),
        Report::RolloutCancelled { .. } => Some("rollout cancelled"),
        Report::CanaryProgress { .. }
        | Report::RespawnScheduled { .. }
        | Report::BootOver
        | Report::RolloutStarted { .. }
        | Report::RolloutProgress { .. }
        | Report::RolloutFinished { .. }
        | Report::FewerListeners { .. }
        | Report::ScaleStarted { .. }
        | Report::ScaleProgress { .. }
        | Report::StopStarted { .. }
        | Report::StopProgress { .. } => None,
    }
}

fn of_reason(reason: &Reason) -> Option<&'static str> {
    match reason {
        Reason::Respawn => Some("respawned"),
        Reason::SuccessorReady => Some("successor ready"),
        Reason::Recycled { .. } => Some("recycled"),
        Reason::MakesRoom => Some("made room"),
        Reason::Superseded => Some("superseded start"),
        Reason::OwnWish => Some("left by its own wish"),
        Reason::ChannelLost => Some("lost its channel"),
        Reason::DrainTimedOut => Some("drain timed out"),
        Reason::ExitTimedOut => Some("exit timed out"),
        Reason::NotReadyInTime => Some("never ready"),
        Reason::Soaks => Some("soaked"),
        Reason::WaitsAsSpare => Some("spare ready"),
        Reason::SpareTakesOver => Some("spare took over"),
        Reason::RolledBack
        | Reason::Recycle { .. }
        | Reason::NewPosition
        | Reason::NewSpare
        | Reason::Rollout
        | Reason::Rollback
        | Reason::Runs
        | Reason::Serves
        | Reason::ScaledDown
        | Reason::RolloutFailed
        | Reason::RollbackAbandoned
        | Reason::FleetStops
        | Reason::Disconnected
        | Reason::Exited { .. }
        | Reason::Crashed { .. }
        | Reason::FailedToStart { .. } => None,
    }
}
