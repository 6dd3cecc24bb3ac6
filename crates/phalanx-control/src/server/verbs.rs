//! Requests that change something. A command goes on when its client goes away.

use std::future::Future;

use axum::extract::State;
use futures_util::future::join_all;
use phalanx_core::command::CommandError;
use phalanx_core::fleet;
use phalanx_core::ids::WorkerId;
use phalanx_core::policy::{PolicyName, Weights};

use super::answer::{Answer, Refusal};
use super::body::Wanted;
use crate::api::{
    ChangePolicy, Done, ErrorKind, PolicyChanged, Rebalance, Rebalanced, Recycle, Reload, Scale,
    SendMessage, Sent, Stop,
};
use crate::app::{App, NotSent};
use crate::failure::with_causes;
use crate::values;

type Outcome<T> = Result<Answer<T>, Refusal>;

pub(super) async fn reload<A: App>(
    State(app): State<A>,
    Wanted(wanted): Wanted<Reload>,
) -> Outcome<Done> {
    let plan = wanted.plan().map_err(Refusal::invalid)?;
    done(async move { app.reload(plan).await }).await
}

pub(super) async fn rollback<A: App>(State(app): State<A>) -> Outcome<Done> {
    done(async move { app.rollback().await }).await
}

pub(super) async fn scale<A: App>(
    State(app): State<A>,
    Wanted(wanted): Wanted<Scale>,
) -> Outcome<Done> {
    let to = values::scale_to(&wanted.workers.into_text());
    let to = to.map_err(|reason| Refusal::invalid(format!("workers: {reason}")))?;
    done(async move { app.scale(to).await }).await
}

pub(super) async fn recycle<A: App>(
    State(app): State<A>,
    Wanted(wanted): Wanted<Recycle>,
) -> Outcome<Done> {
    done(async move {
        // All are asked at once; they are replaced one after the other.
        let asked = wanted.targets().into_iter();
        let all = join_all(asked.map(|target| app.recycle(target))).await;
        let mut workers = 0;
        for done in all {
            if let fleet::Done::Recycled { workers: some } = done? {
                workers += some;
            }
        }
        Ok(fleet::Done::Recycled { workers })
    })
    .await
}

pub(super) async fn rebalance<A: App>(
    State(app): State<A>,
    Wanted(Rebalance { streams }): Wanted<Rebalance>,
) -> Outcome<Rebalanced> {
    let done = app.rebalance(streams).await;
    done.map(Answer)
        .map_err(|reason| Refusal::new(ErrorKind::NotRebalanced, reason))
}

pub(super) async fn stop<A: App>(
    State(app): State<A>,
    Wanted(Stop { fast }): Wanted<Stop>,
) -> Outcome<Done> {
    done(async move { app.stop(fast).await.map(|()| fleet::Done::Stopped) }).await
}

pub(super) async fn change_policy<A: App>(
    State(app): State<A>,
    Wanted(wanted): Wanted<ChangePolicy>,
) -> Outcome<PolicyChanged> {
    let invalid = |field: &str, error: &dyn std::error::Error| {
        Refusal::invalid(format!("{field}: {}", with_causes(error)))
    };
    let policy: PolicyName = wanted
        .policy
        .parse()
        .map_err(|unknown| invalid("policy", &unknown))?;
    let weights: Option<Weights> = wanted
        .weights
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|wrong| invalid("weights", &wrong))?;
    app.change_policy(policy, weights.unwrap_or_default())
        .map_err(|reason| Refusal::new(ErrorKind::PolicyNotHere, reason))?;
    Ok(Answer(PolicyChanged {
        policy: policy.into(),
    }))
}

pub(super) async fn send_message<A: App>(
    State(app): State<A>,
    Wanted(wanted): Wanted<SendMessage>,
) -> Outcome<Sent> {
    match app.send(&wanted.message, wanted.to.map(WorkerId)) {
        Ok(workers) => Ok(Answer(Sent { workers })),
        Err(NotSent::NoSuchWorker(reason)) => Err(Refusal::new(ErrorKind::NoSuchWorker, reason)),
        Err(NotSent::Failed(reason)) => Err(Refusal::new(ErrorKind::NotSent, reason)),
    }
}

/// Runs a command in a task of its own: when the client goes away, hyper drops its request, not this.
async fn done(
    command: impl Future<Output = Result<fleet::Done, CommandError>> + Send + 'static,
) -> Outcome<Done> {
    match tokio::spawn(command).await {
        Ok(result) => Ok(Answer(result?.into())),
        // The primary ended first, or has a bug.
        Err(_) => Err(Refusal::new(
            ErrorKind::Lost,
            "the primary lost the command",
        )),
    }
}
