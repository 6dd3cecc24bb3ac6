//! Control of an app whose workers are those of Node's own primary: questions are answered here, as of any app, and
//! commands become orders to the primary, which carries them out by Node's own `fork` and `disconnect`.

use std::sync::Arc;
use std::time::Duration;

use phalanx_core::fleet::{
    Command, Done, Fleet, FleetConfig, FleetPhase, FleetView, Refusal, ScaleTo, WorkerState,
    WorkerView,
};
use phalanx_core::ids::Generation;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::control::Control;
use super::metrics;
use super::runner::{Ask, Shared};
use super::vitals;
use crate::error::Result;
use crate::primary::Cluster;

/// The one there is: what workers run is the primary's affair.
const GENERATION: Generation = Generation(1);

/// Commands that have come, to be carried out by Node's primary.
#[derive(Debug)]
pub(crate) struct Orders(mpsc::UnboundedReceiver<Ask>);

/// A command for Node's primary.
#[derive(Debug)]
pub(crate) struct Order {
    /// What it is, in words of the engine's control socket.
    pub(crate) word: Value,
    done: Done,
    answer: oneshot::Sender<Result<Done, Refusal>>,
}

impl Order {
    /// It was carried out, or was not, for that reason.
    pub(crate) fn end(self, error: Option<String>) {
        let result = match error {
            None => Ok(self.done),
            Some(reason) => Err(Refusal::Invalid { reason }),
        };
        // Whoever asked may have gone.
        drop(self.answer.send(result));
    }
}

impl Orders {
    /// The next one. What Node's primary cannot do is refused at once.
    pub(crate) async fn next(&mut self, cluster: &Cluster) -> Option<Order> {
        loop {
            let Ask { command, answer } = self.0.recv().await?;
            let (word, done) = match command {
                Command::Reload(plan) => (
                    json!({"act": "reload", "surge": plan.max_surge.map(|surge| surge.to_string())}),
                    Done::Reloaded {
                        generation: GENERATION,
                    },
                ),
                Command::Rollback => {
                    drop(answer.send(Err(Refusal::NoEarlierRelease)));
                    continue;
                }
                Command::Scale(to) => {
                    let now = cluster.guests_view().target;
                    let workers = match to {
                        ScaleTo::Exactly(count) => count,
                        ScaleTo::Up(count) => now.saturating_add(count),
                        ScaleTo::Down(count) => now.saturating_sub(count),
                    };
                    (
                        json!({"act": "scale", "workers": workers}),
                        Done::Scaled { workers },
                    )
                }
                Command::Recycle(_) => {
                    let reason =
                        "workers of Node's own primary cannot be recycled: use reload".to_owned();
                    drop(answer.send(Err(Refusal::Invalid { reason })));
                    continue;
                }
                Command::Stop => (json!({"act": "stop", "fast": false}), Done::Stopped),
                Command::StopFast => (json!({"act": "stop", "fast": true}), Done::Stopped),
            };
            return Some(Order { word, done, answer });
        }
    }
}

impl Control {
    /// Of an app of this name.
    ///
    /// # Errors
    /// None in the ordinary course.
    pub(crate) fn of_guests(cluster: &Cluster, name: &str) -> Result<(Self, Orders)> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let fleet = Fleet::new(FleetConfig::default())?;
        let measured = vitals::Measured::start(cluster);
        let shared = Arc::new(Shared::new(name.to_owned(), fleet, (None, None), measured));
        let samples = metrics::sample(
            Arc::downgrade(&shared.meters),
            Arc::downgrade(&cluster.shared),
        );
        tokio::spawn(samples);
        let control = Self::new(cluster.clone(), shared, commands, None).with_guests();
        Ok((control, Orders(inbox)))
    }
}

impl Cluster {
    /// The workers of Node's primary, as a fleet's are shown.
    pub(crate) fn guests_view(&self) -> FleetView {
        let workers: Vec<_> = self
            .workers()
            .into_iter()
            .map(|worker| WorkerView {
                worker: worker.id(),
                position: worker.position(),
                generation: GENERATION,
                state: state_of(&worker),
                since: Duration::ZERO,
                spawned_at: Duration::ZERO,
                voluntary: false,
                restarts: 0,
                recycled: None,
            })
            .collect();
        let stays = |worker: &&WorkerView| {
            !matches!(worker.state, WorkerState::Draining | WorkerState::Gone)
        };
        FleetView {
            phase: FleetPhase::Running,
            target: u32::try_from(workers.iter().filter(stays).count()).unwrap_or(u32::MAX),
            generation: GENERATION,
            previous: None,
            spares: 0,
            rollout: None,
            settled: true,
            workers,
            vacancies: Vec::new(),
        }
    }
}

fn state_of(worker: &crate::primary::Worker) -> WorkerState {
    if worker.exited_after_disconnect() == Some(true) {
        WorkerState::Draining
    } else if !worker.is_connected() {
        WorkerState::Gone
    } else if worker.listens() {
        WorkerState::Ready
    } else {
        WorkerState::Online
    }
}
