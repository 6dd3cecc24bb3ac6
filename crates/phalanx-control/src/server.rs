//! The server side of the control plane: routes, and who may use them.
//!
//! A command goes on when its client goes away. A request from another user than the primary's own, or
//! root, is not even read.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use futures_util::Stream;
use futures_util::stream;
use phalanx::fleet::Done;
use phalanx::supervisor::{CommandError, CommandErrorKind, Control};
use phalanx::{PolicyName, Weights, WorkerId};
use serde_json::{Value, json};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep_until};

use super::bodies::{Body, Message, Policy, Reload, Scale, Stop, parse, parse_if_any};
use crate::failure::with_causes;
use crate::values;
use crate::{api, describe};

/// The longest request body; what a message to workers may have.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How often a stream without events says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long to leave off accepting when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `end`, and then until the last answer is given and the last stream has ended.
///
/// # Errors
///
/// Fails if the listener does.
pub async fn serve(
    listener: UnixListener,
    control: Control,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = OwnersOnly {
        uid: phalanx_sys::identity::effective_uid(),
        listener,
    };
    axum::serve(listener, routes(control))
        .with_graceful_shutdown(end)
        .await
}

fn routes(control: Control) -> Router {
    Router::new()
        .route(api::STATUS, get(status))
        .route(api::WORKERS, get(workers))
        .route(api::RELOAD, post(reload))
        .route(api::ROLLBACK, post(rollback))
        .route(api::SCALE, post(scale))
        .route(api::POLICY, post(policy))
        .route(api::STOP, post(stop))
        .route(api::MESSAGES, post(messages))
        .route(api::EVENTS, get(events))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(control)
}

async fn status(State(control): State<Control>) -> Response {
    axum::Json(control.status()).into_response()
}

async fn workers(State(control): State<Control>) -> Response {
    axum::Json(control.status().workers).into_response()
}

async fn reload(State(control): State<Control>, body: Body) -> Response {
    let wanted = parse_if_any(body).and_then(|wanted: Reload| {
        let invalid = |reason: String| error(StatusCode::BAD_REQUEST, "invalid", &reason);
        wanted.plan().map_err(|reason| Box::new(invalid(reason)))
    });
    match wanted {
        Ok(plan) => answer(to_the_end(async move { control.reload_by(plan).await }).await),
        Err(refusal) => *refusal,
    }
}

async fn rollback(State(control): State<Control>) -> Response {
    answer(to_the_end(async move { control.rollback().await }).await)
}

async fn scale(State(control): State<Control>, body: Body) -> Response {
    let wanted: Scale = match parse(body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    match values::scale_to(&wanted.workers.into_text()) {
        Ok(to) => answer(to_the_end(async move { control.scale(to).await }).await),
        Err(reason) => error(
            StatusCode::BAD_REQUEST,
            "invalid",
            &format!("workers: {reason}"),
        ),
    }
}

async fn policy(State(control): State<Control>, body: Body) -> Response {
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
    match control.change_policy(policy, weights) {
        Ok(()) => json_response(StatusCode::OK, &json!({"policy": policy})),
        Err(failed) => error(
            StatusCode::CONFLICT,
            "policy_not_here",
            &with_causes(&failed),
        ),
    }
}

async fn stop(State(control): State<Control>, body: Body) -> Response {
    let Stop { fast } = match parse_if_any(body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let stopped = to_the_end(async move {
        if fast {
            control.stop_fast().await
        } else {
            control.stop().await
        }
    });
    answer(stopped.await.map(|()| Done::Stopped))
}

async fn messages(State(control): State<Control>, body: Body) -> Response {
    let Message { message, to } = match parse(body) {
        Ok(message) => message,
        Err(refusal) => return *refusal,
    };
    match control.send(&message, to.map(WorkerId)) {
        Ok(workers) => json_response(StatusCode::OK, &json!({"workers": workers})),
        Err(failed) => {
            let (status, kind) = if matches!(failed, phalanx::Error::NoSuchWorker(_)) {
                (StatusCode::NOT_FOUND, "no_such_worker")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not_sent")
            };
            error(status, kind, &with_causes(&failed))
        }
    }
}

async fn events(
    State(control): State<Control>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let events = stream::unfold(control.events(), async |mut events| {
        let event = events.next().await?;
        // JSON has no line breaks outside of its texts, and escapes those inside.
        let line = sse::Event::default().data(describe::to_json(&event).to_string());
        Some((Ok(line), events))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
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

impl Listener for OwnersOnly {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) if is_owner(&stream, self.uid) => return (stream, address),
                Ok((stream, _)) => drop(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    sleep_until(Instant::now() + ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
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
