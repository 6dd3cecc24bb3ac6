//! What happens in a cluster, as values: the events of Node's `cluster`, and what the supervisor decides.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::sync::Notify;

use crate::address::Address;

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
    /// The worker sent a message (`message`).
    Message {
        /// The worker.
        worker: WorkerId,
        /// What it sent.
        message: Value,
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
    /// The worker's process is gone (`exit`). `code` or `signal` is set, never both.
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
            | Self::Message { worker, .. }
            | Self::Leaving { worker }
            | Self::Stuck { worker }
            | Self::Recovered { worker, .. }
            | Self::Extends { worker, .. }
            | Self::Disconnect { worker }
            | Self::Exit { worker, .. }
            | Self::Error { worker, .. } => Some(*worker),
            Self::Setup | Self::Fleet(_) => None,
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
        };
        Self::Exit {
            worker,
            code,
            signal,
            exited_after_disconnect,
        }
    }
}

/// Undelivered events a subscription holds at most; one that falls behind further ends.
const BACKLOG_EVENTS: usize = 65_536;

/// A subscription: every event from the moment it was made, in order.
///
/// Events wait in memory until they are taken. A subscription that has fallen 65,536 events behind is
/// cut off: [`Events::next`] then gives what was kept and ends. Dropping it unsubscribes. One of a
/// single worker ends after that worker's exit.
pub struct Events {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<QueueState>,
    arrived: Notify,
}

struct QueueState {
    events: VecDeque<Event>,
    open: bool,
    bounded: bool,
    /// The only worker whose events are wanted.
    only: Option<WorkerId>,
}

impl QueueState {
    fn push(&mut self, event: &Event) {
        if self.only.is_some() && self.only != event.worker() {
            return;
        }
        if self.open && self.bounded && self.events.len() >= BACKLOG_EVENTS {
            self.open = false;
        }
        if self.open {
            self.events.push_back(event.clone());
        }
        if self.only.is_some() && matches!(event, Event::Exit { .. }) {
            self.open = false;
        }
    }
}

impl Events {
    /// A subscription to which nothing will come.
    pub(crate) fn ended() -> Self {
        let mut nobody = Subscribers::default();
        nobody.subscribe(true)
    }

    /// The next event; nothing once the cluster is gone (or this subscription fell too far behind).
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let arrived = self.queue.arrived.notified();
            {
                let mut state = self.queue.lock();
                if let Some(event) = state.events.pop_front() {
                    return Some(event);
                }
                if !state.open {
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// The next event, if one is already there.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.lock().events.pop_front()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("waiting", &self.queue.lock().events.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.open = false;
        state.events.clear();
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending side: all subscriptions.
#[derive(Default)]
pub(crate) struct Subscribers {
    queues: Vec<Arc<Queue>>,
}

impl Subscribers {
    /// A new subscription. Only the supervisor's own is unbounded: it must not miss an exit.
    pub(crate) fn subscribe(&mut self, bounded: bool) -> Events {
        self.add(bounded, None)
    }

    /// A new subscription to what happens to one worker.
    pub(crate) fn subscribe_to(&mut self, worker: WorkerId) -> Events {
        self.add(true, Some(worker))
    }

    fn add(&mut self, bounded: bool, only: Option<WorkerId>) -> Events {
        let queue = Arc::new(Queue {
            state: Mutex::new(QueueState {
                events: VecDeque::new(),
                open: true,
                bounded,
                only,
            }),
            arrived: Notify::new(),
        });
        self.queues.push(Arc::clone(&queue));
        Events { queue }
    }

    pub(crate) fn emit(&mut self, event: &Event) {
        self.queues.retain(|queue| {
            let open = {
                let mut state = queue.lock();
                state.push(event);
                state.open
            };
            queue.arrived.notify_one();
            open
        });
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.lock().open = false;
            queue.arrived.notify_one();
        }
    }
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers")
            .field("count", &self.queues.len())
            .finish()
    }
}
