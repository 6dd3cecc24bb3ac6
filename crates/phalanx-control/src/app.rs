//! What the control plane needs of an app.

use std::future::Future;

use futures_util::Stream;
use phalanx_core::command::CommandError;
use phalanx_core::exposition::Format;
use phalanx_core::fleet::{Done, RecycleTarget, ReloadPlan, ScaleTo};
use phalanx_core::ids::WorkerId;
use phalanx_core::policy::{PolicyName, Weights};
use serde_json::Value;

use crate::api::{Probe, Rebalanced, Snapshot, Status};

/// An app whose control socket is served. Commands return when they are carried out.
pub trait App: Clone + Send + Sync + 'static {
    /// The app's state.
    fn status(&self) -> Status;

    /// The app's figures (docs/metrics.md).
    fn snapshot(&self) -> impl Future<Output = Snapshot> + Send;

    /// The figures as text for Prometheus, the application's own metrics among them.
    fn metrics(&self, format: Format) -> impl Future<Output = String> + Send;

    /// Whether the app is so, in words.
    ///
    /// # Errors
    /// Why it is not.
    fn probe(&self, probe: Probe) -> Result<String, String>;

    /// Replaces all workers as the plan says.
    fn reload(&self, plan: ReloadPlan) -> impl Future<Output = Result<Done, CommandError>> + Send;

    /// Returns to the release before.
    fn rollback(&self) -> impl Future<Output = Result<Done, CommandError>> + Send;

    /// Changes the number of workers.
    fn scale(&self, to: ScaleTo) -> impl Future<Output = Result<Done, CommandError>> + Send;

    /// Replaces workers by others of their release.
    fn recycle(
        &self,
        target: RecycleTarget,
    ) -> impl Future<Output = Result<Done, CommandError>> + Send;

    /// Has connections that are kept open spread evenly, streams only if they are meant too: what that has brought.
    fn rebalance(&self, streams: bool) -> impl Future<Output = Result<Rebalanced, String>> + Send;

    /// Stops the app, without waiting for requests in service if `fast`.
    fn stop(&self, fast: bool) -> impl Future<Output = Result<(), CommandError>> + Send;

    /// Changes the policy of all listeners.
    ///
    /// # Errors
    /// Why it cannot change.
    fn change_policy(&self, policy: PolicyName, weights: Weights) -> Result<(), String>;

    /// Sends a message to every worker, or to one. Returns how many it went to.
    ///
    /// # Errors
    /// Why it was not sent.
    fn send(&self, message: &Value, to: Option<WorkerId>) -> Result<usize, NotSent>;

    /// Every event from now on, as the JSON object of docs/events.md in one line.
    fn events(&self) -> impl Stream<Item = String> + Send + 'static;
}

/// Why a message was not sent.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NotSent {
    /// The app has no such worker.
    NoSuchWorker(String),
    /// It cannot be sent now, or never will.
    Failed(String),
}
