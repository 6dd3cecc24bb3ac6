//! The low-level style, as it reads in Node.js: fork once a core, and fork again when a worker dies.
//!
//! ```text
//! cargo run --example respawn                    # 127.0.0.1:3000, or the address given
//! curl http://127.0.0.1:3000/                    # answers with the worker's pid
//! curl http://127.0.0.1:3000/crash               # that worker aborts; another takes its place
//! ```
//! A server of your own would use `phalanx::builder()`, which also waits longer after each crash.
#![expect(
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "an example shows what it does, and reacts to few of many events"
)]

use axum::Router;
use axum::routing::get;
use phalanx::{Cluster, Event, Role, ThisWorker};

fn main() -> phalanx::Result<()> {
    match phalanx::init()? {
        Role::Primary(cluster) => primary(cluster),
        Role::Worker(worker) => work(worker),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn primary(cluster: Cluster) -> phalanx::Result<()> {
    println!("primary {} is running", std::process::id());
    let mut events = cluster.events();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    for _ in 0..cores {
        cluster.fork()?;
    }
    while let Some(event) = events.next().await {
        match event {
            Event::Listening { worker, address } => {
                println!("worker {worker} listens on {address}");
            }
            Event::Exit {
                worker,
                code,
                signal,
                ..
            } => {
                println!(
                    "worker {worker} died ({}). Restarting ...",
                    how(code, signal)
                );
                cluster.fork()?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn how(code: Option<u8>, signal: Option<u8>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn work(worker: ThisWorker) -> phalanx::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let app = Router::new()
        .route(
            "/",
            get(|| async { format!("pid = {}\n", std::process::id()) }),
        )
        .route("/crash", get(crash));
    let listener = worker.listen(address).await?;
    let served = axum::serve(listener, app)
        .with_graceful_shutdown(worker.draining())
        .await;
    served.map_err(|error| phalanx::Error::App(error.into()))
}

async fn crash() -> &'static str {
    std::process::abort()
}
