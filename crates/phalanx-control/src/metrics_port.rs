//! The metrics port: figures for Prometheus and probes for orchestrators, over HTTP/1.1, for whoever reaches the address. It
//! changes nothing, and nothing that it tells is secret; so there is no token.
//!
//! INVARIANT: a client costs a place for a bounded time. It has to send the head of a request, and to take an answer, within limits; who
//! finds no place waits in the kernel's queue. On a loopback address only requests *for* a loopback address are answered: a page of
//! the web that has its own name lead here (DNS rebinding) reads nothing.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use phalanx_core::exposition::Format;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::api::Probe;
use crate::app::App;
use crate::server::{ACCEPT_PAUSE, Bounds, Entrance, serve_at};

/// How long a client may take to read an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Serves until `end`; connections that are open then are closed when they have their answer.
pub async fn serve<A: App>(listener: TcpListener, app: A, end: impl Future<Output = ()> + Send) {
    let is_local = listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
    let routes = routes(app, is_local);
    // It ends by `end` alone.
    drop(serve_at(Port { listener, routes }, end).await);
}

/// Accepts whoever reaches the address.
struct Port {
    listener: TcpListener,
    routes: Router,
}

impl Entrance for Port {
    type Stream = Impatient;

    const WHAT: &'static str = "the metrics port";
    const BOUNDS: Bounds = Bounds {
        connections: 64,
        buffer_bytes: 16 << 10,
    };

    fn routes_for(&self, _: &Impatient) -> impl Future<Output = Router> + Send + 'static {
        std::future::ready(self.routes.clone())
    }

    async fn accept(&mut self) -> Impatient {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    return Impatient {
                        stream,
                        until: None,
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the metrics port");
                    sleep_until(Instant::now() + ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn routes<A: App>(app: A, is_local: bool) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<A>))
        .route(
            "/livez",
            get(async |State(app): State<A>| probe(&app, Probe::Live)),
        )
        .route(
            "/readyz",
            get(async |State(app): State<A>| probe(&app, Probe::Ready)),
        )
        .route(
            "/startupz",
            get(async |State(app): State<A>| probe(&app, Probe::Started)),
        )
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "there are /metrics, /livez, /readyz and /startupz\n",
            )
        })
        .layer(from_fn_with_state(is_local, for_this_host))
        .with_state(app)
}

/// The figures, in the format that the client accepts.
pub(crate) async fn metrics<A: App>(State(app): State<A>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let accept: Vec<_> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let text = app.metrics(format).await;
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

fn probe<A: App>(app: &A, probe: Probe) -> Response {
    let (status, text) = match app.probe(probe) {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{text}\n")).into_response()
}

async fn for_this_host(State(is_local): State<bool>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    if is_local && !host.is_none_or(is_loopback) {
        let reason = "this port answers requests for localhost only\n";
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    next.run(request).await
}

/// Whether the value of `Host` names this machine by its loopback address.
fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && is_port(port) => name,
        Some(_) | None => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// A stream whose reader has to take what is written within [`WRITE_LIMIT`].
struct Impatient {
    stream: TcpStream,
    /// From when something waits to be taken.
    until: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    /// What is written waits: the time runs, and may be over.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let until = self
            .until
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_LIMIT)));
        ready!(until.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.wait(context),
            written @ Poll::Ready(_) => written,
        }
    }

    /// All of an answer has been written: the next one has its own time.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.until = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_its_names() {
        for host in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1",
            "127.0.0.1:9464",
            "[::1]:9464",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9464",
            "10.0.0.1:9464",
            "[fe80::1]",
            "",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
