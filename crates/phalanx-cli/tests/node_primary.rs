//! `phalanx run --primary`: programs with a primary of their own, supervised.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::path::Path;
use std::process::Command;

use cluster::dropin::{LIMIT, Primary};
use cluster::{PHALANX, free_port};
use phalanx_testkit::fixtures::fixture;
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::{Load, Mode, Process, procs, wait};
use rustix::process::Signal;

fn run(node: &NodeBinary, script: &str, directory: &Path) -> Primary {
    let mut command = Command::new(PHALANX);
    command
        .args(["run", "--primary", "--name", "own", "--node"])
        .arg(&node.path)
        .arg(fixture(script))
        .env("PORT", free_port().to_string())
        .env("XDG_RUNTIME_DIR", directory)
        .env("PHALANX_RUNTIME_DIR", directory);
    Primary::of(Process::start_with_stdin(command))
}

fn verb(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new(PHALANX);
    command
        .args(words)
        .args(["--name", "own"])
        .env("XDG_RUNTIME_DIR", directory)
        .env("PHALANX_RUNTIME_DIR", directory);
    Process::run(command, LIMIT).expect_success().stdout
}

/// Node's primary, which is not `not`.
fn primary_of(app: &Primary, not: Option<u32>) -> u32 {
    let is_it = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&words).into_owned();
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_worker = String::from_utf8_lossy(&env).contains("NODE_UNIQUE_ID");
        text.contains("register.cjs") && !is_worker && Some(*pid) != not
    };
    wait::eventually(LIMIT, "Node's primary", || {
        app.process.family().into_iter().find(is_it)
    })
}

#[test]
fn a_primary_is_started_again_and_its_own_handlers_are_called() {
    for node in node::require_versions() {
        let directory = tempfile::tempdir().unwrap();
        let mut app = run(&node, "dropin/main.js", directory.path());
        assert_eq!(app.answers(10).len(), 2);
        // Its handler of SIGUSR2, by the signal and by the verb.
        app.restart();
        verb(directory.path(), &["reload"]);
        app.wait_for("restarted", 2);
        let status: serde_json::Value =
            serde_json::from_str(&verb(directory.path(), &["status", "--json"])).unwrap();
        assert_eq!(status["target"], 2, "{status}");

        let before = (primary_of(&app, None), app.count("listening"));
        assert!(procs::signal(before.0, Signal::KILL));
        app.wait_for("started again", 1);
        app.wait_for("listening", before.1 + 2);
        assert_ne!(primary_of(&app, Some(before.0)), before.0);
        assert_eq!(app.answers(10).len(), 2, "Node {}", node.major);
        // It has no handler of SIGTERM: its workers finish, and it ends.
        app.process.signal(Signal::TERM);
        assert!(app.process.wait_exit(LIMIT).success());
        app.process.wait_family_gone(LIMIT);
    }
}

#[test]
fn a_primary_without_handlers_reloads_scales_and_stops() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut app = run(&node, "dropin/plain.js", directory.path());
    let load = Load::new(app.target.clone())
        .mode(Mode::KeepAlive)
        .clients(8)
        .start();
    load.wait_until_ok(50, LIMIT);
    app.process.signal(Signal::USR2);
    app.wait_for("exit ", 2);
    verb(directory.path(), &["reload"]);
    app.wait_for("exit ", 4);
    verb(directory.path(), &["scale", "3"]);
    app.wait_for("listening", 7);
    load.wait_for_more(24, LIMIT);
    let report = load.stop();
    assert_eq!(report.disturbed(), 0, "{report}");
    let drilled = verb(
        directory.path(),
        &["drill", "--for", "3s", "--reloads", "1"],
    );
    assert!(drilled.contains("nothing lost"), "{drilled}");
    verb(directory.path(), &["stop"]);
    assert!(app.process.wait_exit(LIMIT).success());
    app.process.wait_family_gone(LIMIT);
}

#[test]
fn a_primary_that_cannot_start_is_an_error_at_once() {
    let Some(_) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("broken.js");
    std::fs::write(&script, "process.exit(3)").unwrap();
    let mut command = Command::new(PHALANX);
    command.args(["run", "--primary"]).arg(script);
    let ended = Process::run(command, LIMIT);
    assert!(
        ended.stderr.contains("broken ended with status 3"),
        "{}",
        ended.stderr
    );
    let mut refused = Command::new(PHALANX);
    refused.args(["run", "--primary", "-n", "2", "main.js"]);
    assert!(Process::run(refused, LIMIT).stderr.contains("--workers"));
}
