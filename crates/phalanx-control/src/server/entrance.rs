//! How connections to the control API are served, wherever they come from: so many at a time, each with limits of time and size.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};

/// How long the head of a request may take, and how long a connection may wait for its next request.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// How long to leave off accepting when the process has no descriptor left.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at the same time; more wait to be accepted.
    pub(crate) connections: usize,
    /// What is kept of a connection's bytes, in each direction; also the longest head.
    pub(crate) buffer_bytes: usize,
}

/// Where connections come from, and what is there for each.
pub(crate) trait Entrance: Send {
    /// What they lead to, for the log.
    const WHAT: &'static str = "the control API";
    /// What they may take.
    const BOUNDS: Bounds = Bounds {
        connections: 128,
        buffer_bytes: 32 << 10,
    };

    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection.
    fn accept(&mut self) -> impl Future<Output = Self::Stream> + Send;

    /// What it may ask for. Found out beside the next ones.
    fn routes_for(&self, stream: &Self::Stream) -> impl Future<Output = Router> + Send + 'static;
}

/// Serves what comes in until `end`, and then until the last answer is given and the last stream has ended.
pub(crate) async fn serve_at<E: Entrance>(
    mut entrance: E,
    end: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(E::BOUNDS.connections));
    // Its receivers tell connections that the end has come; when all are dropped, the last one is gone.
    let (ending, ended) = watch::channel(false);
    let mut end = pin!(end);
    loop {
        // INVARIANT: nobody closes the semaphore. Whoever finds no place waits in the kernel's queue.
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, entrance.accept().await)
        };
        tokio::select! {
            () = &mut end => break,
            (place, stream) = accept => {
                let routes = entrance.routes_for(&stream);
                let ended = ended.clone();
                tokio::spawn(async move {
                    converse::<E>(stream, routes.await, ended).await;
                    drop(place);
                });
            }
        }
    }
    drop((entrance, ended));
    ending.send_replace(true);
    ending.closed().await;
    Ok(())
}

/// Answers the requests of one connection. One that does not finish its request's head in time is closed.
async fn converse<E: Entrance>(
    stream: E::Stream,
    routes: Router,
    mut ended: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(E::BOUNDS.buffer_bytes);
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
        tracing::debug!(%error, "a connection to {} ended", E::WHAT);
    }
}

/// Accepts connections of the primary's own user and of root, and closes all others.
pub(crate) struct OwnersOnly {
    uid: u32,
    listener: UnixListener,
    routes: Router,
}

impl OwnersOnly {
    pub(crate) fn new(listener: UnixListener, routes: Router) -> Self {
        Self {
            uid: phalanx_sys::identity::effective_uid(),
            listener,
            routes,
        }
    }
}

impl Entrance for OwnersOnly {
    type Stream = UnixStream;

    fn routes_for(&self, _: &UnixStream) -> impl Future<Output = Router> + Send + 'static {
        std::future::ready(self.routes.clone())
    }

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
