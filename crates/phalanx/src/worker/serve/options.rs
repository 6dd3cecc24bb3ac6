//! How a listener is served: what [`serve`](super::serve) gives, until it is awaited.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::{BoxError, run};
use crate::worker::{Listener, Stream};

/// A listener and what answers on it. Nothing happens until it is awaited; that returns when this worker has left.
///
/// ```no_run
/// # async fn example(listener: phalanx::Listener, app: axum::Router) {
/// use std::time::Duration;
///
/// let served = phalanx::serve(listener, app)
///     .header_timeout(Duration::from_secs(10))
///     .max_connections(10_000)
///     .on_leave(async { println!("this worker is to leave") })
///     .await;
/// println!("{} connections, {} cut off", served.connections, served.cut_off);
/// # }
/// ```
#[must_use = "nothing is served until it is awaited"]
pub struct Serve<S, P> {
    pub(super) listener: Listener,
    pub(super) service: S,
    pub(super) prepare: P,
    pub(super) limits: Limits,
    pub(super) on_leave: Option<Hook>,
}

pub(super) type Hook = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a worker served, when it has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Served {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that were still open when the limit of the drain was reached.
    pub cut_off: usize,
}

/// The bounds of a connection. Each is off unless it is asked for, apart from those that hyper has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header_timeout: Option<Duration>,
    pub(super) max_connections: Option<usize>,
    max_header_bytes: Option<usize>,
    max_http2_streams: Option<u32>,
    pub(super) http2: bool,
}

impl Limits {
    pub(super) fn http1(&self) -> http1::Builder {
        let mut http = http1::Builder::new();
        if let Some(limit) = self.header_timeout {
            http.timer(TokioTimer::new()).header_read_timeout(limit);
        }
        if let Some(bytes) = self.max_header_bytes {
            http.max_buf_size(bytes.max(LEAST_HEADER_BYTES));
        }
        http
    }

    pub(super) fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut http = http2::Builder::new(TokioExecutor::new());
        if let Some(bytes) = self.max_header_bytes {
            http.max_header_list_size(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        if let Some(streams) = self.max_http2_streams {
            http.max_concurrent_streams(streams);
        }
        http
    }
}

/// hyper takes no smaller buffer.
const LEAST_HEADER_BYTES: usize = 8192;

impl<S, P> Serve<S, P> {
    pub(super) fn new(listener: Listener, service: S, prepare: P) -> Self {
        Self {
            listener,
            service,
            prepare,
            limits: Limits {
                header_timeout: None,
                max_connections: None,
                max_header_bytes: None,
                max_http2_streams: None,
                http2: true,
            },
            on_leave: None,
        }
    }

    /// How long a client may take for its first bytes, and over HTTP/1 for the head of each request; so it also bounds how long
    /// a connection may be idle. Default: no limit, because a connection that is closed for idleness can cut
    /// off a request that is on its way.
    pub fn header_timeout(mut self, limit: Duration) -> Self {
        self.limits.header_timeout = Some(limit);
        self
    }

    /// How many connections may be open at the same time. At the limit this worker accepts none: they wait, or other workers take
    /// them. Default: no limit but that of descriptors.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits.max_connections = Some(count.max(1));
        self
    }

    /// How many bytes the head of a request may have; over HTTP/1 at least 8 KiB. A longer one is refused (status 431).
    /// Default: about 400 KiB over HTTP/1, 16 KiB over HTTP/2.
    pub fn max_header_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_header_bytes = Some(bytes);
        self
    }

    /// How many requests an HTTP/2 connection may have in service. Default: 200.
    pub fn max_http2_streams(mut self, count: u32) -> Self {
        self.limits.max_http2_streams = Some(count);
        self
    }

    /// Serve HTTP/2? Default: yes, to clients that begin with it. Without it such a client is refused.
    pub fn http2(mut self, wanted: bool) -> Self {
        self.limits.http2 = wanted;
        self
    }

    /// Runs beside the drain, from the moment when this worker is to leave: to end work in the background, for instance. The drain does
    /// not end before it, but at its limit.
    pub fn on_leave(mut self, hook: impl Future<Output = ()> + Send + 'static) -> Self {
        self.on_leave = Some(Box::pin(hook));
        self
    }
}

impl<S, P> fmt::Debug for Serve<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<S, B, P, F, T> IntoFuture for Serve<S, P>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<Incoming>, Error: Into<BoxError>, Future: Send>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    P: Fn(Stream) -> F + Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Served;
    type IntoFuture = Pin<Box<dyn Future<Output = Served> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run(self))
    }
}
