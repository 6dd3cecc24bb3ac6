//! A worker with every limit that `serve` knows, taken from the environment. Says what it served.

#![expect(clippy::print_stdout, reason = "it talks to the test")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use phalanx::{ThisWorker, Workers};

fn main() -> phalanx::Result<()> {
    phalanx::builder()
        .workers(Workers::Exactly(1))
        // A tenth of it is for the end, which may come late on a busy machine.
        .drain_timeout(Duration::from_secs(10))
        .stream_timeout(Duration::ZERO)
        .run(serve)
}

async fn serve(worker: ThisWorker) -> Result<(), Box<dyn Error + Send + Sync>> {
    let answered = Arc::new(AtomicU32::new(0));
    let count = move || {
        let number = answered.fetch_add(1, Ordering::AcqRel) + 1;
        async move { number.to_string() }
    };
    let app = Router::new()
        .route("/", get(count))
        .route("/never", get(std::future::pending::<String>));
    let listener = worker.listen("127.0.0.1:0").await?;
    println!("listens on {}", listener.local_addr());
    let mut serve = phalanx::serve(listener, app)
        .http2(false)
        .on_leave(async { println!("hook ran") });
    if let Some(limit) = variable("HEADER_TIMEOUT_MS") {
        serve = serve.header_timeout(Duration::from_millis(limit));
    }
    if let Some(count) = variable("MAX_CONNECTIONS") {
        serve = serve.max_connections(usize::try_from(count)?);
    }
    let served = serve.await;
    println!("served {}, cut off {}", served.connections, served.cut_off);
    Ok(())
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
