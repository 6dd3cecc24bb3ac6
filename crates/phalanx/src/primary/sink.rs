//! The one sink of what happens to workers. Who decides on it (the supervisor) hears the facts, in order and never cut
//! off; who only wants to know of it hears the public [`Event`] that is derived from the fact.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phalanx_core::dispatch::readiness::Lack;
use phalanx_core::fleet;
use phalanx_core::ids::{ExitStatus, WorkerId};
use tokio::sync::Notify;

use crate::event::Event;
use crate::subscribers::{Events, Subscribers};

/// Something that the supervisor decides on and that others may want to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Fact {
    /// Its program runs.
    Online { worker: WorkerId },
    /// It holds every listener that it owes.
    Ready { worker: WorkerId },
    /// It is not ready, for this reason.
    Lacks { worker: WorkerId, lack: Lack },
    /// It leaves by its own wish.
    Leaving { worker: WorkerId },
    /// It asked for patience, for so long from now.
    Extends { worker: WorkerId, by: Duration },
    /// Its channel is closed.
    Disconnected { worker: WorkerId },
    /// Its process is gone.
    Exited {
        worker: WorkerId,
        status: ExitStatus,
        /// It left as asked, or by its own wish.
        voluntary: bool,
    },
}

impl Fact {
    /// What the fleet decides on.
    fn for_fleet(&self) -> fleet::Event {
        match self {
            Self::Online { worker } => fleet::Event::Online { worker: *worker },
            Self::Ready { worker } => fleet::Event::Ready { worker: *worker },
            Self::Lacks { worker, lack } => fleet::Event::Lacks {
                worker: *worker,
                lack: lack.clone(),
            },
            Self::Leaving { worker } => fleet::Event::Leaving { worker: *worker },
            Self::Extends { worker, by } => fleet::Event::Extends {
                worker: *worker,
                by: *by,
            },
            Self::Disconnected { worker } => fleet::Event::Disconnected { worker: *worker },
            Self::Exited { worker, status, .. } => fleet::Event::Exited {
                worker: *worker,
                status: *status,
            },
        }
    }

    /// What everybody else is told.
    fn into_event(self) -> Event {
        match self {
            Self::Online { worker } => Event::Online { worker },
            Self::Ready { worker } => Event::Ready { worker },
            Self::Lacks { worker, lack } => Event::Lacks { worker, lack },
            Self::Leaving { worker } => Event::Leaving { worker },
            Self::Extends { worker, by } => Event::Extends { worker, by },
            Self::Disconnected { worker } => Event::Disconnect { worker },
            Self::Exited {
                worker,
                status,
                voluntary,
            } => Event::exit(worker, status, voluntary),
        }
    }
}

/// Everybody who is told.
#[derive(Debug, Default)]
pub(in crate::primary) struct Sink {
    subscribers: Subscribers,
    fleet: Option<Arc<Queue>>,
}

impl Sink {
    /// A fact: the supervisor decides on it, and it is told.
    pub(in crate::primary) fn happened(&mut self, fact: Fact) {
        self.report(fact.for_fleet());
        self.tell(&fact.into_event());
    }

    /// News on which nobody decides.
    pub(in crate::primary) fn tell(&mut self, event: &Event) {
        self.subscribers.emit(event);
    }

    /// What only the supervisor has to know.
    pub(in crate::primary) fn report(&self, event: fleet::Event) {
        if let Some(queue) = &self.fleet {
            queue.push(event);
        }
    }

    /// Where the supervisor hears the facts from now on.
    pub(in crate::primary) fn reports(&mut self) -> Reports {
        let queue = Arc::new(Queue::default());
        self.fleet = Some(Arc::clone(&queue));
        Reports { queue }
    }

    pub(in crate::primary) fn subscribe(&mut self) -> Events {
        self.subscribers.subscribe()
    }

    pub(in crate::primary) fn subscribe_to(&mut self, worker: WorkerId) -> Events {
        self.subscribers.subscribe_to(worker)
    }

    pub(in crate::primary) fn subscribe_to_life(&mut self) -> Events {
        self.subscribers.subscribe_to_life()
    }

