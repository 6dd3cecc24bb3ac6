//! A program that takes its time to be executed, as one on a slow disk or one that a scanner looks at first.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::process::Command;

use cluster::{app, get, pid_in};
use phalanx_testkit::{LIMIT, Process, fixtures, node, require};

#[test]
fn the_primary_goes_on_while_a_successor_is_being_executed() {
    let (Some(node), Some(_)) = (node::require(), require("python3")) else {
        return;
    };
    if !phalanx_sys::identity::is_root() {
        return;
    }
    // A copy of its own, which nobody else executes.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("node");
    fixtures::copy_program(&node.path, &program);
    let mut app = app()
        .workers(1)
        .options(["--dispatch", "handoff"])
        .command([&program])
        .arg(fixtures::fixture("http.js"))
        .start_ready();
    let target = app.address();
    let mut holder = Command::new("python3");
    holder.arg(fixtures::fixture("programs/holds_exec.py"));
    let mut holder = Process::start_with_stdin({
        holder.arg(&program);
        holder
    });
    holder.wait_for_line("holds", LIMIT);
    let reload = app.start_verb(["reload"]);
    holder.wait_for_line("held", LIMIT);
    // Handoff and the control socket are served by the one event loop.
    let predecessor = pid_in(&get(&target, "/"));
    assert_eq!(app.worker_pids()[0], predecessor);
    holder.write_line("go on");
    reload.finish(LIMIT).expect_success();
    assert_ne!(pid_in(&get(&target, "/")), predecessor);
    assert!(app.stop().success());
}
