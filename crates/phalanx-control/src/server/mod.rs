//! The server side of the control plane: routes, and who may use them.
//!
//! A request from another user than the primary's own, or root, is not even read.

mod answer;
mod body;
mod entrance;
mod questions;
mod verbs;

use std::fmt;
use std::future::Future;
use std::io;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::net::UnixListener;

#[cfg(feature = "admin")]
pub(crate) use self::answer::Refusal;
#[cfg(not(feature = "admin"))]
use self::answer::Refusal;
use self::entrance::OwnersOnly;
pub(crate) use self::entrance::{ACCEPT_PAUSE, Bounds, Entrance, serve_at};
pub use self::questions::Compare;
use crate::api::{self, ErrorKind};
use crate::app::App;
use crate::logs::Logs;

/// The longest request body; what a message to workers may have.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What some apps have besides.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Extras {
    /// The app was started from a configuration file.
    pub compare: Option<Compare>,
    /// The workers' output passes through the primary.
    pub logs: Option<Logs>,
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras")
            .field("logs", &self.logs)
            .finish_non_exhaustive()
    }
}

/// Serves until `end`, and then until the last answer is given and the last stream has ended.
///
/// # Errors
///
/// Fails if the listener does.
pub async fn serve<A: App>(
    listener: UnixListener,
    app: A,
    extras: Extras,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let entrance = OwnersOnly::new(listener, routes(app, extras));
    serve_at(entrance, end).await
}

pub(crate) fn routes<A: App>(app: A, extras: Extras) -> Router {
    let Extras { compare, logs } = extras;
    Router::new()
        .route(api::STATUS, get(questions::status::<A>))
        .route(api::WORKERS, get(questions::workers::<A>))
        .route(api::METRICS, get(crate::metrics_port::metrics::<A>))
        .route(api::METRICS_JSON, get(questions::snapshot::<A>))
        .route(
            api::DIFF,
            get(async move || questions::differences(compare).await),
        )
        .route(api::EVENTS, get(questions::events::<A>))
        .route(
            api::LOGS,
            get(async move |query| questions::logs(logs, query)),
        )
        .route(api::RELOAD, post(verbs::reload::<A>))
        .route(api::ROLLBACK, post(verbs::rollback::<A>))
        .route(api::SCALE, post(verbs::scale::<A>))
        .route(api::RECYCLE, post(verbs::recycle::<A>))
        .route(api::REBALANCE, post(verbs::rebalance::<A>))
        .route(api::POLICY, post(verbs::change_policy::<A>))
        .route(api::STOP, post(verbs::stop::<A>))
        .route(api::MESSAGES, post(verbs::send_message::<A>))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(app)
}

async fn no_such_path() -> Refusal {
    Refusal::new(ErrorKind::NoSuchPath, "there is no such path")
}

async fn no_such_method() -> Refusal {
    Refusal::new(ErrorKind::NoSuchMethod, "this path has another method")
}
