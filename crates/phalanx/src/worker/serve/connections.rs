//! Who is connected to a worker that serves, and what holds it when it is to leave: connections, upgraded
//! ones among them, and server-sent events under way.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::worker::ThisWorker;

/// The connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Open ones, upgraded or not.
    open: AtomicUsize,
    /// Those that HTTP is spoken on.
    served: AtomicUsize,
    /// Those on which server-sent events are under way.
    events: AtomicUsize,
    changed: Notify,
    /// The drain limit is reached: whatever is no stream ends.
    pub(super) cut: Notify,
}

impl Connections {
    /// Open ones, upgraded or not.
    pub(super) fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Upgraded connections, and server-sent events.
    pub(super) fn streams(&self) -> usize {
        let connections = self.open.load(Ordering::Acquire);
        let served = self.served.load(Ordering::Acquire);
        connections.saturating_sub(served) + self.events.load(Ordering::Acquire)
    }

    /// Waits until all connections are gone. False when that was not so in time.
    pub(super) async fn emptied(&self, deadline: Instant) -> bool {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.open.load(Ordering::Acquire) == 0 {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }

    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Connection => &self.open,
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
pub(in crate::worker) struct Count {
    connections: Arc<Connections>,
    kind: Kind,
}

impl Count {
    fn new(connections: &Arc<Connections>, kind: Kind) -> Self {
        connections.of(kind).fetch_add(1, Ordering::AcqRel);
        Self {
            connections: Arc::clone(connections),
            kind,
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.connections
            .of(self.kind)
            .fetch_sub(1, Ordering::AcqRel);
        self.connections.changed.notify_waiters();
    }
}

/// One connection of the connections.
#[derive(Debug)]
pub(super) struct Guard {
    connections: Arc<Connections>,
    worker: ThisWorker,
    /// Its answers that are server-sent events, and not finished.
    events: AtomicUsize,
    /// It was told to end although the worker stays.
    sheds: AtomicBool,
    /// Its last request has a body, of which something may stay unread.
    lingers: Arc<AtomicBool>,
}

impl Guard {
    /// One more, and what its stream has to hold for as long as it is open.
    pub(super) fn join(connections: &Arc<Connections>, worker: &ThisWorker) -> (Arc<Self>, Count) {
        worker.inner.shed.begun();
        let guard = Self {
            connections: Arc::clone(connections),
            worker: worker.clone(),
            events: AtomicUsize::new(0),
            sheds: AtomicBool::new(false),
            lingers: Arc::default(),
        };
        (Arc::new(guard), Count::new(connections, Kind::Connection))
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Whether its request has a body.
    pub(super) fn uploads(&self, has_body: bool) {
        self.lingers.store(has_body, Ordering::Release);
    }

    /// Whether its end is to wait for the client's.
    pub(super) fn lingers(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lingers)
    }

    pub(super) fn worker(&self) -> &ThisWorker {
        &self.worker
    }

    /// HTTP is spoken on it until this is dropped.
    pub(super) fn served(&self) -> Count {
        Count::new(&self.connections, Kind::Served)
    }

    /// Are server-sent events under way on it?
    pub(super) fn has_events(&self) -> bool {
        self.events.load(Ordering::Acquire) > 0
    }

    /// Whether this connection is to end although the worker stays: it is asked with each answer.
    fn sheds(&self) -> bool {
        if self.sheds.load(Ordering::Acquire) {
            return true;
        }
        let is_taken = self.worker.inner.shed.take(|| self.worker.inner.held());
        if is_taken {
            self.sheds.store(true, Ordering::Release);
        }
        is_taken
    }

    /// Waits until this connection is to end although the worker stays.
    pub(super) async fn shed(&self) {
        let held = || self.worker.inner.held();
        self.worker.inner.shed.turn(held).await;
        self.sheds.store(true, Ordering::Release);
    }

    /// Adds the farewell where it is due, and counts server-sent events. Over HTTP/2 the farewell is no
    /// header, but the connection's own.
    pub(super) fn dismiss<B>(
        self: Arc<Self>,
        mut response: Response<B>,
        version: Version,
    ) -> Response<Counted<B>> {
        let has_events = is_event_stream(response.headers());
        if version < Version::HTTP_2
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
            && (self.worker.is_draining() || !has_events && self.sheds())
        {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let events = has_events.then(|| Events::new(self));
        response.map(|body| Counted { body, events })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.worker.inner.shed.ended(*self.sheds.get_mut());
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Server-sent events under way.
#[derive(Debug)]
struct Events {
    guard: Arc<Guard>,
    _count: Count,
}

impl Events {
    fn new(guard: Arc<Guard>) -> Self {
        if guard.events.fetch_add(1, Ordering::AcqRel) == 0 {
            guard.worker.inner.shed.streams(true);
        }
        let count = Count::new(&guard.connections, Kind::Events);
        Self {
            guard,
            _count: count,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.guard.events.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.guard.worker.inner.shed.streams(false);
        }
    }
}

pin_project! {
    /// A body, counted while it is sent if it is a stream.
    pub(super) struct Counted<B> {
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
