//! The high-level style. Environment variables choose what goes wrong.

use std::time::Duration;

use phalanx::{ThisWorker, Workers};
use serde_json::json;

use crate::serve;

type Failed = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn run() -> phalanx::Result<()> {
    let workers = std::env::args()
        .nth(3)
        .and_then(|count| count.parse().ok())
        .map_or(Workers::Auto, Workers::Exactly);
    let respawn = std::env::var_os("PROBE_NO_RESPAWN").is_none();
    let ready = if std::env::var_os("PROBE_NEVER_READY").is_some() {
        Duration::from_millis(200)
    } else {
        Duration::from_secs(30)
    };
    // Without respawning, the first worker that ends ends the test: it is to count as ready at once.
    let quiet = if respawn {
        phalanx::Settings::READY_QUIET
    } else {
        Duration::ZERO
    };
    phalanx::builder()
        .ready_quiet(quiet)
        .workers(workers)
        .respawn(respawn)
        .ready_timeout(ready)
        .drain_timeout(Duration::from_secs(20))
        .run(serve)
}

async fn serve(worker: ThisWorker) -> Result<(), Failed> {
    if std::env::var_os("PROBE_FAIL").is_some() {
        return Err("told to fail".into());
    }
    if std::env::var_os("PROBE_NEVER_READY").is_some() {
        worker.draining().await;
        return Ok(());
    }
    let address = std::env::args().nth(2).unwrap_or_default();
    let listener = worker.listen(address).await?;
    let address = listener.local_addr().to_string();
    crate::print(&json!({"serves": worker.id(), "position": worker.position(), "at": address}));
    serve::axum_app(listener, worker).await;
    Ok(())
}

/// A worker as the builder has it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn work(worker: ThisWorker) -> phalanx::Result<()> {
    serve(worker).await.map_err(phalanx::Error::App)
}
