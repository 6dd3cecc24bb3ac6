//! Serving HTTP so that a drain loses nothing: [`serve`](super::serve) for `axum` routers and `tower` services.
//!
//! A worker that leaves goes on reading from every connection it has. Over HTTP/1 the next answer of each says
//! `Connection: close`, and hyper closes it behind that answer. What is idle stays open until its next
//! request or the drain limit: closing it would cut off a request that is on its way. Over HTTP/2 the
//! client is told at once (GOAWAY), and what it had sent before it heard of that is served. Upgraded
//! connections and server-sent events have a limit of their own.

mod connections;
mod opened;
mod options;

use std::error::Error as StdError;
use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use phalanx_core::wire::{DrainLimits, outgoing};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tower_service::Service;

pub(super) use connections::Count;
use connections::{Connections, Counted, Guard};
use opened::{Opened, Protocol};
use options::{Hook, Limits};
pub use options::{Serve, Served};

use super::{Listener, Stream, ThisWorker};
use crate::address::Address;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The limits of a worker that leaves by its own wish: its primary names none.
const OWN_LIMITS: DrainLimits = DrainLimits {
    drain: Duration::from_secs(30),
    stream: Duration::from_secs(30),
};

/// Serves HTTP/1 and HTTP/2 on `listener` until this worker has left: a counterpart of `axum::serve` that drains
/// politely by itself. Every connection is a task; the service is cloned for each request. HTTP/2 is
/// for clients that begin with it ("prior knowledge"); the upgrade from HTTP/1 is not offered, and
/// neither is `WebSocket` over HTTP/2 (RFC 8441).
///
/// An upload of which the app leaves something unread is answered with `Connection: close` over HTTP/1, unless the rest has come
/// already; it is read and forgotten until the client closes. Connections have `TCP_NODELAY` set. Requests carry their peer's [`Address`] as an extension, with feature `axum` also as `ConnectInfo`.
/// Once the worker is to leave, each HTTP/1 connection's next answer says `Connection: close`, and each HTTP/2
/// connection is told GOAWAY (RFC 9113, 6.8). It returns when nothing is
/// left, or when a tenth of the primary's drain limit (30 s) is left, and with open upgrades or server-sent events
/// as much before the end of theirs.
///
/// What is given back has the limits as methods; awaiting it serves.
pub fn serve<S>(listener: Listener, service: S) -> Serve<S, Plainly> {
    Serve::new(listener, service, |stream| ready(Ok(stream)))
}

/// Makes nothing of a connection: HTTP is spoken on it as it is.
pub type Plainly = fn(Stream) -> Ready<io::Result<Stream>>;

/// As [`serve`], on what `prepare` makes of each connection: TLS, for instance. Over TLS, HTTP/2 is served
/// to whoever chose it in the handshake, so offer it there (ALPN).
///
/// ```no_run
/// # use phalanx::{Listener, Stream};
/// # struct Acceptor;
/// # impl Acceptor {
/// #     fn accept(&self, stream: Stream) -> std::future::Ready<std::io::Result<Stream>> {
/// #         std::future::ready(Ok(stream))
/// #     }
/// # }
/// # async fn example(listener: Listener, app: axum::Router, tls: Acceptor) {
/// // let mut config = tokio_rustls::rustls::ServerConfig::builder()...;
/// // config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
/// // let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
/// phalanx::serve_with(listener, app, move |stream| tls.accept(stream)).await;
/// # }
/// ```
///
/// The connection is one of this worker's for as long as `prepare`, or what it made, holds the [`Stream`]; a
/// connection for which it fails is closed. It is awaited in the connection's own task, and
/// a client that is slow about it holds nobody up; at the drain limit it is cut off.
pub fn serve_with<S, P>(listener: Listener, service: S, prepare: P) -> Serve<S, P> {
    Serve::new(listener, service, prepare)
}

/// Accepts until this worker is to leave, and then lets it leave.
async fn run<S, B, P, F, T>(serve: Serve<S, P>) -> Served
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<Incoming>, Error: Into<BoxError>, Future: Send>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    P: Fn(Stream) -> F + Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serve {
        listener,
        service,
        prepare,
        limits,
        on_leave,
    } = serve;
    let worker = listener.worker().clone();
    let connections = Arc::new(Connections::default());
    let hook = on_leave.map(|hook| tokio::spawn(after_leaving(worker.clone(), hook)));
    let places = limits
        .max_connections
        .map(|count| Arc::new(Semaphore::new(count)));
    let mut accepted = 0;
    loop {
        let place = a_place(places.as_ref(), &worker).await;
        let Some((mut stream, peer)) = listener.accept().await else {
            break;
        };
        accepted += 1;
        // Else an answer in several parts waits 40 ms for the client's delayed acknowledgement (tcp(7)). A
        // connection that is gone already is found out below.
        drop(stream.set_nodelay(true));
        let (guard, open) = Guard::join(&connections, &worker);
        stream.count(open);
        let (own, service) = (Arc::clone(&guard), service.clone());
        let answered = move |mut request: Request<Incoming>| {
            introduce(&mut request, &peer);
            answer(service.clone(), Arc::clone(&own), request)
        };
        let connection = attend(prepare(stream), service_fn(answered), guard, limits);
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    let cut_off = leave(&worker, &connections, hook).await;
    Served {
        connections: accepted,
        cut_off,
    }
}

