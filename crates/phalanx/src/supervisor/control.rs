//! The handle for commands and questions.

use std::fmt;
use std::sync::Arc;

use phalanx_core::command::{CommandError, CommandErrorKind};
use phalanx_core::fleet::{
    Command, ConfigError, Done, Failure, FleetConfig, FleetView, RecycleTarget, Refusal,
    ReloadPlan, ScaleTo,
};
use phalanx_core::ids::WorkerId;
use phalanx_core::policy::{PolicyName, Weights};
use tokio::sync::{mpsc, oneshot};

use super::revision::{InForce, Revising};
use super::runner::{Ask, Shared};
use crate::error::{MessageError, Result};
use crate::primary::{Cluster, RebalanceError, Rebalanced, Streams, clock};
use crate::subscribers::Events;

/// Commands and questions for a running app. Cheap to clone, works from any thread and runtime.
#[derive(Clone)]
pub struct Control {
    cluster: Cluster,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Ask>,
    revising: Option<Arc<Revising>>,
    fleet: Whose,
}

/// Who decides over the workers.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// The fleet of this process.
    Own,
    /// Node's own primary.
    Nodes,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn new(
        cluster: Cluster,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedSender<Ask>,
        revising: Option<Arc<Revising>>,
    ) -> Self {
        Self {
            cluster,
            shared,
            commands,
            revising,
            fleet: Whose::Own,
        }
    }

    pub(super) fn with_guests(self) -> Self {
        Self {
            fleet: Whose::Nodes,
            ..self
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn view(&self) -> FleetView {
        match self.fleet {
            Whose::Own => self.shared.view(),
            Whose::Nodes => self.cluster.guests_view(),
        }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Changes every limit, from now on.
    pub(super) fn configure(&self, config: FleetConfig) -> Result<(), ConfigError> {
        self.shared.configure(config)
    }

    pub(super) async fn replace_all(&self, plan: ReloadPlan) -> Result<Done, CommandError> {
        self.ask(Command::Reload(plan)).await
    }

    async fn ask(&self, command: Command) -> Result<Done, CommandError> {
        let (answer, answered) = oneshot::channel();
        let ended = || {
            let reason = "the app has ended".to_owned();
            CommandError::new(CommandErrorKind::Ended, reason, Vec::new())
        };
        self.commands
            .send(Ask { command, answer })
            .map_err(|_| ended())?;
        let result = answered.await.map_err(|_| ended())?;
        result.map_err(|refusal| self.explain(&refusal))
    }

    fn explain(&self, refusal: &Refusal) -> CommandError {
        let (kind, failure): (_, Option<&Failure>) = match refusal {
            Refusal::RolloutFailed { failure, .. } => {
                (CommandErrorKind::RolloutFailed, Some(failure))
            }
            Refusal::ScaleFailed { failure, .. } => (CommandErrorKind::ScaleFailed, Some(failure)),
            Refusal::RecycleFailed { failure } => (CommandErrorKind::RecycleFailed, Some(failure)),
            Refusal::NoEarlierRelease => (CommandErrorKind::NoEarlierRelease, None),
            Refusal::Superseded => (CommandErrorKind::Superseded, None),
            Refusal::Stopping => (CommandErrorKind::Stopping, None),
            Refusal::Invalid { .. } => (CommandErrorKind::Invalid, None),
        };
        let worker = failure.and_then(|failure| failure.worker);
        let last_lines = worker.map(|worker| self.last_lines(worker));
        CommandError::new(kind, refusal.to_string(), last_lines.unwrap_or_default())
    }

    /// The app's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Replaces all workers, one after the other. Returns when all are replaced. Where the description of the app can
    /// change ([`SupervisorOptions::revise`](super::SupervisorOptions::revise)), it is read anew first.
    ///
    /// # Errors
    /// When the new release failed, or the description cannot be read; then the old one serves.
    pub async fn reload(&self) -> Result<Done, CommandError> {
        self.reload_by(ReloadPlan::default()).await
    }

    /// Replaces all workers as the plan says: some first and watched, with limits of its own. Returns
    /// when all are replaced.
    ///
    /// # Errors
    /// When the new release failed, before the others or after them; then the old one serves. A plan
    /// in which nothing could move is refused, and so is one of workers that listen only where the primary has no part in
    /// it, unless it allows that.
    pub async fn reload_by(&self, plan: ReloadPlan) -> Result<Done, CommandError> {
        let unseen = self.cluster.unseen_count();
        if unseen > 0 && !plan.allow_unseen {
            let reason = format!(
                "not reloaded: {unseen} of the workers listen only where phalanx has no part in it (through io_uring, on a Unix \
                 path that the command does not name, or in another network), so their connections would be lost: name \
                 the path with --share unix:PATH, give them their listeners with --bind, or accept that with --allow-unseen"
            );
            return Err(CommandError::new(
                CommandErrorKind::RolloutFailed,
                reason,
                Vec::new(),
            ));
        }
        match &self.revising {
            Some(revising) => self.reload_revised(revising, plan).await,
            None => self.replace_all(plan).await,
        }
    }

    /// Reads the description of the app, and replaces all workers by it.
    async fn reload_revised(
        &self,
        revising: &Revising,
        plan: ReloadPlan,
    ) -> Result<Done, CommandError> {
        let invalid =
            |reason| CommandError::new(CommandErrorKind::DescriptionWrong, reason, Vec::new());
        let revision = revising.read().await.map_err(invalid)?;
        let wanted = InForce::of(&revision);
        self.take_over(&wanted)
            .map_err(|error| invalid(error.to_string()))?;
        let done = self.replace_all(plan).await;
        let generation = match &done {
            Ok(Done::Reloaded { generation }) => *generation,
            Ok(_) => return done,
            Err(refused) => {
                // A newer command has said what is to stand.
                if refused.kind != CommandErrorKind::Superseded {
                    let before = revising.in_force().clone();
                    // It held until now, so it can be held again.
                    drop(self.take_over(&before));
                }
                return done;
            }
        };
        let before = std::mem::replace(&mut *revising.in_force(), wanted.clone());
        (revision.taken)(generation);
        if before.policy != wanted.policy {
            let (policy, weights) = wanted.policy;
            if let Err(error) = self.change_policy(policy, weights) {
                tracing::error!(%error, "the policy stays as it is");
            }
        }
        if before.fleet.workers != wanted.fleet.workers {
            self.scale(ScaleTo::Exactly(wanted.fleet.workers)).await?;
        }
        done
    }

    fn take_over(&self, wanted: &InForce) -> Result<(), ConfigError> {
        self.configure(wanted.fleet.clone())?;
        self.cluster.set_drain_limits(wanted.limits);
        self.cluster.setup(wanted.settings.clone());
        Ok(())
    }

    /// Returns to the release before the present one, as carefully as a reload; a reload under way is
    /// undone instead.
    ///
    /// # Errors
    /// When there is no earlier release, or it fails too; then the present one serves on.
    pub async fn rollback(&self) -> Result<Done, CommandError> {
        self.ask(Command::Rollback).await
    }

    /// Changes the number of workers. Returns when it is so.
    ///
    /// # Errors
    /// When the added workers do not start, or the number makes no sense.
    pub async fn scale(&self, to: ScaleTo) -> Result<Done, CommandError> {
        self.ask(Command::Scale(to)).await
    }

    /// Replaces workers by new ones of their release, one after the other. Returns when the old ones are gone.
    ///
    /// # Errors
    /// When no such worker serves, or a successor does not start; then the old worker serves on.
    pub async fn recycle(&self, target: RecycleTarget) -> Result<Done, CommandError> {
        self.ask(Command::Recycle(target)).await
    }

    /// Has connections that are kept open spread evenly, as [`Cluster::rebalance`].
    ///
    /// # Errors
    /// As there.
    pub async fn rebalance(&self, streams: Streams) -> Result<Rebalanced, RebalanceError> {
        self.cluster.rebalance(streams).await
    }

    /// Stops the app: workers finish what they have. Returns when all are gone.
    ///
    /// # Errors
    /// None in the ordinary course; [`CommandErrorKind::Ended`] when it had ended before.
    pub async fn stop(&self) -> Result<(), CommandError> {
        self.announce_stop().await;
        match self.ask(Command::Stop).await {
            // It was stopped fast meanwhile.
            Err(error) if error.kind == CommandErrorKind::Ended && self.is_leaving() => Ok(()),
            stopped => stopped.map(|_| ()),
        }
    }

    /// The app is not ready from now on. Waits so long that those who ask may have seen it, from the first time on.
    async fn announce_stop(&self) {
        let delay = self.shared.stop_delay;
        if delay.is_zero() {
            return;
        }
        let since = self.shared.leaving_since.get_or_init(|| {
            tracing::info!("not ready from now on, and stops in {delay:.1?}");
            clock::now()
        });
        tokio::select! {
            () = clock::sleep_until(*since + delay) => {}
            () = self.commands.closed() => {}
        }
    }

    /// A stop has been asked for, and waits.
    pub(super) fn is_leaving(&self) -> bool {
        self.shared.leaving_since.get().is_some()
    }

    /// Stops the app without waiting for requests in service.
    ///
    /// # Errors
    /// As [`Control::stop`].
    pub async fn stop_fast(&self) -> Result<(), CommandError> {
        self.ask(Command::StopFast).await.map(|_| ())
    }

    /// Changes the policy of all listeners, from the next connection on.
    ///
    /// # Errors
    /// As [`Cluster::change_policy`].
    pub fn change_policy(&self, policy: PolicyName, weights: Weights) -> Result<()> {
        self.cluster.change_policy(policy, weights)
    }

    /// Sends a message to every worker, or to one. Returns how many it went to.
    ///
    /// # Errors
    /// [`MessageError::NoSuchWorker`], or as [`Worker::send`](crate::Worker::send).
    pub fn send(
        &self,
        message: &serde_json::Value,
        to: Option<WorkerId>,
    ) -> Result<usize, MessageError> {
        match to {
            None => self.cluster.broadcast(message),
            Some(id) => {
                let worker = self
                    .cluster
                    .worker(id)
                    .ok_or(MessageError::NoSuchWorker(id))?;
                worker.send(message).map(|()| 1)
            }
        }
    }

    /// Every event from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.cluster.events()
    }

    /// Every event from now on but what workers say ([`Event::Message`](crate::Event::Message)). It is never cut
    /// off, however far its reader falls behind: for what must not miss anything, a log or a service manager,
    /// and takes what comes at once.
    #[must_use]
    pub fn life_events(&self) -> Events {
        self.cluster.life_events()
    }

    /// The last lines that a worker wrote (its output has to be piped); also of one that is gone, for a while.
    #[must_use]
    pub fn last_lines(&self, worker: WorkerId) -> Vec<String> {
        self.shared.last_lines(worker)
    }

    /// Is this the process of one of the app's workers?
    #[must_use]
    pub fn is_worker_pid(&self, pid: u32) -> bool {
        self.cluster
            .workers()
            .iter()
            .any(|worker| worker.pid() == pid)
    }
}
