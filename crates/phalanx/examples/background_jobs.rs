//! Workers that serve nobody and do jobs: each is ready when it runs, and finishes its job when it is asked to leave.
//!
//! ```text
//! cargo run --example background_jobs
//! kill -USR2 PID                      # replaces both workers; no job is cut off
//! ```
#![expect(
    clippy::print_stdout,
    reason = "an example shows what it does, and reacts to few of many events"
)]

use std::time::Duration;

use phalanx::{Readiness, Settings, ThisWorker, Workers};
use tokio::time::interval;

fn main() -> phalanx::Result<()> {
    if phalanx::is_primary() {
        println!("primary {} is running", std::process::id());
    }
    phalanx::builder()
        .workers(Workers::Exactly(2))
        .settings(Settings::new().readiness(Readiness::Exec))
        .run(work)
}

async fn work(worker: ThisWorker) -> phalanx::Result<()> {
    let mut due = interval(Duration::from_millis(100));
    let mut jobs = 0;
    loop {
        tokio::select! {
            () = worker.draining() => break,
            _ = due.tick() => {
                jobs += 1;
                println!("worker {} did job {jobs}", worker.id());
            }
        }
    }
    println!("worker {} leaves after {jobs} jobs", worker.id());
    Ok(())
}
