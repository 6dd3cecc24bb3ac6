//! The server side of the control plane: routes, and who may use them.
//!
//! A request from another user than the primary's own, or root, is not even read.

mod answer;
mod body;
mod questions;
mod verbs;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use self::answer::Refusal;
pub use self::questions::Compare;
use crate::api::{self, ErrorKind};
use crate::app::App;
use crate::logs::Logs;

/// The longest request body; what a message to workers may have.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Connections at the same time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// How long the head of a request may take, and how long a connection may wait for its next request.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// What is kept of a connection's bytes, in each direction; also the longest head.
const BUFFER_BYTES: usize = 32 << 10;
/// How long to leave off accepting when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    let mut listener = OwnersOnly {
        uid: phalanx_sys::identity::effective_uid(),
        listener,
    };
    let routes = routes(app, extras);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Its receivers tell connections that the end has come; when all are dropped, the last one is gone.
    let (ending, ended) = watch::channel(false);
    let mut end = pin!(end);
    loop {
        // INVARIANT: nobody closes the semaphore. Whoever finds no place waits in the kernel's queue.
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut end => break,
            (place, stream) = accept => {
                let connection = converse(stream, routes.clone(), ended.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
        }
    }
    drop((listener, ended));
    ending.send_replace(true);
    ending.closed().await;
    Ok(())
}

/// Answers the requests of one connection. One that does not finish its request's head in time is closed.
async fn converse(stream: UnixStream, routes: Router, mut ended: watch::Receiver<bool>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(BUFFER_BYTES);
    let service = TowerToHyperService::new(routes);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // An error of it means the end too.
    let end = async { drop(ended.wait_for(|ended| *ended).await) };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the control socket ended");
    }
}

fn routes<A: App>(app: A, extras: Extras) -> Router {
    let Extras { compare, logs } = extras;
    Router::new()
        .route(api::STATUS, get(questions::status::<A>))
        .route(api::WORKERS, get(questions::workers::<A>))
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

/// Accepts connections of the primary's own user and of root, and closes all others.
struct OwnersOnly {
    uid: u32,
    listener: UnixListener,
}

impl OwnersOnly {
    async fn accept(&mut self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_owner(&stream, self.uid) => return stream,
                Ok((stream, _)) => drop(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    sleep_until(Instant::now() + ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn is_owner(stream: &UnixStream, uid: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == uid || peer.uid() == 0 => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                "refused another user's connection to the control socket"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "cannot tell whose connection to the control socket it is");
            false
        }
    }
}
