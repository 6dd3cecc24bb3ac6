//! A reload as its events tell it.

use serde_json::Value;

/// How long the end of one is shown.
const SHOWN_MS: u64 = 15_000;

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Positions are being replaced.
    Replacing,
    /// Its canaries are watched: so long, of so long, in milliseconds.
    Watching(u64, u64),
    /// It failed, or was undone: the old workers come back.
    GoingBack,
    /// It is over since that time, well or not.
    Over { at: u64, is_well: bool },
}

/// How one side of a comparison does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) p99_us: Option<u64>,
}

/// A reload, or a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rollout {
    pub(crate) generation: u64,
    pub(crate) stage: Stage,
    pub(crate) done: u64,
    pub(crate) of: u64,
    /// The canaries, and the others.
    pub(crate) sides: Option<(Side, Side)>,
}

impl Rollout {
    /// What is going on after an event.
    pub(crate) fn after(before: Option<Self>, event: &Value, now: u64) -> Option<Self> {
        let number = |field: &str| event[field].as_u64().unwrap_or_default();
        let generation = number("generation");
        let begun = || Self {
            generation,
            stage: Stage::Replacing,
            done: 0,
            of: 0,
            sides: None,
        };
        let mut rollout = before.clone().unwrap_or_else(begun);
        match event["report"].as_str() {
            Some("rollout_started") => {
                rollout = begun();
                rollout.of = number("workers");
            }
            Some("canary_started") => rollout.stage = Stage::Watching(0, number("watch_ms")),
            Some("canary_progress") => {
                rollout.stage = Stage::Watching(number("elapsed_ms"), number("watch_ms"));
                rollout.sides = Some((Side::of(&event["canary"]), Side::of(&event["others"])));
            }
            Some("canary_passed") => {
                rollout.stage = Stage::Replacing;
                rollout.sides = Some((Side::of(&event["canary"]), Side::of(&event["others"])));
            }
            Some("rollout_progress") => {
                (rollout.done, rollout.of) = (number("done"), number("workers"));
                if matches!(rollout.stage, Stage::Over { .. }) {
                    rollout.stage = Stage::Replacing;
                }
            }
            Some("rollout_failed" | "rollout_cancelled") => rollout.stage = Stage::GoingBack,
            Some("rollout_finished") => rollout.end(now, true),
            Some("rolled_back" | "rollback_abandoned") => {
                rollout.generation = generation;
                rollout.end(now, false);
            }
            Some(_) | None => return before.filter(|one| one.is_shown(now)),
        }
        Some(rollout)
    }

    fn end(&mut self, at: u64, is_well: bool) {
        self.stage = Stage::Over { at, is_well };
        if is_well {
            self.done = self.of;
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over { .. })
    }

    /// Whether it is going on, or has ended a moment ago.
    pub(crate) fn is_shown(&self, now: u64) -> bool {
        match self.stage {
            Stage::Over { at, .. } => now.saturating_sub(at) < SHOWN_MS,
            Stage::Replacing | Stage::Watching(..) | Stage::GoingBack => true,
        }
    }
}

impl Side {
    fn of(summary: &Value) -> Self {
        Self {
            requests: summary["requests"].as_u64().unwrap_or_default(),
            errors: summary["server_errors"].as_u64().unwrap_or_default(),
            p99_us: summary["p99_us"].as_u64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn story(reports: &[Value]) -> Option<Rollout> {
        let step = |before, event| Rollout::after(before, event, 1_000);
        reports.iter().fold(None, step)
    }

    #[test]
    fn a_reload_with_canaries_is_followed_to_its_end() {
        let mut told = vec![
            json!({"report": "rollout_started", "generation": 2, "workers": 4, "canaries": 1}),
            json!({"report": "rollout_progress", "generation": 2, "done": 1, "workers": 4}),
            json!({"report": "canary_started", "generation": 2, "canaries": 1, "watch_ms": 60_000}),
            json!({"report": "canary_progress", "generation": 2, "elapsed_ms": 3_000, "watch_ms": 60_000,
                   "canary": {"requests": 10, "server_errors": 1, "p99_us": 700}, "others": {"requests": 30}}),
        ];
        let watched = story(&told).unwrap();
        assert_eq!(watched.stage, Stage::Watching(3_000, 60_000));
        let (canary, others) = watched.sides.unwrap();
        assert_eq!(
            (canary.errors, canary.p99_us, others.requests),
            (1, Some(700), 30)
        );
        told.push(json!({"report": "rollout_finished", "generation": 2}));
        let over = story(&told).unwrap();
        assert_eq!((over.done, over.of), (4, 4));
        assert!(over.is_shown(2_000) && !over.is_shown(60_000));
    }

    #[test]
    fn one_that_fails_goes_back() {
        let mut told = vec![
            json!({"report": "rollout_started", "generation": 3, "workers": 2}),
            json!({"report": "rollout_failed", "generation": 3, "base": 2}),
        ];
        assert_eq!(story(&told).unwrap().stage, Stage::GoingBack);
        told.push(json!({"report": "rolled_back", "generation": 2, "failed": 3}));
        let over = story(&told).unwrap();
        assert_eq!(over.generation, 2);
        assert_eq!(
            over.stage,
            Stage::Over {
                at: 1_000,
                is_well: false
            }
        );
    }
}
