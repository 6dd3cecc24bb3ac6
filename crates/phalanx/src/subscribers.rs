//! Subscriptions to what happens: each has a queue of its own, bounded unless the product itself needs it.
//!
//! The channels of `tokio` bound the number of events; what a worker can make the primary keep has to be bounded in bytes.
//! Besides, a reader that falls behind is cut off here after what was kept, and a plea for patience replaces the one before it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::ids::WorkerId;
use tokio::sync::Notify;

use crate::event::Event;

/// Undelivered events a subscription holds at most; one that falls behind further ends.
const BACKLOG_EVENTS: usize = 65_536;
/// What they may take in memory, in bytes. A single event may exceed it.
const BACKLOG_BYTES: usize = 16 << 20;

/// A subscription: every event from the moment it was made, in order.
///
/// Events wait in memory until they are taken. A subscription that has fallen 65,536 events or 16 MiB behind is
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
    /// What they take in memory, about.
    bytes: usize,
    open: bool,
    interest: Interest,
}

/// What a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    /// Everything; whoever falls behind is cut off.
    All,
    /// What happens to one worker, until its exit; whoever falls behind is cut off.
    Worker(WorkerId),
    /// What the product itself acts upon or tells: everything but messages. It is never cut off.
    ///
    /// INVARIANT: what a worker can add to it without end (complaints, addresses) is limited where it arises, pleas for
    /// patience replace each other, and its readers take all there is whenever they run.
    Life,
}

impl Interest {
    fn covers(self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Worker(worker) => event.worker() == Some(worker),
            Self::Life => !matches!(event, Event::Message { .. }),
        }
    }

    fn is_bounded(self) -> bool {
        match self {
            Self::All | Self::Worker(_) => true,
            Self::Life => false,
        }
    }
}

impl QueueState {
    fn push(&mut self, event: &Event) {
        if !self.open || !self.interest.covers(event) {
            return;
        }
        if self.interest.is_bounded() && self.is_full_for(event) {
            let (events, bytes) = (self.events.len(), self.bytes);
            tracing::warn!(
                "a reader of events has fallen {events} events ({bytes} bytes) behind: it is cut off"
            );
            self.open = false;
            return;
        }
        if !self.interest.is_bounded() && self.renews(event) {
            return;
        }
        self.bytes += weight(event);
        self.events.push_back(event.clone());
        if matches!(
            (self.interest, event),
            (Interest::Worker(_), Event::Exit { .. })
        ) {
            self.open = false;
        }
    }

    /// A worker that asks for patience again before it was heard is heard once, with what it said last.
    fn renews(&mut self, event: &Event) -> bool {
        let Event::Extends { worker, .. } = event else {
            return false;
        };
        let is_same =
            |one: &&mut Event| matches!(one, Event::Extends { worker: by, .. } if by == worker);
        match self
            .events
            .iter_mut()
            .rev()
            .take(RENEWED_AMONG)
            .find(is_same)
        {
            Some(before) => {
                *before = event.clone();
                true
            }
            None => false,
        }
    }

    fn is_full_for(&self, event: &Event) -> bool {
        let count = self.events.len();
        count >= BACKLOG_EVENTS || (count > 0 && self.bytes + weight(event) > BACKLOG_BYTES)
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(weight(&event));
        if self.events.is_empty() && self.events.capacity() > KEPT_EVENTS {
            self.events = VecDeque::new();
        }
        Some(event)
    }
}

/// So far back a plea for patience is looked for that a new one replaces.
const RENEWED_AMONG: usize = 16;

/// Room that an empty queue keeps.
const KEPT_EVENTS: usize = 1024;

/// What an event takes in memory, about.
fn weight(event: &Event) -> usize {
    let texts = if let Event::Message { message, .. } = event {
        message.as_json().len()
    } else if let Event::Error { message, .. } = event {
        message.len()
    } else {
        0
    };
    size_of::<Event>() + texts
}

