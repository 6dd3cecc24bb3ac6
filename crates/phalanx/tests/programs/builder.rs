//! The high-level style. Environment variables choose what goes wrong.

use std::time::Duration;

use phalanx::fleet::Amount;
use phalanx::{Builder, ThisWorker, Workers};
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
    recycling(phalanx::builder())
        .ready_quiet(quiet)
        .workers(workers)
        .respawn(respawn)
        .ready_timeout(ready)
        .drain_timeout(Duration::from_secs(20))
        .run(serve)
}

/// Every worker is too old after a second, where a test says how many are to be replaced at once.
fn recycling(builder: Builder) -> Builder {
    let count = std::env::var("PROBE_RECYCLING").ok();
    match count.and_then(|count| count.parse().ok()) {
        Some(count) => builder
            .max_age(Duration::from_secs(1))
            .max_surge(Amount::Count(8))
            .max_recycling(count),
        None => builder,
    }
}

async fn serve(worker: ThisWorker) -> Result<(), Failed> {
    let first = std::env::args().nth(3).and_then(|count| count.parse().ok());
    if std::env::var_os("PROBE_RECYCLING").is_some() && first < Some(worker.id().0) {
        // A successor that never serves keeps its predecessor.
        worker.draining().await;
        return Ok(());
    }
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
