//! What the model learns from replies and reports.

use phalanx_core::fleet::{CommandId, Done, Reason, Refusal, Report};

use crate::model::Model;

impl Model {
    pub(crate) fn note_reply(&mut self, command: CommandId, result: &Result<Done, Refusal>) {
        self.waiting.remove(&command);
        if let Ok(Done::Reloaded { generation } | Done::RolledBack { generation }) = result {
            self.base = *generation;
            self.may_be_mixed = false;
        }
    }

    pub(crate) fn note_report(&mut self, report: &Report) {
        match report {
            Report::RollbackAbandoned { .. } => {
                self.may_be_mixed = true;
                self.restore_limits();
            }
            Report::RolledBack { .. } => self.restore_limits(),
            Report::RolloutStarted { .. } => self.note_rollout(report),
            Report::Resizes { to, .. } => self.resized(*to),
            Report::CanaryPassed { .. } => self.canaries = None,
            Report::RolloutFinished { generation } => {
                self.rolling = None;
                self.base = *generation;
                self.restore_limits();
            }
            Report::RolloutFailed { .. } | Report::RolloutCancelled { .. } => {
                self.rolling = None;
                self.canaries = None;
                // Other releases get their turn: their tries begin anew.
                self.streaks.clear();
            }
            Report::Changed {
                worker,
                reason: Reason::NotReadyInTime,
                ..
            } => {
                // It does not finish anything: it failed.
                if let Some(known) = self.workers.get_mut(worker) {
                    known.is_retiring = false;
                }
            }
            Report::Changed {
                worker,
                position,
                reason: Reason::Recycle { .. },
                ..
            } => self.note_turn(*position, *worker),
            Report::RespawnScheduled { position, .. } => {
                // It has troubles of its own; the others do not wait for their end.
                self.turns.remove(position);
            }
            Report::Changed { .. }
            | Report::CrashLoopEntered { .. }
            | Report::CrashLoopLeft { .. }
            | Report::BootOver
            | Report::RolloutProgress { .. }
            | Report::CanaryStarted { .. }
            | Report::CanaryProgress { .. }
            | Report::FewerListeners { .. }
            | Report::ScaleStarted { .. }
            | Report::ScaleProgress { .. }
            | Report::StopStarted { .. }
            | Report::StopProgress { .. } => {}
        }
    }

    fn note_rollout(&mut self, report: &Report) {
        if let Report::RolloutStarted {
            generation,
            canaries,
            max_surge,
            max_unavailable,
            ..
        } = report
        {
            self.turns.clear();
            self.rolling = Some(*generation);
            self.canaries = *canaries;
            self.is_rescaled = false;
            (self.surge, self.unavailable) = (*max_surge, *max_unavailable);
        }
    }

    fn restore_limits(&mut self) {
        self.surge = self.config.max_surge;
        self.unavailable = self.config.max_unavailable;
    }
}
