//! Requests that change nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::answer::{Answer, Refusal};
use crate::api::{Differences, ErrorKind, Snapshot, Status, WorkerStatus};
use crate::app::App;
use crate::logs::{self, Logs};

/// How often a stream without events says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Streams of events at the same time: each may have a backlog.
const STREAMS_MAX: usize = 32;

/// Says what a reload would change; or what is wrong with the file, in words. May block.
pub type Compare = Arc<dyn Fn() -> Result<Differences, String> + Send + Sync>;

pub(super) async fn status<A: App>(State(app): State<A>) -> Answer<Status> {
    Answer(app.status())
}

pub(super) async fn workers<A: App>(State(app): State<A>) -> Answer<Vec<WorkerStatus>> {
    Answer(app.status().workers)
}

pub(super) async fn snapshot<A: App>(State(app): State<A>) -> Answer<Snapshot> {
    Answer(app.snapshot().await)
}

pub(super) async fn differences(compare: Option<Compare>) -> Result<Answer<Differences>, Refusal> {
    let compare = compare.ok_or_else(|| {
        let reason = "the app was not started from a configuration file";
        Refusal::new(ErrorKind::NoFile, reason)
    })?;
    match tokio::task::spawn_blocking(move || compare()).await {
        Ok(Ok(differences)) => Ok(Answer(differences)),
        Ok(Err(reason)) => Err(Refusal::new(ErrorKind::DescriptionWrong, reason)),
        Err(_) => Err(Refusal::new(ErrorKind::Lost, "the file could not be read")),
    }
}

pub(super) async fn events<A: App>(State(app): State<A>) -> Result<Response, Refusal> {
    static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);
    let place = STREAMS.try_acquire().map_err(|_| {
        let reason = format!("{STREAMS_MAX} streams of events are open, the most there may be");
        Refusal::new(ErrorKind::TooManyStreams, reason)
    })?;
    let lines = app.events().map(move |line| {
        let _until_the_stream_ends = &place;
        Ok::<_, Infallible>(sse::Event::default().data(line))
    });
    Ok(Sse::new(lines)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

/// The query of a request, or what is wrong with it.
type Asked = Result<Query<logs::Query>, QueryRejection>;

pub(super) fn logs(logs: Option<Logs>, asked: Asked) -> Result<Response, Refusal> {
    static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);
    let logs = logs.ok_or_else(|| {
        let reason =
            "the workers' output does not pass through this primary, or none of it is kept";
        Refusal::new(ErrorKind::NoLogs, reason)
    })?;
    let Query(query) = asked.map_err(|wrong| Refusal::invalid(wrong.body_text()))?;
    let place = STREAMS.try_acquire().map_err(|_| {
        let reason = format!("{STREAMS_MAX} readers of the logs are there, the most there may be");
        Refusal::new(ErrorKind::TooManyStreams, reason)
    })?;
    let reader = logs.read(query);
    let kind = match reader.form() {
        logs::Form::Lines => "application/x-ndjson",
        logs::Form::Events => "text/event-stream",
    };
    let pieces = stream::unfold((reader, place), async |(mut reader, place)| {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(piece), (reader, place)))
    });
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}
