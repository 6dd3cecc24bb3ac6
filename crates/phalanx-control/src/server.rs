//! The server side of the control plane: routes, and who may use them.
//!
//! A command goes on when its client goes away. A request from another user than the primary's own, or
//! root, is not even read.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use futures_util::future::join_all;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use phalanx_core::command::{CommandError, CommandErrorKind};
use phalanx_core::fleet::Done;
use phalanx_core::ids::WorkerId;
use phalanx_core::policy::{PolicyName, Weights};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::bodies::{Body, Message, Policy, Recycle, Reload, Scale, Stop, parse, parse_if_any};
use crate::api;
use crate::app::{App, NotSent};
use crate::failure::with_causes;
use crate::values;

/// The longest request body; what a message to workers may have.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How often a stream without events says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Connections at the same time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Streams of events at the same time: each may have a backlog.
const STREAMS_MAX: usize = 32;
/// How long the head of a request may take, and how long a connection may wait for its next request.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// What is kept of a connection's bytes, in each direction; also the longest head.
const BUFFER_BYTES: usize = 32 << 10;
/// How long to leave off accepting when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Says what a reload would change; or what is wrong with the file, in words. May block.
pub type Differences = Arc<dyn Fn() -> Result<Value, String> + Send + Sync>;

/// Serves until `end`, and then until the last answer is given and the last stream has ended.
///
/// # Errors
///
/// Fails if the listener does.
pub async fn serve<A: App>(
    listener: UnixListener,
    app: A,
    differences: Option<Differences>,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let mut listener = OwnersOnly {
        uid: phalanx_sys::identity::effective_uid(),
        listener,
    };
    let routes = routes(app, differences);
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

fn routes<A: App>(app: A, differences: Option<Differences>) -> Router {
    Router::new()
        .route(api::STATUS, get(status::<A>))
        .route(api::WORKERS, get(workers::<A>))
        .route(api::RELOAD, post(reload::<A>))
        .route(api::ROLLBACK, post(rollback::<A>))
        .route(api::SCALE, post(scale::<A>))
        .route(api::RECYCLE, post(recycle::<A>))
        .route(api::POLICY, post(policy::<A>))
        .route(api::DIFF, get(async move || diff(differences).await))
        .route(api::STOP, post(stop::<A>))
        .route(api::MESSAGES, post(messages::<A>))
        .route(api::EVENTS, get(events::<A>))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(app)
}

async fn status<A: App>(State(app): State<A>) -> Response {
    axum::Json(app.status()).into_response()
}

async fn workers<A: App>(State(app): State<A>) -> Response {
    axum::Json(app.status()["workers"].take()).into_response()
}

async fn reload<A: App>(State(app): State<A>, body: Body) -> Response {
    let wanted = parse_if_any(body).and_then(|wanted: Reload| {
        let invalid = |reason: String| error(StatusCode::BAD_REQUEST, "invalid", &reason);
        wanted.plan().map_err(|reason| Box::new(invalid(reason)))
    });
    match wanted {
        Ok(plan) => answer(to_the_end(async move { app.reload(plan).await }).await),
        Err(refusal) => *refusal,
    }
}

async fn rollback<A: App>(State(app): State<A>) -> Response {
    answer(to_the_end(async move { app.rollback().await }).await)
}

async fn scale<A: App>(State(app): State<A>, body: Body) -> Response {
    let wanted: Scale = match parse(body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    match values::scale_to(&wanted.workers.into_text()) {
        Ok(to) => answer(to_the_end(async move { app.scale(to).await }).await),
        Err(reason) => error(
            StatusCode::BAD_REQUEST,
            "invalid",
            &format!("workers: {reason}"),
        ),
    }
}

async fn recycle<A: App>(State(app): State<A>, body: Body) -> Response {
    let wanted: Recycle = match parse_if_any(body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let done = to_the_end(async move {
        // All are asked at once; they are replaced one after the other.
        let asked = wanted.targets().into_iter();
        let all = join_all(asked.map(|target| app.recycle(target))).await;
        let mut workers = 0;
        for done in all {
            if let Done::Recycled { workers: some } = done? {
                workers += some;
            }
        }
        Ok(Done::Recycled { workers })
    });
    answer(done.await)
}

async fn policy<A: App>(State(app): State<A>, body: Body) -> Response {
    let wanted: Policy = match parse(body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let invalid = |field: &str, reason: String| {
        let reason = format!("{field}: {reason}");
        error(StatusCode::BAD_REQUEST, "invalid", &reason)
    };
    let policy: PolicyName = match wanted.policy.parse() {
        Ok(policy) => policy,
        Err(unknown) => return invalid("policy", with_causes(&unknown)),
    };
    let weights: Weights = match wanted.weights.as_deref().map(str::parse).transpose() {
        Ok(weights) => weights.unwrap_or_default(),
        Err(wrong) => return invalid("weights", with_causes(&wrong)),
    };
    match app.change_policy(policy, weights) {
        Ok(()) => json_response(StatusCode::OK, &json!({"policy": policy})),
        Err(reason) => error(StatusCode::CONFLICT, "policy_not_here", &reason),
    }
}

async fn diff(differences: Option<Differences>) -> Response {
    let Some(differences) = differences else {
        let reason = "the app was not started from a configuration file";
        return error(StatusCode::NOT_FOUND, "no_file", reason);
    };
    match tokio::task::spawn_blocking(move || differences()).await {
        Ok(Ok(changes)) => json_response(StatusCode::OK, &changes),
        Ok(Err(reason)) => error(StatusCode::CONFLICT, "description_wrong", &reason),
        Err(_) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "lost",
            "the file could not be read",
        ),
    }
}

async fn stop<A: App>(State(app): State<A>, body: Body) -> Response {
    let Stop { fast } = match parse_if_any(body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let stopped = to_the_end(async move { app.stop(fast).await });
    answer(stopped.await.map(|()| Done::Stopped))
}

async fn messages<A: App>(State(app): State<A>, body: Body) -> Response {
    let Message { message, to } = match parse(body) {
        Ok(message) => message,
        Err(refusal) => return *refusal,
    };
    match app.send(&message, to.map(WorkerId)) {
        Ok(workers) => json_response(StatusCode::OK, &json!({"workers": workers})),
        Err(NotSent::NoSuchWorker(reason)) => {
            error(StatusCode::NOT_FOUND, "no_such_worker", &reason)
        }
        Err(NotSent::Failed(reason)) => error(StatusCode::SERVICE_UNAVAILABLE, "not_sent", &reason),
    }
}

async fn events<A: App>(State(app): State<A>) -> Response {
    static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);
    let Ok(place) = STREAMS.try_acquire() else {
        let reason = format!("{STREAMS_MAX} streams of events are open, the most there may be");
        return error(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", &reason);
    };
    let lines = app.events().map(move |line| {
        let _until_the_stream_ends = &place;
        Ok::<_, Infallible>(sse::Event::default().data(line))
    });
    Sse::new(lines)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

async fn no_such_path() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "no_such_path",
        "there is no such path",
    )
}

async fn no_such_method() -> Response {
    let reason = "this path has another method";
    error(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", reason)
}

/// Runs a command in a task of its own: when the client goes away, hyper drops its request, not this.
async fn to_the_end<T: Send + 'static>(
    command: impl Future<Output = Result<T, CommandError>> + Send + 'static,
) -> Result<T, Ended> {
    match tokio::spawn(command).await {
        Ok(result) => result.map_err(Ended::Refused),
        Err(_) => Err(Ended::Lost),
    }
}

/// A command that was not carried out.
enum Ended {
    Refused(CommandError),
    /// The primary ended first, or has a bug.
    Lost,
}

fn answer(result: Result<Done, Ended>) -> Response {
    match result {
        Ok(done) => json_response(StatusCode::OK, &json!(done)),
        Err(Ended::Refused(refused)) => {
            json_response(status_of(refused.kind), &json!({"error": refused}))
        }
        Err(Ended::Lost) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "lost",
            "the primary lost the command",
        ),
    }
}

fn status_of(kind: CommandErrorKind) -> StatusCode {
    use CommandErrorKind::{Ended, Invalid, Stopping};
    if kind == Invalid {
        StatusCode::BAD_REQUEST
    } else if matches!(kind, Stopping | Ended) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::CONFLICT
    }
}

pub(super) fn error(status: StatusCode, kind: &str, reason: &str) -> Response {
    let error = json!({"error": {"kind": kind, "reason": reason, "last_lines": []}});
    json_response(status, &error)
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    (status, axum::Json(value)).into_response()
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
