//! The role: decided once, early, from the environment; and what becomes of workers without a primary.

use std::fs;
use std::os::unix::fs::symlink;

use phalanx_testkit::{LIMIT, Process, Signal, fixtures, procs, wait};
use serde_json::{Value, json};

use crate::probe::{Probe, command};

#[test]
fn a_worker_that_has_threads_already_is_refused_with_the_reason() {
    let mut command = command("threads");
    command
        .env("NODE_CHANNEL_FD", "3")
        .env("NODE_UNIQUE_ID", "1");
    let output = Process::run(command, LIMIT);
    assert_eq!(output.status.code(), Some(1));
    let reason = "before the first thread";
    assert!(output.stdout.contains(reason), "{}", output.stdout);
}

#[test]
fn a_primary_may_have_threads() {
    Process::run(command("threads"), LIMIT).expect_success();
}

#[test]
fn half_of_the_variables_makes_no_worker() {
    for name in ["NODE_UNIQUE_ID", "NODE_CHANNEL_FD"] {
        let mut probe = Probe::start_with(|command| {
            command.env(name, "3");
        });
        assert_eq!(probe.done(json!({"do": "role"}))["is_primary"], true);
        // And what it starts is its own worker.
        let (worker, _) = probe.fork();
        assert_eq!(probe.ask(worker, json!({"do": "about"}))["id"], 1);
    }
}

#[test]
fn a_channel_that_is_not_there_is_an_error() {
    for (number, id) in [("77", "1"), ("many", "1"), ("3", "one")] {
        let mut command = command("cluster");
        command
            .env("NODE_CHANNEL_FD", number)
            .env("NODE_UNIQUE_ID", id);
        let output = Process::run(command, LIMIT);
        assert_eq!(output.status.code(), Some(1), "{number} {id}");
        assert!(output.stderr.contains("NODE_"), "{}", output.stderr);
    }
}

#[test]
fn what_makes_a_worker_is_not_seen_by_its_children() {
    let mut probe = Probe::start();
    let (worker, pid) = probe.fork();
    let child = probe.ask(worker, json!({"do": "spawn"}));
    let own = probe.ask(worker, json!({"do": "about"}));
    for name in [
        "NODE_CHANNEL_FD",
        "NODE_UNIQUE_ID",
        "NODE_CHANNEL_SERIALIZATION_MODE",
    ] {
        assert_eq!(child["env"][name], Value::Null);
        assert_eq!(own["env"][name], Value::Null);
    }
    // Who they serve is of use to them.
    assert_eq!(child["env"]["PHALANX_WORKER_ID"], worker.to_string());
    assert!(procs::is_alive(pid));
}

#[test]
fn a_worker_inherits_its_channel_and_the_standard_streams_alone() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    probe.listen(first, "127.0.0.1:0");
    probe.done(json!({"do": "setup", "exec": "sleep", "args": ["1000"]}));
    let (worker, pid) = probe.fork();
    // While it starts it reads its libraries.
    let open = || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let mut open: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        open.sort();
        (open == ["0", "1", "2", "3"]).then_some(())
    };
    wait::eventually(LIMIT, "four descriptors", open);
    probe.done(json!({"do": "kill", "worker": worker}));
}

#[test]
fn a_worker_runs_what_is_deployed_at_the_path_by_then() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("current");
    symlink(fixtures::example("probe"), &path).unwrap();
    let mut start = std::process::Command::new(&path);
    start.arg("cluster");
    let mut process = Process::start_with_stdin(start);
    process.write_line(&json!({"do": "fork", "n": 1}).to_string());
    process.wait_for_line("\"event\":\"online\"", LIMIT);

    let release = directory.path().join("release");
    fs::write(&release, "#!/bin/sh\necho new release: $1\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&release, executable).unwrap();
    let link = directory.path().join("next");
    symlink(&release, &link).unwrap();
    fs::rename(&link, &path).unwrap();
    process.write_line(&json!({"do": "fork", "n": 2}).to_string());
    process.wait_for_line("new release: cluster", LIMIT);
}

#[test]
fn workers_do_not_outlive_a_primary_that_was_killed() {
    let mut probe = Probe::start();
    let (polite, first) = probe.fork();
    // One that has no ear for the end of its channel.
    let (stubborn, second) = probe.fork_with(json!({"PROBE_STUBBORN": "1"}));
    probe.event(polite, "online");
    probe.event(stubborn, "online");
    probe.process.signal(Signal::KILL);
    for pid in [first, second] {
        assert!(procs::wait_gone(pid, LIMIT), "{pid} lives on");
    }
}

#[test]
fn a_worker_whose_primary_ended_in_order_ends_too() {
    let mut probe = Probe::start();
    let (worker, pid) = probe.fork();
    probe.serve(worker, "127.0.0.1:0");
    probe.process.close_stdin();
    assert!(probe.process.wait_exit(LIMIT).success());
    assert!(procs::wait_gone(pid, LIMIT));
}
