//! The high-level style: an axum app on two workers, with limits, respawn and rolling restart.
//!
//! ```text
//! cargo run --example axum_app                   # 127.0.0.1:3000, or the address given (also unix:/path)
//! curl http://127.0.0.1:3000/hello/world
//! kill -USR2 PID                                 # rolling restart; kill -TTIN PID adds a worker
//! ```
#![expect(
    clippy::print_stdout,
    reason = "an example shows what it does, and reacts to few of many events"
)]

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path};
use axum::routing::{get, post};
use phalanx::fleet::Amount;
use phalanx::{Address, ThisWorker, Workers};

fn main() -> phalanx::Result<()> {
    if phalanx::is_primary() {
        println!("primary {} is running", std::process::id());
    }
    phalanx::builder()
        .workers(Workers::Exactly(2))
        .tell(true)
        .max_surge(Amount::Count(1))
        .ready_timeout(Duration::from_secs(10))
        .drain_timeout(Duration::from_secs(20))
        .run(serve)
}

async fn serve(worker: ThisWorker) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let position = worker.position();
    let app = Router::new()
        .route("/", get(|| async { format!("pid = {}\n", std::process::id()) }))
        .route("/upload", post(|body: Bytes| async move { format!("{} bytes\n", body.len()) }))
        .route(
            "/hello/{name}",
            get(
                move |Path(name): Path<String>, ConnectInfo(peer): ConnectInfo<Address>| async move {
                    format!("hello {name} at {peer}, from position {position}\n")
                },
            ),
        );
    // For policies that go by load, and for `phalanx status`.
    let app = app.layer(worker.meter());
    let listener = worker.listen(address).await?;
    phalanx::serve(listener, app).await;
    Ok(())
}
