//! The recipe that the Node community writes by hand, with phalanx's low-level calls: on SIGUSR2
//! replace the workers one by one, each only after the one before it serves again.
//!
//! ```text
//! cargo run --example rolling_restart            # 127.0.0.1:3000, or the address given
//! curl http://127.0.0.1:3000/                    # answers with the worker's pid
//! kill -USR2 PID                                 # the primary's pid, printed at the start
//! ```
//! It starts the successor first, so that capacity never drops: the builder and the command do the
//! same, and also limit how long each step may take and go back when the new release fails.
#![expect(
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "an example shows what it does, and reacts to few of many events"
)]

use std::collections::VecDeque;

use axum::Router;
use axum::routing::get;
use phalanx::{Cluster, Event, Role, ThisWorker, Worker};
use tokio::signal::unix::{SignalKind, signal};

const WORKERS: usize = 2;

fn main() -> phalanx::Result<()> {
    match phalanx::init()? {
        Role::Primary(cluster) => primary(cluster).map_err(phalanx::Error::App),
        Role::Worker(worker) => work(worker),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn primary(cluster: Cluster) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    println!("primary {} is running", std::process::id());
    let mut reload = signal(SignalKind::user_defined2())?;
    let mut events = cluster.events();
    for _ in 0..WORKERS {
        cluster.fork()?;
    }
    // Those still to be replaced, and the one whose successor is starting.
    let mut old: VecDeque<Worker> = VecDeque::new();
    let mut successor: Option<(Worker, Worker)> = None;
    loop {
        tokio::select! {
            _ = reload.recv() => {
                println!("replacing {} workers", cluster.workers().len());
                old = cluster.workers().into();
            }
            Some(event) = events.next() => match event {
                Event::Listening { worker, .. } => {
                    if let Some((leaving, _)) = successor.take_if(|(_, new)| new.id() == worker) {
                        println!("worker {worker} serves: worker {} may leave", leaving.id());
                        leaving.disconnect();
                    }
                }
                Event::Exit { worker, exited_after_disconnect, .. } => {
                    println!("worker {worker} is gone");
                    old.retain(|waiting| waiting.id() != worker);
                    if !exited_after_disconnect {
                        cluster.fork()?;
                    }
                    // A successor that died is started again for the same old worker.
                    if let Some((leaving, _)) = successor.take_if(|(_, new)| new.id() == worker) {
                        old.push_front(leaving);
                    }
                }
                _ => {}
            },
        }
        let leaving = cluster
            .workers()
            .iter()
            .any(|worker| worker.exited_after_disconnect() == Some(true));
        if successor.is_none()
            && !leaving
            && let Some(next) = old.pop_front()
        {
            successor = Some((next, cluster.fork()?));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn work(worker: ThisWorker) -> phalanx::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let app = Router::new().route(
        "/",
        get(|| async { format!("pid = {}\n", std::process::id()) }),
    );
    let listener = worker.listen(address).await?;
    let served = axum::serve(listener, app)
        .with_graceful_shutdown(worker.draining())
        .await;
    served.map_err(|error| phalanx::Error::App(error.into()))
}
