//! Who is stuck: the one definition, for every dispatch and for canaries.
//!
//! A worker is **stuck** when something has waited for it for [`Limits::silence`] and it has taken
//! nothing meanwhile. What waits is a queue (dispatch in the kernel), offers without an answer
//! (handoff), or a question to its event loop (canaries). One that has nothing to take is never stuck.
//!
//! What follows is the same everywhere:
//!
//! * A stuck worker gets nothing new, and what waits for it moves to the others, *if* there are others that
//!   are not stuck; where all are, nobody is punished: see [`set_aside`].
//! * It is tried with one connection at a time, after longer and longer times, up to [`Limits::trial_max`].
//!   What moves away is not taken, so it does not shorten them.
//! * When it takes something it is healthy again, at that moment. So is one that shows [`Life`]; but if that proves
//!   wrong it has to take something.
//!
//! Times are [`Moment`]s of the primary's run-time: while the primary stands still nobody becomes stuck.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// When a worker is stuck, and when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// So long it may take nothing although something waits.
    pub silence: Duration,
    /// The first trial that is made without a sign of life comes after this time; each further one
    /// after twice the time.
    pub trial_first: Duration,
    /// The longest time between two trials.
    pub trial_max: Duration,
}

impl Limits {
    /// Those for connections.
    pub const CONNECTIONS: Self = Self {
        silence: Duration::from_secs(1),
        trial_first: Duration::from_secs(1),
        trial_max: Duration::from_secs(30),
    };

    /// Those for questions to a canary's event loop.
    pub const CANARY: Self = Self {
        silence: Duration::from_secs(5),
        ..Self::CONNECTIONS
    };
}

/// What a look at a worker sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How much it has taken so far. May lag behind, and may count what is on its way: only a new
    /// maximum is a sign of life.
    pub taken: u64,
    /// How much waits for it.
    pub waiting: u32,
}

/// What is known of a stuck worker besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever looks knows one of these")]
pub enum Life {
    /// Nobody can tell: only a trial shows it.
    Unknown,
    /// Nothing has come from it since it was found stuck. A trial would be in vain.
    Silent,
    /// It has said something since.
    Shown,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever looks does something about each"
)]
pub enum Finding {
    /// It takes nothing although something waits.
    Stuck,
    /// It shall be tried with one connection.
    Try,
    /// It did not take the connection that it was tried with.
    Failed,
    /// It takes connections again.
    Recovered {
        /// How long it was stuck.
        after: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// Something waits since then, perhaps, and nothing was taken.
    Healthy { waits_since: Option<Moment> },
    /// It gets nothing until then.
    Stuck { since: Moment, try_at: Moment },
    /// It may have one connection, which waits since then, perhaps.
    Tried {
        since: Moment,
        waits_since: Option<Moment>,
    },
}

/// What is known of one worker, or of one of its queues.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Liveness {
    limits: Limits,
    stage: Stage,
    /// The most that it was seen to have taken.
    taken: u64,
    /// How often it was tried in vain since it took something last.
    failures: u32,
}

impl Liveness {
    /// Nothing is known, so it is healthy.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            stage: Stage::Healthy { waits_since: None },
            taken: 0,
            failures: 0,
        }
    }

    /// Since when it is stuck; nothing while it is healthy.
    #[must_use]
    pub fn stuck_since(&self) -> Option<Moment> {
        match self.stage {
            Stage::Healthy { .. } => None,
            Stage::Stuck { since, .. } | Stage::Tried { since, .. } => Some(since),
        }
    }

    /// Is it stuck? One that is being tried still is.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck_since().is_some()
    }

    /// May it have one connection, although it is stuck?
    #[must_use]
    pub fn is_tried(&self) -> bool {
        matches!(self.stage, Stage::Tried { .. })
    }

    /// Takes down what is seen of it.
    pub fn look(&mut self, progress: Progress, life: Life, now: Moment) -> Option<Finding> {
        let took = progress.taken > self.taken;
        self.taken = self.taken.max(progress.taken);
        let waits = progress.waiting > 0;
        match &mut self.stage {
            Stage::Healthy { waits_since } => {
                if took {
                    self.failures = 0;
                }
                if !has_waited(waits_since, waits && !took, now, self.limits.silence) {
                    return None;
                }
                // The first trial needs no patience: it may have been busy for a moment only.
                let pause = match self.failures.checked_sub(1) {
                    Some(failures) => self.limits.pause_after(failures),
                    None => Duration::ZERO,
                };
                self.stage = Stage::Stuck {
                    since: now,
                    try_at: now + pause,
                };
                Some(Finding::Stuck)
            }
            Stage::Stuck { since, .. } | Stage::Tried { since, .. } if took => {
                let after = now.since(*since);
                self.failures = 0;
                self.stage = Stage::Healthy { waits_since: None };
                Some(Finding::Recovered { after })
            }
            Stage::Stuck { since, .. } if life == Life::Shown && self.failures == 0 => {
                // Its word is enough, once: one that says much and takes nothing is tried in future.
                let after = now.since(*since);
                self.failures = 1;
                self.stage = Stage::Healthy { waits_since: None };
                Some(Finding::Recovered { after })
            }
            Stage::Stuck { since, try_at } => {
                if now < *try_at || life == Life::Silent {
                    return None;
                }
                self.stage = Stage::Tried {
                    since: *since,
                    waits_since: None,
                };
                Some(Finding::Try)
            }
            Stage::Tried { since, waits_since } => {
                if !has_waited(waits_since, waits, now, self.limits.silence) {
                    return None;
                }
                let pause = self.limits.pause_after(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.stage = Stage::Stuck {
                    since: *since,
                    try_at: now + pause,
                };
                Some(Finding::Failed)
            }
        }
    }

    /// Forgets how much was taken: what was counted has moved away, and is not taken.
    pub fn rebase(&mut self, taken: u64) {
        self.taken = taken;
    }
}

impl Limits {
    fn pause_after(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.trial_first.saturating_mul(doubled).min(self.trial_max)
    }
}

/// Has something waited for so long?
fn has_waited(since: &mut Option<Moment>, waits: bool, now: Moment, limit: Duration) -> bool {
    if !waits {
        *since = None;
        return false;
    }
    now.since(*since.get_or_insert(now)) >= limit
}

/// Who of these gets nothing: those that are stuck, if there is anybody who is not.
pub fn set_aside<T: Ord>(members: impl IntoIterator<Item = (T, bool)>) -> BTreeSet<T> {
    let mut stuck = BTreeSet::new();
    let mut any_healthy = false;
    for (member, is_stuck) in members {
        if is_stuck {
            stuck.insert(member);
        } else {
            any_healthy = true;
        }
    }
    if any_healthy { stuck } else { BTreeSet::new() }
}

#[cfg(test)]
mod tests;
