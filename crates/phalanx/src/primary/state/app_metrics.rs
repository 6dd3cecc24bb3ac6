//! Metrics of the applications themselves: workers are asked for them, and what they answer goes to whoever merges it.
//!
//! INVARIANT: a worker has at most one answer on its way, and one more when it leaves; what it sends besides is dropped. The text is
//! passed on as it came: nothing of it is parsed under the hub's lock.

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::wire::outgoing;
use tokio::sync::mpsc;

use super::Hub;
use crate::primary::sockets::outgoing::Outgoing;

/// How an answer begins that was asked for here; prom-client writes its fields in this order.
const ANSWER: &str = r#"{"type":"prom-client:getMetricsRes","requestId":"phalanx:"#;
/// What follows in the one that nobody asked for: the worker leaves.
const LAST: &str = "last\"";

/// An answer of a worker.
#[derive(Clone, Debug)]
pub(crate) struct AppAnswer {
    pub(crate) worker: WorkerId,
    pub(crate) position: Position,
    /// prom-client's message, as JSON.
    pub(crate) text: Arc<str>,
}

/// Who was asked, and where the answers go.
#[derive(Debug, Default)]
pub(in crate::primary) struct AppMetrics {
    answers: Option<mpsc::UnboundedSender<AppAnswer>>,
    asked: BTreeSet<WorkerId>,
    told_last: BTreeSet<WorkerId>,
}

impl Hub {
    /// From now on workers are to tell once more when they leave, and answers go here.
    pub(in crate::primary) fn want_app_metrics(
        &mut self,
        answers: mpsc::UnboundedSender<AppAnswer>,
    ) {
        self.app_metrics.answers = Some(answers);
        let online = self.workers.iter().filter(|(_, state)| state.online);
        let online: Vec<WorkerId> = online.map(|(&worker, _)| worker).collect();
        for worker in online {
            self.tell_app_metrics_wanted(worker);
        }
    }

    /// Prepares a worker for the question.
    pub(in crate::primary) fn tell_app_metrics_wanted(&mut self, worker: WorkerId) {
        if self.app_metrics.answers.is_some() {
            self.queue_app_metrics(worker, None);
        }
    }

    fn queue_app_metrics(&mut self, worker: WorkerId, number: Option<u64>) -> bool {
        let channel = self.channel_mut(worker);
        let Some(channel) = channel.filter(|channel| channel.has_room_for_answers()) else {
            return false;
        };
        let seq = channel.next_seq();
        channel.queue(Outgoing {
            bytes: outgoing::app_metrics(number, seq),
            handle: None,
        });
        true
    }

    /// Asks all workers that have a channel. Returns those that owe an answer now, the former debtors too.
    pub(in crate::primary) fn ask_app_metrics(&mut self, number: u64) -> BTreeSet<WorkerId> {
        let online = self.workers.iter().filter(|(_, state)| state.online);
        let online: Vec<WorkerId> = online.map(|(&worker, _)| worker).collect();
        for worker in online {
            if !self.app_metrics.asked.contains(&worker)
                && self.queue_app_metrics(worker, Some(number))
            {
                self.app_metrics.asked.insert(worker);
            }
        }
        self.app_metrics.asked.clone()
    }

    /// Takes a message that is an answer. Any other is given back.
    pub(in crate::primary) fn take_app_metrics(
        &mut self,
        worker: WorkerId,
        text: Arc<str>,
    ) -> Option<Arc<str>> {
        let all = &mut self.app_metrics;
        let (Some(answers), Some(rest)) = (&all.answers, text.strip_prefix(ANSWER)) else {
            return Some(text);
        };
        let was_due = if rest.starts_with(LAST) {
            all.told_last.insert(worker)
        } else {
            all.asked.remove(&worker)
        };
        if let Some(state) = self.workers.get(&worker).filter(|_| was_due) {
            let position = state.cell.position();
            // Nobody merges them when the app has ended.
            drop(answers.send(AppAnswer {
                worker,
                position,
                text,
            }));
        }
        None
    }

    /// The worker is gone: it owes nothing any more.
    pub(in crate::primary) fn forget_app_metrics(&mut self, worker: WorkerId) {
        self.app_metrics.asked.remove(&worker);
        self.app_metrics.told_last.remove(&worker);
    }
}
