//! Messages both ways: the primary greets all workers, each worker answers, and when all have
//! answered the cluster says goodbye.
//!
//! ```text
//! cargo run --example broadcast
//! ```
#![expect(
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "an example shows what it does, and reacts to few of many events"
)]

use phalanx::{Cluster, Event, Role, ThisWorker};
use serde::{Deserialize, Serialize};

const WORKERS: usize = 3;

#[derive(Serialize, Deserialize)]
struct Greeting {
    hello: String,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    from_pid: u32,
    text: String,
}

fn main() -> phalanx::Result<()> {
    // The role is decided here, before the async runtime exists.
    match phalanx::init()? {
        Role::Primary(cluster) => primary(cluster),
        Role::Worker(worker) => work(worker),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn primary(cluster: Cluster) -> phalanx::Result<()> {
    let mut events = cluster.events();
    for _ in 0..WORKERS {
        cluster.fork()?;
    }
    let (mut online, mut answers) = (0, 0);
    while let Some(event) = events.next().await {
        match event {
            Event::Online { worker } => {
                println!("worker {worker} is online");
                online += 1;
                if online == WORKERS {
                    for worker in cluster.workers() {
                        let hello = format!("worker {}", worker.id());
                        worker.send(&Greeting { hello })?;
                    }
                }
            }
            Event::Message { worker, message } => {
                let answer: Answer = message.parse()?;
                println!(
                    "worker {worker} (pid {}) says: {}",
                    answer.from_pid, answer.text
                );
                answers += 1;
                if answers == WORKERS {
                    cluster.disconnect().await;
                    println!("all have left");
                    break;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn work(worker: ThisWorker) -> phalanx::Result<()> {
    tokio::select! {
        Some(greeting) = worker.message::<Greeting>() => {
            let text = format!("hello, I am {}", greeting?.hello);
            worker.send(&Answer { from_pid: std::process::id(), text })?;
        }
        () = worker.draining() => return Ok(()),
    }
    worker.draining().await;
    Ok(())
}
