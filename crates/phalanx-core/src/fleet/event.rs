//! What happens to a fleet: what its workers did, what its users want, and that time has passed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::config::{FleetConfig, Limits};
use super::elastic::Resize;
use super::wear::Wear;
use crate::dispatch::readiness::Lack;
use crate::health::Health;
use crate::ids::{ExitStatus, Position, WorkerId};

/// Something that happened. A late, doubled or lost event is no error: it changes nothing, or a
/// time limit covers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the vocabulary of the machine")]
pub enum Event {
    /// The primary is set up: let there be workers.
    Start,
    /// A worker that was to be spawned could not be.
    SpawnFailed {
        /// The worker of the [`Action::Spawn`](super::Action::Spawn).
        worker: WorkerId,
        /// What the system said, for people.
        reason: String,
    },
    /// The worker's program runs.
    Online {
        /// Which.
        worker: WorkerId,
    },
    /// The worker gets connections on what it has opened so far; it may open more before it is ready.
    Serves {
        /// Which.
        worker: WorkerId,
    },
    /// The worker provably serves.
    Ready {
        /// Which.
        worker: WorkerId,
    },
    /// The worker is not ready, and for this reason.
    Lacks {
        /// Which.
        worker: WorkerId,
        /// What it lacks.
        lack: Lack,
    },
    /// The worker said that it leaves by its own wish (Node's `exitedAfterDisconnect`).
    Leaving {
        /// Which.
        worker: WorkerId,
    },
    /// The worker asked for patience with what it is doing.
    Extends {
        /// Which.
        worker: WorkerId,
        /// How long from now.
        by: Duration,
    },
    /// The worker's channel reached its end.
    Disconnected {
        /// Which.
        worker: WorkerId,
    },
    /// The worker's process is gone and reaped.
    Exited {
        /// Which.
        worker: WorkerId,
        /// How it ended.
        status: ExitStatus,
    },
    /// A worker's figures since [`Action::BeginWatch`](super::Action::BeginWatch).
    Health {
        /// Which.
        worker: WorkerId,
        /// What it has answered since then.
        health: Health,
    },
    /// A worker does not answer its channel any more.
    Hung {
        /// Which.
        worker: WorkerId,
    },
    /// A worker serves, but is to be replaced by a new one of its release when its turn comes.
    Worn {
        /// Which.
        worker: WorkerId,
        /// Why.
        wear: Wear,
    },
    /// A worker that hung ([`Wear::Hung`]) shows life again.
    Recovered {
        /// Which.
        worker: WorkerId,
    },
    /// The load asks for another size.
    Resize(Resize),
    /// Somebody wants something.
    Command {
        /// Names the command in its one [`Action::Reply`](super::Action::Reply).
        id: CommandId,
        /// What is wanted.
        command: Command,
    },
    /// The time of [`Fleet::next_deadline`](super::Fleet::next_deadline) has come.
    Tick,
}

/// Names a command until it is answered. The caller chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

/// What can be wanted of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the vocabulary of the machine")]
pub enum Command {
    /// Replace every worker by one of a new generation.
    Reload(ReloadPlan),
    /// Return to the generation before the present one; during a reload, to the present one.
    Rollback,
    /// Change the number of workers.
    Scale(ScaleTo),
    /// Replace workers by new ones of their release, one after the other.
    Recycle(RecycleTarget),
    /// Let all workers finish their work, then end.
    Stop,
    /// End now.
    StopFast,
}

/// The wanted number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "N, +N and -N")]
pub enum ScaleTo {
    /// This many.
    Exactly(u32),
    /// This many more than the target is now.
    Up(u32),
    /// This many fewer than the target is now.
    Down(u32),
}

/// Which workers are to be replaced by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the vocabulary of the machine")]
pub enum RecycleTarget {
    /// All that serve.
    All,
    /// The one that serves at this position.
    Position(Position),
    /// This one.
    Worker(WorkerId),
}

/// How a reload is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the vocabulary of the machine")]
pub struct ReloadPlan {
    /// Replace some workers first, and watch them before the others follow.
    pub canary: Option<Canary>,
    /// In place of [`FleetConfig::max_surge`](super::FleetConfig::max_surge).
    pub max_surge: Option<Amount>,
    /// In place of [`FleetConfig::max_unavailable`](super::FleetConfig::max_unavailable).
    pub max_unavailable: Option<Amount>,
    /// Besides [`FleetConfig::allow_fewer_listeners`](super::FleetConfig::allow_fewer_listeners).
    pub allow_fewer_listeners: bool,
    /// Also where workers listen only where the primary has no part in it, so that connections are lost. The fleet, which
    /// knows no listeners, does not ask: whoever hands it the plan does.
    pub allow_unseen: bool,
}

impl ReloadPlan {
    /// The limits of this reload: its own before those of the configuration.
    pub(super) fn limits(&self, config: &FleetConfig) -> Limits {
        let limits = Limits::of(config);
        Limits {
            extra: self.max_surge.unwrap_or(limits.extra),
            missing: self.max_unavailable.unwrap_or(limits.missing),
            fewer_listeners: self.allow_fewer_listeners || limits.fewer_listeners,
            ..limits
        }
    }
}

/// Who goes first in a reload, and for how long alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the vocabulary of the machine")]
pub struct Canary {
    /// How many; a share rounds up, and it is at least one.
    pub workers: Amount,
    /// How long they are watched once all of them are ready.
    pub watch: Duration,
}
