//! What a parent leaves to the primary, and what the primary leaves to its workers: signals and limits.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::support;

use std::process::Command;

use phalanx_testkit::{LIMIT, Process, Signal, require};

/// `phalanx run` with these words, by a parent that has done `first` in Python; nothing without Python.
fn run_after(first: &str, words: &[&str]) -> Option<(Process, tempfile::TempDir)> {
    require("python3")?;
    let directory = support::directory();
    let text =
        format!("import os, resource, signal, sys\n{first}\nos.execv(sys.argv[1], sys.argv[1:])");
    let mut command = Command::new("python3");
    command.args(["-c", &text, support::PHALANX, "run"]);
    command.args(["-n", "1", "--adopt", "none"]).args(words);
    command.env("PHALANX_RUNTIME_DIR", directory.path());
    Some((Process::start(command), directory))
}

#[test]
fn with_sigchld_inherited_as_ignored_ends_are_told_truly() {
    let ignored = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)";
    let script = ["sh", "-c", "sleep 0.1; kill -9 $$"];
    let Some((mut run, _directory)) = run_after(ignored, &script) else {
        return;
    };
    run.wait_for_line("crashed: signal 9", LIMIT);
    run.signal(Signal::TERM);
    run.wait_exit(LIMIT);
}

#[test]
fn signals_that_a_parent_has_blocked_are_heard() {
    let blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))";
    let Some((mut run, _directory)) = run_after(blocked, &["sleep", "600"]) else {
        return;
    };
    run.wait_for_line("ready: 1 of 1 worker", LIMIT);
    run.signal(Signal::TERM);
    assert!(run.wait_exit(LIMIT).success());
}

/// Programs that use select(2) count on never being given a descriptor above 1023.
#[test]
fn workers_have_the_limit_of_open_files_that_the_primary_was_started_with() {
    let lowered = "resource.setrlimit(resource.RLIMIT_NOFILE, (333, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))";
    let script = ["sh", "-c", "echo limit $(ulimit -Sn); sleep 600"];
    let Some((mut run, _directory)) = run_after(lowered, &script) else {
        return;
    };
    run.wait_for_line("limit 333", LIMIT);
    run.signal(Signal::TERM);
    assert!(run.wait_exit(LIMIT).success());
}