    /// Does anybody want to see what this worker says?
    pub(in crate::primary) fn want_messages(&self, worker: WorkerId) -> bool {
        self.subscribers.want_messages(worker)
    }
}

/// The supervisor's end of the sink.
///
/// INVARIANT: what a worker can add without end is limited where it arises, pleas for patience replace each other, and
/// the supervisor takes all there is whenever it runs: so this queue needs no bound of its own.
#[derive(Debug)]
pub(crate) struct Reports {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    events: Mutex<VecDeque<fleet::Event>>,
    arrived: Notify,
}

/// So far back a plea for patience is looked for that a new one replaces.
const RENEWED_AMONG: usize = 16;

impl Queue {
    fn events(&self) -> MutexGuard<'_, VecDeque<fleet::Event>> {
        // One push or pop at a time: none can be half made.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: fleet::Event) {
        let mut events = self.events();
        match renewed(&mut events, &event) {
            Some(before) => *before = event,
            None => events.push_back(event),
        }
        drop(events);
        self.arrived.notify_one();
    }
}

/// The plea that this one replaces.
fn renewed<'a>(
    events: &'a mut VecDeque<fleet::Event>,
    event: &fleet::Event,
) -> Option<&'a mut fleet::Event> {
    let fleet::Event::Extends { worker, .. } = event else {
        return None;
    };
    let is_same = |one: &&mut fleet::Event| matches!(one, fleet::Event::Extends { worker: by, .. } if by == worker);
    events.iter_mut().rev().take(RENEWED_AMONG).find(is_same)
}

impl Reports {
    /// The next fact. Waits for ever when the cluster is gone: who decides ends before it.
    pub(crate) async fn next(&mut self) -> fleet::Event {
        loop {
            let arrived = self.queue.arrived.notified();
            if let Some(event) = self.queue.events().pop_front() {
                return event;
            }
            arrived.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerId = WorkerId(7);

    fn heard(reports: &Reports) -> Vec<fleet::Event> {
        reports.queue.events().drain(..).collect()
    }

    #[test]
    fn the_supervisor_hears_of_an_exit_what_was_seen_and_not_what_the_public_event_says() {
        for status in [
            ExitStatus::Code(0),
            ExitStatus::Code(3),
            ExitStatus::Signal(9),
            ExitStatus::Unknown,
        ] {
            let mut sink = Sink::default();
            let (reports, mut public) = (sink.reports(), sink.subscribe());
            sink.happened(Fact::Exited {
                worker: WORKER,
                status,
                voluntary: false,
            });
            let worker = WORKER;
            assert_eq!(heard(&reports), [fleet::Event::Exited { worker, status }]);
            let Some(Event::Exit { code, signal, .. }) = public.try_next() else {
                panic!("an exit is told");
            };
            match status {
                ExitStatus::Code(seen) => assert_eq!((code, signal), (Some(seen), None)),
                ExitStatus::Signal(seen) => assert_eq!((code, signal), (None, Some(seen))),
                ExitStatus::Unknown => assert_eq!((code, signal), (None, None)),
            }
        }
    }

    #[test]
    fn a_public_event_is_never_taken_for_a_fact() {
        let mut sink = Sink::default();
        let (reports, mut public) = (sink.reports(), sink.subscribe());
        // Neither a code nor a signal: nobody may read an end into it that nobody has seen.
        sink.tell(&Event::Exit {
            worker: WORKER,
            code: None,
            signal: None,
            exited_after_disconnect: false,
        });
        assert!(heard(&reports).is_empty());
        assert!(public.try_next().is_some());
    }

    #[test]
    fn facts_come_in_order_and_pleas_for_patience_replace_each_other() {
        let mut sink = Sink::default();
        let reports = sink.reports();
        sink.happened(Fact::Online { worker: WORKER });
        for secs in 0..100_000 {
            let by = Duration::from_secs(secs);
            sink.happened(Fact::Extends { worker: WORKER, by });
        }
        sink.report(fleet::Event::Recovered { worker: WORKER });
        let (worker, by) = (WORKER, Duration::from_secs(99_999));
        let expected = [
            fleet::Event::Online { worker },
            fleet::Event::Extends { worker, by },
            fleet::Event::Recovered { worker },
        ];
        assert_eq!(heard(&reports), expected);
    }
}
