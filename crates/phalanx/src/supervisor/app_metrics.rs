//! The metrics of the application itself: workers are asked when somebody reads them, and what they answer is merged.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use phalanx_control::api::AppMetricsFigures;
use phalanx_core::app_metrics::{AppMetrics, Told};
use phalanx_core::exposition::Family;
use phalanx_core::ids::WorkerId;
use tokio::sync::{mpsc, watch};

use crate::primary::{AppAnswer, Cluster, Worker, clock};

/// How long a reader waits for workers; for who is later, the last answer stands.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What workers have told of the application's own metrics.
#[derive(Debug, Default)]
pub(super) struct AppBook {
    state: Mutex<State>,
    /// Counts the answers.
    answers: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    is_wanted: bool,
    number: u64,
    merged: AppMetrics,
    /// Those that were waited for and did not answer: they are asked, and not waited for. A Rust worker is one of them.
    mute: BTreeSet<WorkerId>,
    /// Those that have answered what they were asked last.
    answered: BTreeSet<WorkerId>,
}

impl AppBook {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers are told that they will be asked, and their answers are taken from now on.
    pub(super) fn want(self: &Arc<Self>, cluster: &Cluster) {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_wanted, true) {
            return;
        }
        drop(state);
        let (sender, answers) = mpsc::unbounded_channel();
        tokio::spawn(take(
            answers,
            Arc::downgrade(self),
            Arc::downgrade(&cluster.shared),
        ));
        cluster.want_app_metrics(sender);
    }

    /// Asks all workers, and gives what they and those before them have told.
    pub(super) async fn gather(
        self: &Arc<Self>,
        cluster: &Cluster,
        now: Duration,
    ) -> (Vec<Family>, AppMetricsFigures) {
        self.want(cluster);
        let mut answers = self.answers.subscribe();
        let number = {
            let mut state = self.state();
            state.number += 1;
            state.number
        };
        self.state().answered.clear();
        let owing = cluster.ask_app_metrics(number);
        let has_all = |_: &u64| {
            let state = self.state();
            let mut owing = owing.difference(&state.mute);
            owing.all(|worker| state.answered.contains(worker))
        };
        drop(clock::within(ANSWER_LIMIT, answers.wait_for(has_all)).await);
        let live: BTreeSet<WorkerId> = cluster.workers().iter().map(Worker::id).collect();
        let book = Arc::clone(self);
        // Many workers with many metrics take their time.
        let merged = tokio::task::spawn_blocking(move || {
            let mut state = book.state();
            let late: BTreeSet<WorkerId> = owing.difference(&state.answered).copied().collect();
            let count = late.difference(&state.mute).count();
            state.mute = late.intersection(&live).copied().collect();
            state.merged.live(&live, now);
            let figures = AppMetricsFigures {
                workers: u32::try_from(state.merged.workers()).unwrap_or(u32::MAX),
                late: u32::try_from(count).unwrap_or(u32::MAX),
            };
            (state.merged.families(), figures)
        });
        merged.await.unwrap_or_default()
    }
}

async fn take(
    mut answers: mpsc::UnboundedReceiver<AppAnswer>,
    book: Weak<AppBook>,
    cluster: Weak<crate::primary::Shared>,
) {
    while let Some(AppAnswer {
        worker,
        position,
        text,
    }) = answers.recv().await
    {
        let told = tokio::task::spawn_blocking(move || Told::parse(&text)).await;
        let (Some(book), Some(cluster)) = (book.upgrade(), cluster.upgrade()) else {
            return;
        };
        let lives = Cluster { shared: cluster }.worker(worker).is_some();
        let mut state = book.state();
        match told {
            Ok(Ok(told)) => state.merged.tell(worker, position, told, lives),
            Ok(Err(reason)) => {
                tracing::debug!(worker = worker.0, reason, "its metrics cannot be read");
            }
            Err(_) => {}
        }
        state.answered.insert(worker);
        state.mute.remove(&worker);
        drop(state);
        book.answers.send_modify(|count| *count += 1);
    }
}
