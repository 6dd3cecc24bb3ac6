//! What happens in a cluster, as values: the events of Node's `cluster`, and what the supervisor decides.

use std::path::PathBuf;
use std::time::Duration;

use phalanx_core::dispatch::hang::{Evidence, Frozen};
use phalanx_core::dispatch::readiness::Lack;
use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};
use serde::{Serialize, Serializer};

use crate::address::Address;
use crate::message::Message;

/// Something that happened. Serialises as an object whose field `event` names the variant.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The settings were changed (`setup`).
    Setup,
    /// A worker process was started (`fork`).
    Fork {
        /// The worker.
        worker: WorkerId,
        /// Its position.
        position: Position,
        /// Its generation; always 1 in the low-level style.
        generation: Generation,
        /// Its process id.
        pid: u32,
    },
    /// The worker's runtime is up and its channel answers (`online`).
    Online {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker serves on an address (`listening`).
    Listening {
        /// The worker.
        worker: WorkerId,
        /// Where, with the actual port.
        address: Address,
    },
    /// The worker was seen to listen on a socket of its own, which it did not announce (`exclusive`).
    ListeningUnseen {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker, which has neither a channel nor a listener, is ready.
    Serves {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker of a supervised app is ready: it holds every listener that it owes.
    Ready {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker of a supervised app is not ready yet.
    Lacks {
        /// The worker.
        worker: WorkerId,
        /// What it is not ready for.
        lack: Lack,
    },
    /// The worker sent a message (`message`).
    Message {
        /// The worker.
        worker: WorkerId,
        /// What it sent.
        message: Message,
    },
    /// The worker leaves by its own wish (it called `disconnect` itself); its exit is to come.
    Leaving {
        /// The worker.
        worker: WorkerId,
    },
    /// Nothing is taken of what waits for the worker: it gets nothing new while others do better.
    Stuck {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker that was stuck takes connections again.
    Recovered {
        /// The worker.
        worker: WorkerId,
        /// How long it was stuck.
        #[serde(rename = "after_ms", serialize_with = "as_millis")]
        after: Duration,
    },
    /// The worker does not answer, for this reason; if it goes on like that it is replaced.
    Suspect {
        /// The worker.
        worker: WorkerId,
        /// What waits in vain.
        by: Evidence,
    },
    /// The worker does not answer because somebody holds it: it gets nothing new while others do better, and is not killed for it.
    Frozen {
        /// The worker.
        worker: WorkerId,
        /// Who.
        by: Frozen,
    },
    /// The worker hangs: its successor is started, and then it is killed.
    Hung {
        /// The worker.
        worker: WorkerId,
        /// What waits in vain.
        by: Evidence,
        /// For how long.
        #[serde(rename = "silent_ms", serialize_with = "as_millis")]
        silent: Duration,
        /// Nobody serves: it gives way before its time is over, and may finish what it does.
        early: bool,
        /// The function that it is in, where that is known.
        function: Option<String>,
        /// The file in which what is known of it was kept.
        evidence: Option<PathBuf>,
    },
    /// Most workers are silent and do not even run, so the machine is at fault, or something that all wait for: nobody is replaced.
    Spared {
        /// How many are silent.
        silent: u32,
        /// Of how many.
        of: u32,
    },
    /// The worker asked for patience (`EXTEND_TIMEOUT_USEC`).
    Extends {
        /// The worker.
        worker: WorkerId,
        /// How long from now.
        #[serde(rename = "by_ms", serialize_with = "as_millis")]
        by: Duration,
    },
    /// The worker's channel is closed (`disconnect`).
    Disconnect {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker's process is gone (`exit`). `code` or `signal` is set, never both; neither of a worker that
    /// another process has reaped and told nothing of.
    Exit {
        /// The worker.
        worker: WorkerId,
        /// Its exit code.
        code: Option<u8>,
        /// The number of the signal that ended it.
        signal: Option<u8>,
        /// It left because it was asked to, or by its own wish.
        exited_after_disconnect: bool,
    },
    /// Something went wrong with one worker's process or channel (`error`).
    Error {
        /// The worker.
        worker: WorkerId,
        /// What.
        message: String,
    },
    /// A decision of the supervisor: a transition, a respawn, progress of a reload.
    Fleet(phalanx_core::fleet::Report),
}

fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Event {
    /// Whom it is about; nothing for what concerns the cluster.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::Fork { worker, .. }
            | Self::Online { worker }
            | Self::Listening { worker, .. }
            | Self::ListeningUnseen { worker }
            | Self::Serves { worker }
            | Self::Ready { worker }
            | Self::Lacks { worker, .. }
            | Self::Message { worker, .. }
            | Self::Leaving { worker }
            | Self::Stuck { worker }
            | Self::Recovered { worker, .. }
            | Self::Suspect { worker, .. }
            | Self::Frozen { worker, .. }
            | Self::Hung { worker, .. }
            | Self::Extends { worker, .. }
            | Self::Disconnect { worker }
            | Self::Exit { worker, .. }
            | Self::Error { worker, .. } => Some(*worker),
            Self::Setup | Self::Spared { .. } | Self::Fleet(_) => None,
        }
    }

    /// The exit status of an `Exit` event's fields.
    pub(crate) fn exit(
        worker: WorkerId,
        status: ExitStatus,
        exited_after_disconnect: bool,
    ) -> Self {
        let (code, signal) = match status {
            ExitStatus::Code(code) => (Some(code), None),
            ExitStatus::Signal(signal) => (None, Some(signal)),
            ExitStatus::Unknown => (None, None),
        };
        Self::Exit {
            worker,
            code,
            signal,
            exited_after_disconnect,
        }
    }
}