/// A place for one more connection, where they are limited. A worker that is to leave takes what is still its own without one.
async fn a_place(
    places: Option<&Arc<Semaphore>>,
    worker: &ThisWorker,
) -> Option<OwnedSemaphorePermit> {
    let place = Arc::clone(places?).acquire_owned();
    tokio::select! {
        // INVARIANT: nobody closes the semaphore.
        place = place => place.ok(),
        () = worker.inner.leaving.wait() => None,
    }
}

async fn after_leaving(worker: ThisWorker, hook: Hook) {
    worker.inner.leaving.wait().await;
    hook.await;
}

/// Lets the service answer a request, and adds what the connection needs.
fn answer<S, B>(
    mut service: S,
    guard: Arc<Guard>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Counted<B>>, S::Error>> + Send
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S: Service<Request<Incoming>, Future: Send>,
    B: Body<Data: Send> + Send + 'static,
{
    let version = request.version();
    let uploads = !request.body().is_end_stream();
    guard.uploads(uploads);
    async move {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        let response = service.call(request).await?;
        if uploads && version < Version::HTTP_2 {
            // What the app has not read, and hyper does not find at once, ends the connection. hyper looks before
            // it polls this again: so the answer says that the connection ends with it.
            yield_now().await;
        }
        Ok(guard.dismiss(response, version))
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

/// Serves one connection, as long as it may last.
async fn attend<P, T, A, B>(prepared: P, answer: A, guard: Arc<Guard>, limits: Limits)
where
    P: Future<Output = io::Result<T>>,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: HttpService<Incoming, ResBody = B, Error: Into<BoxError>, Future: Send + 'static>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let _served = guard.served();
    let mut conversation = pin!(async {
        let opening = Opened::open(prepared.await?, guard.lingers());
        let opened = match limits.header_timeout {
            Some(limit) => timeout(limit, opening).await??,
            None => opening.await?,
        };
        converse(opened, answer, &guard, limits).await
    });
    loop {
        let cut = guard.connections().cut.notified();
        tokio::select! {
            ended = conversation.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = cut => {
                if !guard.has_events() {
                    return;
                }
            }
        }
    }
}

/// Speaks what the client speaks, until either says that it is over.
async fn converse<T, A, B>(
    opened: Opened<T>,
    answer: A,
    guard: &Guard,
    limits: Limits,
) -> Result<(), BoxError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: HttpService<Incoming, ResBody = B, Error: Into<BoxError>, Future: Send + 'static>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let protocol = opened.protocol();
    let io = TokioIo::new(opened);
    if protocol == Protocol::Http1 || !limits.http2 {
        let connection = limits.http1().serve_connection(io, answer);
        return Ok(connection.with_upgrades().await?);
    }
    let connection = limits.http2().serve_connection(io, answer);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = guard.worker().inner.leaving.wait() => connection.as_mut().graceful_shutdown(),
        () = guard.shed() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Waits until nothing is left of a worker that is to leave, or its time is over. Returns how many connections are left.
async fn leave(
    worker: &ThisWorker,
    connections: &Connections,
    hook: Option<JoinHandle<()>>,
) -> usize {
    let limits = worker.inner.drain_limits().unwrap_or(OWN_LIMITS);
    let begun = Instant::now();
    // The rest is for ending in order, before the primary loses patience.
    let usable = |limit: Duration| limit.mul_f64(0.9);
    let drained_by = begun + usable(limits.drain);
    if connections.streams() > 0 {
        ask_for_patience(worker, limits.drain + limits.stream);
    }
    if !connections.emptied(drained_by).await
        && connections.streams() > 0
        && !limits.stream.is_zero()
    {
        let left = (begun + limits.drain).saturating_duration_since(Instant::now());
        ask_for_patience(worker, left + limits.stream);
        sleep_until(begun + limits.drain).await;
        connections.cut.notify_waiters();
        connections
            .emptied(begun + limits.drain + usable(limits.stream))
            .await;
    }
    if let Some(hook) = hook {
        // A hook that panicked has said so on standard error.
        drop(timeout_at(drained_by, hook).await);
    }
    connections.count()
}

fn ask_for_patience(worker: &ThisWorker, by: Duration) {
    let asked = worker.inner.send_line(|_| outgoing::worker::patience(by));
    if let Err(error) = asked {
        tracing::debug!(%error, "the primary is gone");
    }
}
