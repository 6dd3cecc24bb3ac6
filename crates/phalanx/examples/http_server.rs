//! A CPU-heavy HTTP server on every core: each request sums a loop and answers with the sum, the time
//! it took and the worker's pid.
//!
//! ```text
//! cargo run --release --example http_server                       # 127.0.0.1:3000, a loop of 10 million steps
//! cargo run --release --example http_server -- 1000000000         # the billion-step loop
//! cargo run --release --example http_server -- 1000 127.0.0.1:8080
//!
//! curl http://127.0.0.1:3000/     # ask a few times: the pid changes from worker to worker
//! kill -USR2 PID                  # replaces all workers, one by one, without losing a request
//! phalanx status                  # the verbs of the command work on it: reload, scale, events, drill --name
//! kill PID                        # stops
//! ```
//! `PHALANX_WORKERS=1` runs a single worker, to compare.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example shows what it does, and reacts to few of many events"
)]

use std::hint::black_box;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use phalanx::{ThisWorker, Workers};

fn main() -> phalanx::Result<()> {
    let workers = std::env::var("PHALANX_WORKERS")
        .ok()
        .and_then(|count| count.parse().ok());
    let workers = workers.map_or(Workers::Auto, Workers::Exactly);
    if phalanx::is_primary() {
        println!("primary {}: http://{}", std::process::id(), address());
    }
    phalanx::builder().workers(workers).tell(true).run(serve)
}

async fn serve(worker: ThisWorker) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let steps = argument(1).map_or(Ok(10_000_000), |steps| steps.parse())?;
    let app = Router::new().route("/", get(move || async move { answer(steps) }));
    // For policies that go by response time.
    let app = app.layer(worker.meter());
    let listener = worker.listen(address()).await?;
    phalanx::serve(listener, app).await;
    Ok(())
}

fn answer(steps: u64) -> String {
    let start = Instant::now();
    let mut sum = 0_u64;
    for step in 0..steps {
        sum = black_box(sum.wrapping_add(step));
    }
    let pid = std::process::id();
    format!("sum = {sum}, time = {:?}, pid = {pid}\n", start.elapsed())
}

fn address() -> String {
    argument(2).unwrap_or_else(|| "127.0.0.1:3000".to_owned())
}

fn argument(index: usize) -> Option<String> {
    std::env::args().nth(index)
}
