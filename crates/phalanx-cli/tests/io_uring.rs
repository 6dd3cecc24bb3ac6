//! Listeners that a program opens by `io_uring(7)`: no filter sees that, so phalanx has no part in them, and says so.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{app, free_port, get, pid_in};
use phalanx_testkit::{LIMIT, Process, Target, fixtures, missing, require};

/// The program, if there is a compiler and the system lets it bind and listen so.
fn program(place: &Path) -> Option<PathBuf> {
    let compiler = require("cc")?;
    let program = place.join("uring");
    let mut compile = Command::new(compiler);
    compile.arg("-o").arg(&program);
    compile.arg(fixtures::fixture("programs/uring.c"));
    Process::run(compile, LIMIT).expect_success();
    let tried = Process::run(Command::new(&program), LIMIT);
    if tried.status.code() == Some(3) {
        missing!(
            "io_uring with bind and listen (Linux 6.11): {}",
            tried.stderr.trim()
        );
        return None;
    }
    tried.expect_success();
    Some(program)
}

#[test]
fn workers_that_listen_by_io_uring_are_told_of_and_not_reloaded_unasked() {
    let place = tempfile::tempdir().unwrap();
    let Some(program) = program(place.path()) else {
        return;
    };
    let port = free_port();
    let target = Target::Tcp(([127, 0, 0, 1], port).into());
    let builder = app().workers(2).options(["--adopt", "intercept"]);
    let mut app = builder
        .command([program])
        .arg(port.to_string())
        .start_ready();
    app.wait_for_line("listens only where phalanx has no part in it", LIMIT);
    app.wait_status(LIMIT, |status| status["unseen"] == 2);
    let before = app.worker_pids();
    assert!(before.contains(&pid_in(&get(&target, "/"))));

    let refused = app.verb(["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--allow-unseen"), "{refused:?}");
    assert_eq!(app.worker_pids(), before);
    for _ in 0..4 {
        assert!(before.contains(&pid_in(&get(&target, "/"))));
    }
    app.verb(["reload", "--allow-unseen"]).expect_success();
    let after = app.worker_pids();
    assert!(after.iter().all(|pid| !before.contains(pid)), "{after:?}");
    assert!(after.contains(&pid_in(&get(&target, "/"))));
    assert!(app.stop().success());
}
