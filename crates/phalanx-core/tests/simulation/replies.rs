//! What a command may be answered, and when.

use phalanx_core::fleet::{CommandId, Done, Refusal};
use phalanx_core::ids::{Generation, Position};

use crate::judge::{Judge, Verdict, rule};

impl Judge {
    pub(crate) fn judge_reply(
        &self,
        command: CommandId,
        result: &Result<Done, Refusal>,
    ) -> Verdict {
        let model = &self.model;
        rule!(
            model.waiting.contains_key(&command),
            "{command:?} was not waiting for {result:?}"
        );
        match result {
            Ok(Done::Reloaded { generation } | Done::RolledBack { generation }) => {
                rule!(
                    !model.condemned.contains(generation),
                    "generation {generation} serves although its canaries were bad"
                );
                // A way back does not wait for a position that was vacant before.
                let is_new = matches!(result, Ok(Done::Reloaded { .. }));
                return self.judge_reloaded(*generation, is_new);
            }
            Ok(Done::Scaled { workers }) => {
                rule!(*workers == model.target, "scaled to another target");
                let is_true = model.serving().all(|known| model.is_wanted(known.position));
                rule!(is_true, "scaled while surplus workers live");
            }
            Ok(Done::Stopped) => {
                rule!(model.workers.is_empty(), "stopped while workers live");
            }
            Err(Refusal::RolloutFailed {
                generation,
                rolled_back,
                ..
            }) => {
                let is_left = model
                    .workers
                    .values()
                    .any(|known| known.generation == *generation);
                rule!(
                    !(is_left && *rolled_back),
                    "rolled back while workers of generation {generation} live"
                );
            }
            Err(Refusal::Stopping) => {
                let ends =
                    model.is_stopping || model.workers.values().all(|known| known.is_leaving);
                rule!(ends, "refused as stopping by a fleet that is not");
            }
            Err(Refusal::NoEarlierRelease) => {
                rule!(model.rolling.is_none(), "a rollout could have been undone");
            }
            Ok(Done::Recycled { .. }) => return self.judge_recycled(command),
            Err(
                Refusal::RecycleFailed { .. }
                | Refusal::ScaleFailed { .. }
                | Refusal::Superseded
                | Refusal::Invalid { .. },
            ) => {}
        }
        Ok(())
    }

    fn judge_reloaded(&self, generation: Generation, is_new: bool) -> Verdict {
        let model = &self.model;
        let is_true = model
            .workers
            .values()
            .all(|known| known.generation == generation);
        rule!(is_true, "reload answered while older workers live");
        let unserved = (0..model.target)
            .map(Position)
            .find(|position| !model.served.contains(&(*position, generation)));
        rule!(
            !is_new || unserved.is_none(),
            "reload answered before {unserved:?} was ready"
        );
        Ok(())
    }
}
