//! Serving HTTP/1 so that a drain loses nothing: [`serve`](super::serve) for `axum` routers and `tower` services.
//!
//! A worker that leaves goes on reading from every connection it has. The next answer of each says
//! `Connection: close`, and hyper closes it behind that answer. What is idle stays open until its next
//! request or the drain limit: closing it would cut off a request that is on its way. Upgraded
//! connections and server-sent events have a limit of their own.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use phalanx_core::wire::{DrainLimits, outgoing};
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tower_service::Service;

use super::{Listener, Stream, ThisWorker};
use crate::address::Address;

/// The limits of a worker that leaves by its own wish: its primary names none.
const OWN_LIMITS: DrainLimits = DrainLimits {
    drain: Duration::from_secs(30),
    stream: Duration::from_secs(30),
};

/// Serves HTTP/1 on `listener` until this worker has left: a counterpart of `axum::serve` that drains
/// politely by itself. Every connection is a task; the service is cloned for each request.
///
/// Requests carry their peer's [`Address`] as an extension, with feature `axum` also as `ConnectInfo`.
/// Once the worker is to leave, each connection's next answer says `Connection: close`. It returns when nothing is
/// left, or when a tenth of the primary's drain limit (30 s) is left, and with open upgrades or server-sent events
/// as much before the end of theirs.
pub async fn serve<S, B>(listener: Listener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let worker = listener.worker().clone();
    let crowd = Arc::new(Crowd::default());
    while let Some((stream, peer)) = listener.accept().await {
        let member = Arc::new(Member {
            crowd: Arc::clone(&crowd),
            worker: worker.clone(),
            events: AtomicUsize::new(0),
        });
        tokio::spawn(attend(stream, peer, member, service.clone()));
    }
    drop(listener);
    leave(&worker, &crowd).await;
}

/// Serves one connection.
async fn attend<S, B>(mut stream: Stream, peer: Address, member: Arc<Member>, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    stream.count(Count::new(&member.crowd, Kind::Connection));
    let _served = Count::new(&member.crowd, Kind::Served);
    let own = Arc::clone(&member);
    let answer = move |mut request: Request<Incoming>| {
        introduce(&mut request, &peer);
        let member = Arc::clone(&own);
        let mut service = service.clone();
        async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            let response = service.call(request).await?;
            Ok::<_, S::Error>(member.dismiss(response))
        }
    };
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades();
    let mut connection = pin!(connection);
    loop {
        let cut = member.crowd.cut.notified();
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = cut => {
                if member.events.load(Ordering::Acquire) == 0 {
                    return;
                }
            }
        }
    }
}

/// Tells the application who asks.
fn introduce<B>(request: &mut Request<B>, peer: &Address) {
    #[cfg(feature = "axum")]
    request
        .extensions_mut()
        .insert(axum::extract::ConnectInfo(peer.clone()));
    request.extensions_mut().insert(peer.clone());
}

/// Waits until nothing is left of a worker that is to leave, or its time is over.
async fn leave(worker: &ThisWorker, crowd: &Crowd) {
    let limits = worker.inner.drain_limits().unwrap_or(OWN_LIMITS);
    let begun = Instant::now();
    // The rest is for ending in order, before the primary loses patience.
    let usable = |limit: Duration| limit.mul_f64(0.9);
    if crowd.streams() > 0 {
        ask_for_patience(worker, limits.drain + limits.stream);
    }
    if crowd.emptied(begun + usable(limits.drain)).await {
        return;
    }
    if crowd.streams() > 0 && !limits.stream.is_zero() {
        let left = (begun + limits.drain).saturating_duration_since(Instant::now());
        ask_for_patience(worker, left + limits.stream);
        sleep_until(begun + limits.drain).await;
        crowd.cut.notify_waiters();
        crowd
            .emptied(begun + limits.drain + usable(limits.stream))
            .await;
    }
}

fn ask_for_patience(worker: &ThisWorker, by: Duration) {
    let asked = worker.inner.send_line(|_| outgoing::worker::patience(by));
    if let Err(error) = asked {
        tracing::debug!(%error, "the primary is gone");
    }
}

/// The connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Open ones, upgraded or not.
    connections: AtomicUsize,
    /// Those that HTTP is spoken on.
    served: AtomicUsize,
    /// Those on which server-sent events are under way.
    events: AtomicUsize,
    changed: Notify,
    /// The drain limit is reached: whatever is no stream ends.
    cut: Notify,
}

impl Crowd {
    /// Upgraded connections, and server-sent events.
    fn streams(&self) -> usize {
        let connections = self.connections.load(Ordering::Acquire);
        let served = self.served.load(Ordering::Acquire);
        connections.saturating_sub(served) + self.events.load(Ordering::Acquire)
    }

    /// Waits until all connections are gone. False when that was not so in time.
    async fn emptied(&self, deadline: Instant) -> bool {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.connections.load(Ordering::Acquire) == 0 {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }

    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Served => &self.served,
            Kind::Events => &self.events,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Connection,
    Served,
    Events,
}

/// One more of a kind, until it is dropped.
#[derive(Debug)]
pub(super) struct Count {
    crowd: Arc<Crowd>,
    kind: Kind,
}

impl Count {
    fn new(crowd: &Arc<Crowd>, kind: Kind) -> Self {
        crowd.of(kind).fetch_add(1, Ordering::AcqRel);
        Self {
            crowd: Arc::clone(crowd),
            kind,
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.crowd.of(self.kind).fetch_sub(1, Ordering::AcqRel);
        self.crowd.changed.notify_waiters();
    }
}

/// One connection of the crowd.
#[derive(Debug)]
struct Member {
    crowd: Arc<Crowd>,
    worker: ThisWorker,
    /// Its answers that are server-sent events, and not finished.
    events: AtomicUsize,
}

impl Member {
    /// Adds the farewell where it is due, and counts server-sent events.
    fn dismiss<B>(self: Arc<Self>, mut response: Response<B>) -> Response<Counted<B>> {
        if self.worker.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let events = is_event_stream(response.headers()).then(|| Events::new(self));
        response.map(|body| Counted { body, events })
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Server-sent events under way.
#[derive(Debug)]
struct Events {
    member: Arc<Member>,
    _count: Count,
}

impl Events {
    fn new(member: Arc<Member>) -> Self {
        member.events.fetch_add(1, Ordering::AcqRel);
        let count = Count::new(&member.crowd, Kind::Events);
        Self {
            member,
            _count: count,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.member.events.fetch_sub(1, Ordering::AcqRel);
    }
}

pin_project! {
    /// A body, counted while it is sent if it is a stream.
    struct Counted<B> {
        #[pin]
        body: B,
        events: Option<Events>,
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
