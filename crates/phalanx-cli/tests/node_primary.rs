//! `phalanx run --primary`: programs with a primary of their own, supervised.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster::dropin::{LIMIT, Primary};
use cluster::{PHALANX, free_port};
use phalanx_testkit::fixtures::fixture;
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::{Load, Mode, Process, procs, wait};
use rustix::process::Signal;

fn run(node: &NodeBinary, script: &str, directory: &Path) -> Primary {
    Primary::of(Process::start_with_stdin(command(node, script, directory)))
}

fn command(node: &NodeBinary, script: &str, directory: &Path) -> Command {
    let mut command = Command::new(PHALANX);
    command
        .args([
            "run",
            "--primary",
            "--name",
            "own",
            "--drain-timeout",
            "7s",
            "--node",
        ])
        .arg(&node.path)
        .args((!script.is_empty()).then(|| fixture(script)))
        .env("PORT", free_port().to_string())
        .env("XDG_RUNTIME_DIR", directory)
        .env("PHALANX_RUNTIME_DIR", directory);
    command
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
    for (option, value) in [
        ("--workers", "2"),
        ("--kill-timeout", "1s"),
        ("--max-surge", "2"),
    ] {
        let mut refused = Command::new(PHALANX);
        refused.args(["run", "--primary", option, value, "main.js"]);
        let refused = Process::run(refused, LIMIT);
        assert_eq!(refused.status.code(), Some(64), "{option}");
        assert!(refused.stderr.contains(option), "{}", refused.stderr);
    }
}

/// Waits until the service manager was told this.
fn wait_told(manager: &UnixDatagram, line: &str) {
    let mut buffer = [0; 4096];
    wait::eventually(LIMIT, line, || {
        let length = manager.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        text.lines().any(|one| one == line).then_some(())
    });
}

#[test]
fn the_service_manager_is_told_when_a_worker_listens_and_that_the_end_begins() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut command = command(&node, "dropin/plain.js", directory.path());
    command
        .env("NOTIFY_SOCKET", directory.path().join("notify"))
        .env("WATCHDOG_USEC", "500000");
    let mut app = Primary::of(Process::start_with_stdin(command));
    wait_told(&manager, "READY=1");
    assert!(app.count("listening") >= 1, "{}", app.text());
    wait_told(&manager, "WATCHDOG=1");
    app.process.signal(Signal::TERM);
    wait_told(&manager, "STOPPING=1");
    assert!(app.process.wait_exit(LIMIT).success());
}

#[test]
fn the_drain_timeout_reaches_the_engine() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let command = command(&node, "dropin/plain.js", directory.path());
    let mut app = Primary::of(Process::start_with_stdin(command));
    let env = std::fs::read(format!("/proc/{}/environ", primary_of(&app, None))).unwrap();
    assert!(String::from_utf8_lossy(&env).contains("PHALANX_DRAIN_TIMEOUT=7000ms"));
    app.process.signal(Signal::TERM);
    assert!(app.process.wait_exit(LIMIT).success());
}

/// How many sockets of the control socket are in this state: 01 listens, 03 is connected (`/proc/net/unix`).
fn sockets(directory: &Path, state: &str) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let directory = directory.to_str().unwrap();
    let lines = table
        .lines()
        .filter(|line| line.contains(directory) && line.ends_with("/own.sock"));
    lines
        .filter(|line| line.split_whitespace().nth(5) == Some(state))
        .count()
}

#[test]
fn a_drill_right_after_the_start_waits_for_the_first_listener() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("late.js");
    // The engine is there with the first worker, which listens when the file is there.
    let text = "const cluster = require('cluster');
        if (cluster.isPrimary) cluster.fork();
        else {
          const server = require('http').createServer((_, answer) => answer.end('x'));
          const look = () => (require('fs').existsSync(process.argv[2]) ? server.listen(0, '127.0.0.1') : setTimeout(look, 20));
          look();
        }";
    std::fs::write(&script, text).unwrap();
    let listens = directory.path().join("listens");
    let mut command = command(&node, "", directory.path());
    command.arg(&script).arg(&listens);
    let mut app = Process::start(command);
    wait::eventually(LIMIT, "the engine", || {
        (sockets(directory.path(), "01") > 0).then_some(())
    });
    let mut drill = Command::new(PHALANX);
    drill
        .args(["drill", "--name", "own", "--for", "1s", "--reloads", "0"])
        .env("XDG_RUNTIME_DIR", directory.path())
        .env("PHALANX_RUNTIME_DIR", directory.path());
    let mut drill = Process::start(drill);
    wait::eventually(LIMIT, "the drill's connection", || {
        (sockets(directory.path(), "03") > 0).then_some(())
    });
    std::fs::write(&listens, "").unwrap();
    assert!(drill.wait_exit(LIMIT).success());
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
}
