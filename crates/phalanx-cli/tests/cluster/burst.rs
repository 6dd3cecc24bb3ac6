//! More connections at once than a worker takes, with dispatch in the kernel.

use std::collections::BTreeMap;

use phalanx_sys::steering::Steering;
use phalanx_testkit::{App, LIMIT, Signal, Target, missing, procs};

use super::{answer, ask, connect};

/// Can connections be dispatched in the kernel here?
pub(crate) fn can_steer() -> bool {
    match Steering::available() {
        Ok(()) => true,
        Err(error) => {
            missing!("dispatch in the kernel: {error}");
            false
        }
    }
}

/// Stops a worker as `SIGSTOP` does.
pub(crate) fn pause(app: &mut App, pid: u32) {
    assert!(app.worker_pids().contains(&pid));
    procs::suspend(pid);
}

/// Lets connections queue up for the only worker, until the primary has seen it; they are answered then. The app has
/// to tell what `-v` tells.
pub(crate) fn burst(app: &mut App, target: &Target) {
    let pid = app.worker_pids()[0];
    let mark = app.lines().count();
    pause(app, pid);
    let mut clients: Vec<_> = (0..12).map(|_| connect(target).unwrap()).collect();
    let told = |line: &str| line.contains("is told to accept in batches");
    app.lines()
        .wait_after(mark, LIMIT, "word of the burst", told);
    assert!(procs::signal(pid, Signal::CONT));
    for client in &mut clients {
        ask(client.as_mut(), "/").unwrap();
        answer(client.as_mut()).unwrap();
    }
}

/// The most descriptors that a process has of one socket.
pub(crate) fn duplicates(pid: u32) -> usize {
    let mut counts = BTreeMap::new();
    for target in procs::fd_targets(pid) {
        if target.starts_with("socket:") {
            *counts.entry(target).or_insert(0) += 1;
        }
    }
    counts.into_values().max().unwrap_or(0)
}
