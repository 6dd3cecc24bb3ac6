//! A program of the tests: a cluster that does what it is told and tells what happens.
//!
//! * `probe cluster`: the low-level style. The primary reads a command a line on its standard input
//!   and prints every event, and the answer to each command, as a line of JSON. Its workers take
//!   their commands as messages: see `worker.rs`.
//! * `probe builder ADDRESS WORKERS`: the high-level style, serving with axum.
//! * `probe supervisor ADDRESS`: the same, driven by commands on standard input.
//! * `probe threads`: decides its role when there is another thread already.
//!
//! With `PROBE_ROGUE` in its environment a worker speaks raw bytes: see `rogue.rs`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what a test's program did not expect is the test's failure"
)]

mod builder;
mod handles;
mod primary;
mod rogue;
mod serve;
mod supervisor;
mod worker;

use std::io::Write;

use phalanx::Role;
use serde_json::Value;

fn main() -> phalanx::Result<()> {
    if std::env::var_os("PROBE_ROGUE").is_some() && phalanx::is_worker() {
        rogue::run();
        return Ok(());
    }
    match std::env::args().nth(1).as_deref() {
        Some("builder") => return builder::run(),
        Some("threads") => return too_late(),
        Some("supervisor") => {
            return match phalanx::init()? {
                Role::Primary(_) => {
                    supervisor::run();
                    Ok(())
                }
                Role::Worker(worker) => builder::work(worker),
            };
        }
        _ => {}
    }
    match phalanx::init()? {
        Role::Primary(cluster) => {
            primary::run(cluster);
            Ok(())
        }
        Role::Worker(worker) => worker::run(&worker),
    }
}

fn too_late() -> phalanx::Result<()> {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || ended.recv());
    let role = phalanx::init().map_err(phalanx::Error::from);
    let answer = role
        .as_ref()
        .map_or_else(describe, |role| format!("{role:?}"));
    print(&Value::from(answer));
    drop(end);
    drop(other.join());
    role.map(|_| ())
}

/// An error with its causes, in one line.
fn describe(error: &phalanx::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Prints a line, whole.
fn print(value: &Value) {
    let line = format!("{value}\n");
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: then nobody misses it.
    drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
}
