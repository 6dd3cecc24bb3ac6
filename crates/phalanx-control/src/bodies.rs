//! The bodies of requests to the control socket.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use phalanx_core::fleet::{Amount, Canary, RecycleTarget, ReloadPlan};
use phalanx_core::ids::{Position, WorkerId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::server::error;

/// How long canaries are watched unless the request says so.
const WATCH: Duration = Duration::from_mins(1);

/// The body of `POST /v1/reload`, which may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reload {
    canary: Option<NumberOrText>,
    watch_ms: Option<u64>,
    max_surge: Option<NumberOrText>,
    max_unavailable: Option<NumberOrText>,
    allow_fewer_listeners: bool,
    allow_unseen: bool,
}

impl Reload {
    pub(super) fn plan(self) -> Result<ReloadPlan, String> {
        let canary = amount("canary", self.canary)?;
        if canary.is_some_and(Amount::is_zero) {
            return Err("canary: it must be more than zero".to_owned());
        }
        if canary.is_none() && self.watch_ms.is_some() {
            return Err("watch_ms: there is no canary to watch".to_owned());
        }
        Ok(ReloadPlan {
            canary: canary.map(|workers| Canary {
                workers,
                watch: self.watch_ms.map_or(WATCH, Duration::from_millis),
            }),
            max_surge: amount("max_surge", self.max_surge)?,
            max_unavailable: amount("max_unavailable", self.max_unavailable)?,
            allow_fewer_listeners: self.allow_fewer_listeners,
            allow_unseen: self.allow_unseen,
        })
    }
}

fn amount(name: &str, value: Option<NumberOrText>) -> Result<Option<Amount>, String> {
    let parse = |value: NumberOrText| {
        let amount = value.into_text().parse::<Amount>();
        amount.map_err(|error| format!("{name}: {error}"))
    };
    value.map(parse).transpose()
}

/// The body of `POST /v1/scale`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    pub(super) workers: NumberOrText,
}

/// `4`, `"+1"`, `"25%"`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrText {
    Number(u32),
    Text(String),
}

impl NumberOrText {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// The body of `POST /v1/recycle`, which may be left out: then all workers are meant.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Recycle {
    positions: Vec<u32>,
    workers: Vec<u32>,
}

impl Recycle {
    pub(super) fn targets(self) -> Vec<RecycleTarget> {
        let positions = self.positions.into_iter().map(Position);
        let workers = self.workers.into_iter().map(WorkerId);
        let targets: Vec<RecycleTarget> = positions
            .map(RecycleTarget::Position)
            .chain(workers.map(RecycleTarget::Worker))
            .collect();
        if targets.is_empty() {
            vec![RecycleTarget::All]
        } else {
            targets
        }
    }
}

/// The body of `POST /v1/policy`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) policy: String,
    pub(super) weights: Option<String>,
}

/// The body of `POST /v1/stop`, which may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stop {
    pub(super) fast: bool,
}

/// The body of `POST /v1/messages`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) message: Value,
    pub(super) to: Option<u32>,
}

/// How long a body may take to arrive, once the head has.
const LIMIT: Duration = Duration::from_secs(5);

/// The body of a request, or what became of it.
pub(super) enum Body {
    Read(Result<Bytes, BytesRejection>),
    TooSlow,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        let read = Bytes::from_request(request, state);
        Ok(timeout(LIMIT, read).await.map_or(Self::TooSlow, Self::Read))
    }
}

impl Body {
    fn bytes(self) -> Result<Bytes, Box<Response>> {
        match self {
            Self::Read(read) => read.map_err(|rejection| {
                let is_too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
                let kind = if is_too_large { "too_large" } else { "invalid" };
                Box::new(error(rejection.status(), kind, &rejection.body_text()))
            }),
            Self::TooSlow => {
                let reason = format!("the body has not arrived within {LIMIT:?}");
                let mut refusal = error(StatusCode::REQUEST_TIMEOUT, "too_slow", &reason);
                // What is still to come of it is not waited for.
                let close = HeaderValue::from_static("close");
                refusal.headers_mut().insert(CONNECTION, close);
                Err(Box::new(refusal))
            }
        }
    }
}

/// Reads a body as JSON, whatever type it claims to be: `curl -d` claims that of a form.
pub(super) fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Box<Response>> {
    from_bytes(&body.bytes()?)
}

fn from_bytes<T: DeserializeOwned>(body: &Bytes) -> Result<T, Box<Response>> {
    serde_json::from_slice(body).map_err(|invalid| {
        let reason = format!("the body is not as expected: {invalid}");
        Box::new(error(StatusCode::BAD_REQUEST, "invalid", &reason))
    })
}

/// As [`parse`]; no body means every default.
pub(super) fn parse_if_any<T: DeserializeOwned + Default>(body: Body) -> Result<T, Box<Response>> {
    let body = body.bytes()?;
    if body.is_empty() {
        return Ok(T::default());
    }
    from_bytes(&body)
}
