//! The Rust counterpart of `fixtures/polite.js`: the kinds of connection that a drain meets. With
//! `CERTIFIED=1` over TLS.
#![expect(clippy::unwrap_used, reason = "a program of the tests")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use phalanx::{Dismissal, ThisWorker};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{Interval, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// More than the system's buffers of a connection hold.
const LARGE_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
struct Wait {
    ms: u64,
}

fn main() -> phalanx::Result<()> {
    phalanx::builder().run(|worker| async move {
        let app = Router::new()
            .route("/", get(|| async { pid() }))
            .route("/slow", get(slow))
            .merge(gated())
            .route(
                "/kept",
                get(|| async { ([("connection", "keep-alive")], pid()) }),
            )
            .route(
                "/upload",
                post(|body: Bytes| async move { format!("bytes = {}, {}", body.len(), pid()) }),
            )
            .route("/events", get(events))
            .route("/large", get(|| async { "x".repeat(LARGE_BYTES) }))
            .route("/upgrade", any(upgrade))
            .route("/stream", any(stream))
            .with_state(worker.clone());
        let listener = worker.listen("127.0.0.1:0").await?;
        if std::env::var("CERTIFIED").is_ok_and(|value| value == "1") {
            let tls = TlsAcceptor::from(Arc::new(tls_config()));
            let prepare = move |stream: phalanx::Stream| {
                assert!(stream.nodelay().unwrap(), "answers would be held back");
                tls.accept(stream)
            };
            phalanx::serve_with(listener, app, prepare).await;
        } else {
            phalanx::serve(listener, app).await;
        }
        Ok::<_, phalanx::Error>(())
    })
}

/// The certificate of the tests, and both versions of HTTP to choose from.
fn tls_config() -> ServerConfig {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tls");
    let certificate = CertificateDer::from_pem_file(format!("{directory}/test-cert.pem"));
    let key = PrivateKeyDer::from_pem_file(format!("{directory}/test-key.pem"));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap()], key.unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn pid() -> String {
    format!("pid = {}\n", std::process::id())
}

async fn slow(Query(wait): Query<Wait>) -> String {
    interval_after(Duration::from_millis(wait.ms)).tick().await;
    pid()
}

/// A request for `/held` is answered when another one has come for `/free`.
fn gated<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let held = async move || {
        assert!(wait.acquire().await.is_err(), "it has no permits");
        pid()
    };
    let free = async move || {
        gate.close();
        pid()
    };
    Router::new()
        .route("/held", get(held))
        .route("/free", get(free))
}

fn interval_after(period: Duration) -> Interval {
    tokio::time::interval_at(tokio::time::Instant::now() + period, period)
}

/// An event each 20 ms, for ever.
struct Events(Interval);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let event = || Frame::data(Bytes::from(format!("data: {}\n", pid())));
        self.0.poll_tick(cx).map(|_| Some(Ok(event())))
    }
}

async fn events() -> Response {
    let body = Body::new(Events(interval(Duration::from_millis(20))));
    ([("content-type", "text/event-stream")], body).into_response()
}

/// Echoes what comes, on an upgraded connection.
async fn upgrade(mut request: Request) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = TokioIo::new(upgraded.await.unwrap());
        let (mut read, mut write) = tokio::io::split(stream);
        // The client ends it, or the process does.
        drop(tokio::io::copy(&mut read, &mut write).await);
    });
    switches()
}

/// An echo that says "bye" and ends when it is told to go to another worker.
async fn stream(State(worker): State<ThisWorker>, mut request: Request) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = TokioIo::new(upgraded.await.unwrap());
        let open = worker.stream();
        let (mut read, mut write) = tokio::io::split(stream);
        let is_told = tokio::select! {
            _ = tokio::io::copy(&mut read, &mut write) => false,
            why = open.dismissed() => why == Dismissal::Rebalance,
        };
        if is_told {
            write.write_all(b"bye").await.unwrap();
            write.shutdown().await.unwrap();
        }
    });
    switches()
}

fn switches() -> Response {
    let headers: HeaderMap = [("connection", "upgrade"), ("upgrade", "echo")]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
