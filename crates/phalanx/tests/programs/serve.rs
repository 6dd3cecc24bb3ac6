//! The three ways to serve that a listener must work with, and UDP. All answer alike: who, to whom.

use std::convert::Infallible;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use phalanx::{Address, Listener, Stream, ThisWorker, UdpSocket, WorkerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

pub(crate) async fn start(with: String, listener: Listener, worker: ThisWorker) {
    match with.as_str() {
        "axum" => axum_app(listener, worker).await,
        "hyper" => hyper_loop(listener, worker).await,
        "tokio" => tokio_loop(listener, worker).await,
        other => panic!("serve with {other}?"),
    }
}

fn body(worker: WorkerId, peer: &Address) -> String {
    let pid = std::process::id();
    format!("pid = {pid}\nworker = {worker}\npeer = {peer}\n")
}

pub(crate) async fn axum_app(listener: Listener, worker: ThisWorker) {
    let id = worker.id();
    let hello = move |ConnectInfo(peer): ConnectInfo<Address>| async move { body(id, &peer) };
    let app = Router::new()
        .route("/", get(hello))
        .route("/crash", get(crash))
        .into_make_service_with_connect_info::<Address>();
    let served = axum::serve(listener, app).with_graceful_shutdown(worker.draining());
    served.await.expect("axum serves until the end");
}

async fn crash() -> &'static str {
    std::process::abort()
}

async fn hyper_loop(listener: Listener, worker: ThisWorker) {
    let id = worker.id();
    let mut connections = JoinSet::new();
    while let Some((stream, peer)) = listener.accept().await {
        let service = service_fn(move |_: Request<Incoming>| {
            let answer = Response::new(Full::new(Bytes::from(body(id, &peer))));
            async move { Ok::<_, Infallible>(answer) }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away is its own affair.
        connections.spawn(async move { drop(serving.await) });
    }
    while connections.join_next().await.is_some() {}
}

async fn tokio_loop(listener: Listener, worker: ThisWorker) {
    let mut connections = JoinSet::new();
    while let Some((stream, peer)) = listener.accept().await {
        connections.spawn(answer(stream, peer, worker.id()));
    }
    while connections.join_next().await.is_some() {}
}

/// Answers one request by hand.
pub(crate) async fn answer(mut stream: Stream, peer: Address, worker: WorkerId) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let body = body(worker, &peer);
    let length = body.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    // A client that goes away is its own affair.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}

/// Answers every datagram with the worker's id.
pub(crate) async fn echo(socket: UdpSocket, worker: ThisWorker) {
    let mut buffer = [0; 64];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((_, peer)) = received else { return };
                let answer = worker.id().to_string();
                drop(socket.send_to(answer.as_bytes(), peer).await);
            }
            () = worker.draining() => return,
        }
    }
}
