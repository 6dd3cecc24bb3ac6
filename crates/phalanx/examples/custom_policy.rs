//! A policy of the program's own: the lowest position takes connections until it has ten open, then the next one does.
//!
//! ```text
//! cargo run --example custom_policy -- 127.0.0.1:3000
//! curl http://127.0.0.1:3000/     # one at a time, every request goes to position 0
//! ```
#![expect(
    clippy::print_stdout,
    reason = "an example shows what it does, and reacts to few of many events"
)]

use axum::Router;
use axum::routing::get;
use phalanx::policy::{Field, Policy};
use phalanx::{Position, ThisWorker, Workers};

#[derive(Debug)]
struct FillUp;

impl Policy for FillUp {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let mut eligible = field.eligible.iter();
        let free = eligible.find(|&position| field.loads.load(position).open < 10);
        free.or_else(|| field.eligible.first())
    }
}

fn main() -> phalanx::Result<()> {
    phalanx::builder()
        .workers(Workers::Exactly(2))
        .custom_policy(|| Box::new(FillUp))
        .run(serve)
}

async fn serve(worker: ThisWorker) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let position = worker.position();
    let app = Router::new().route(
        "/",
        get(move || async move { format!("position = {position}\n") }),
    );
    // Open connections are what the policy goes by.
    let app = app.layer(worker.meter());
    let listener = worker.listen(address).await?;
    println!("position {position} listens on {}", listener.local_addr());
    phalanx::serve(listener, app).await;
    Ok(())
}