impl Events {
    /// A subscription to which nothing will come.
    pub(crate) fn ended() -> Self {
        let mut nobody = Subscribers::default();
        nobody.subscribe()
    }

    /// The next event; nothing once the cluster is gone (or this subscription fell too far behind).
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let arrived = self.queue.arrived.notified();
            {
                let mut state = self.queue.lock();
                if let Some(event) = state.pop() {
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
        self.queue.lock().pop()
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
    /// A new subscription to everything.
    pub(crate) fn subscribe(&mut self) -> Events {
        self.add(Interest::All)
    }

    /// A new subscription to what happens to one worker.
    pub(crate) fn subscribe_to(&mut self, worker: WorkerId) -> Events {
        self.add(Interest::Worker(worker))
    }

    /// A new subscription of the product itself.
    pub(crate) fn subscribe_to_life(&mut self) -> Events {
        self.add(Interest::Life)
    }

    /// Does anybody want to see what this worker says?
    pub(crate) fn want_messages(&self, worker: WorkerId) -> bool {
        let wants = |queue: &Arc<Queue>| {
            let state = queue.lock();
            state.open
                && match state.interest {
                    Interest::All => true,
                    Interest::Worker(one) => one == worker,
                    Interest::Life => false,
                }
        };
        self.queues.iter().any(wants)
    }

    fn add(&mut self, interest: Interest) -> Events {
        let queue = Arc::new(Queue {
            state: Mutex::new(QueueState {
                events: VecDeque::new(),
                bytes: 0,
                open: true,
                interest,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    const WORKER: WorkerId = WorkerId(1);

    fn message(bytes: usize) -> Event {
        Event::Message {
            worker: WORKER,
            message: Message::new(format!("\"{}\"", "x".repeat(bytes)).into()),
        }
    }

    fn count(events: &mut Events) -> usize {
        std::iter::from_fn(|| events.try_next()).count()
    }

    #[test]
    fn who_falls_behind_is_cut_off_by_count_or_by_bytes_and_nobody_else() {
        for (event, most) in [(Event::Setup, BACKLOG_EVENTS), (message(1 << 20), 15)] {
            let mut subscribers = Subscribers::default();
            let (mut slow, mut life) = (subscribers.subscribe(), subscribers.subscribe_to_life());
            let mut quick = subscribers.subscribe();
            let rounds = most + 100;
            for _ in 0..rounds {
                subscribers.emit(&event);
                assert!(quick.try_next().is_some());
            }
            subscribers.emit(&Event::Online { worker: WORKER });
            assert_eq!(count(&mut slow), most);
            assert_eq!(count(&mut quick), 1);
            let seen = if matches!(event, Event::Setup) {
                rounds
            } else {
                0
            };
            assert_eq!(count(&mut life), seen + 1);
        }
    }

    #[test]
    fn pleas_for_patience_do_not_pile_up_and_the_last_counts() {
        let mut subscribers = Subscribers::default();
        let mut life = subscribers.subscribe_to_life();
        let plea = |worker, seconds| Event::Extends {
            worker: WorkerId(worker),
            by: std::time::Duration::from_secs(seconds),
        };
        for seconds in 0..100_000 {
            subscribers.emit(&plea(1, seconds));
            subscribers.emit(&plea(2, seconds));
        }
        let seen: Vec<_> = std::iter::from_fn(|| life.try_next()).collect();
        assert_eq!(seen.len(), 2);
        for event in seen {
            assert!(matches!(event, Event::Extends { by, .. } if by.as_secs() == 99_999));
        }
    }

    #[test]
    fn a_message_as_large_as_the_bound_is_taken_by_whoever_is_not_behind() {
        let mut subscribers = Subscribers::default();
        let mut events = subscribers.subscribe();
        for _ in 0..3 {
            subscribers.emit(&message(BACKLOG_BYTES));
            assert!(events.try_next().is_some());
        }
        assert!(subscribers.want_messages(WORKER));
        drop(events);
        subscribers.emit(&Event::Setup);
        assert!(!subscribers.want_messages(WORKER));
    }
}
