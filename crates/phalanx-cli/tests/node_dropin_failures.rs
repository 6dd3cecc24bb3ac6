//! Programs with a primary of their own, by Node's `cluster`: what happens when a part of phalanx fails, or is not there.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use cluster::dropin::{LIMIT, Primary, WAYS};
use cluster::free_port;
use phalanx_testkit::load::RunningLoad;
use phalanx_testkit::{Load, Mode, node, procs, wait};
use rustix::process::Signal;

/// Eight clients that keep their connections and pause between requests.
fn kept_clients(primary: &Primary) -> RunningLoad {
    Load::new(primary.target.clone())
        .mode(Mode::KeepAlive)
        .clients(8)
        .pause(Duration::from_millis(10))
        .start()
}

#[test]
fn an_engine_that_is_killed_under_load_is_replaced_and_nobody_notices() {
    for (node, way) in node::with_ways(&WAYS) {
        let (mut primary, name) = Primary::start_by(&node, way);
        let load = kept_clients(&primary);
        load.wait_until_ok(100, LIMIT);
        for kills in 1..=3 {
            let engine = primary.engine();
            assert!(procs::signal(engine, Signal::KILL));
            primary.wait_for("the next one goes on", kills);
            wait::eventually(LIMIT, "another engine", || {
                (primary.engine() != engine).then_some(())
            });
            // It takes connections when it has everything back.
            let answers = primary.answers(10);
            assert_eq!(answers.values().sum::<usize>(), 10, "{name}: {answers:?}");
            load.wait_for_more(50, LIMIT);
        }
        // Both halves are those of before, and so is the turn; where a worker had to wait for a processor, it has missed one.
        wait::eventually(LIMIT, &name, || {
            let answers = primary.answers(10);
            answers.values().all(|count| *count == 5).then_some(())
        });
        primary.process.write_line("broadcast 7");
        primary.wait_for(" 7 true", 2);
        assert_eq!(primary.count("exit "), 0, "{name}: {}", primary.text());
        // And workers leave as politely.
        primary.restart();
        load.wait_for_more(24, LIMIT);
        let report = load.stop();
        assert_eq!(report.disturbed(), 0, "{name}: {report}");
        assert_eq!(primary.count("exit "), 2, "{name}: {}", primary.text());
    }
}

/// A worker that was told of it may not have read it yet.
#[test]
fn the_script_of_workers_outlives_the_engine_that_has_named_it() {
    let Some(node) = node::require() else { return };
    let primary = Primary::start(&node, &[]);
    let worker = primary.process.wait_for_line("listening", LIMIT);
    let worker = worker.rsplit(' ').next().unwrap();
    let told = ["cmdline", "environ"]
        .map(|file| std::fs::read(format!("/proc/{worker}/{file}")).unwrap())
        .concat();
    let told = String::from_utf8_lossy(&told);
    let mut words = told.split(['\0', '"', ' ']);
    let script = words.find(|word| word.ends_with("/worker.cjs")).unwrap();
    assert!(Path::new(script).exists());
    assert!(procs::signal(primary.engine(), Signal::KILL));
    primary.wait_for("the next one goes on", 1);
    primary.restart();
    assert!(Path::new(script).exists(), "{script}");
}

#[test]
fn an_engine_goes_on_without_its_holder() {
    let Some(node) = node::require() else { return };
    // The next engine opens it anew.
    let port = free_port().to_string();
    let primary = Primary::start(&node, &[("PORT", &port)]);
    let engine = primary.engine();
    let holder = primary.process_of("hold");
    assert!(procs::signal(holder, Signal::KILL));
    primary.restart();
    assert_eq!(primary.answers(10).len(), 2);
    assert_eq!(primary.engine(), engine);
    // Without a holder, workers end with their engine, and the program starts others, with another engine.
    assert!(procs::signal(engine, Signal::KILL));
    primary.wait_for("listening", 6);
    assert_ne!(primary.engine(), engine);
    assert_eq!(primary.answers(10).len(), 2);
    assert_eq!(primary.count("exit "), 4, "{}", primary.text());
}

#[test]
fn nothing_outlives_a_primary_that_is_killed_under_load() {
    let Some(node) = node::require() else { return };
    for dispatch in ["handoff", "auto"] {
        let mut primary = Primary::start(&node, &[("PHALANX_DISPATCH", dispatch)]);
        assert!(primary.process.family().len() >= 4);
        let load = kept_clients(&primary);
        load.wait_until_ok(50, LIMIT);
        primary.process.signal(Signal::KILL);
        primary.process.wait_exit(LIMIT);
        // A second on a machine that is quiet; this bound holds beside others.
        primary.process.wait_family_gone(Duration::from_secs(10));
        drop(load.stop());
    }
}

#[test]
fn without_a_program_the_app_runs_on_plain_node_and_says_why_once() {
    let Some(node) = node::require() else { return };
    let mut primary = Primary::start(&node, &[("PHALANX_BINARY", "/nowhere/phalanx")]);
    assert_eq!(primary.answers(4).len(), 2);
    let told = "phalanx-cluster: this program runs on plain Node: /nowhere/phalanx cannot be executed (ENOENT)";
    primary.wait_for(told, 1);
    primary.process.write_line("end");
    primary.wait_for("all are gone", 1);
    primary.process.close_stdin();
    let status: ExitStatus = primary.process.wait_exit(LIMIT);
    assert!(status.success());
    assert_eq!(primary.count("phalanx-cluster:"), 1);
}

/// Starts with this script in place of the program, and expects plain Node and the reason on one line.
fn expect_plain(script: &str, reason: &str) {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("phalanx");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let program = program.to_str().unwrap();
    let mut primary = Primary::start(&node, &[("PHALANX_BINARY", program)]);
    assert_eq!(primary.answers(4).len(), 2);
    let told = format!("phalanx-cluster: this program runs on plain Node: {program} {reason}");
    primary.wait_for(&told, 1);
    assert_eq!(primary.count("phalanx-cluster:"), 1);
    let text = primary.text();
    assert!(
        text.find("phalanx-cluster:") < text.find("listening"),
        "{text}"
    );
    primary.process.write_line("end");
    primary.wait_for("all are gone", 1);
    primary.process.close_stdin();
    assert!(primary.process.wait_exit(LIMIT).success());
}

#[test]
fn a_program_of_another_version_is_not_used() {
    expect_plain(
        "#!/bin/sh\necho phalanx 0.0.9\n",
        "is phalanx 0.0.9, and this package is phalanx-cluster ",
    );
}

#[test]
fn a_program_that_cannot_run_is_not_used() {
    // As of another processor.
    expect_plain("\x7fELF\x02\x01\x01", "cannot be executed (");
    expect_plain("#!/bin/sh\nkill -ILL $$\n", "cannot be executed (SIGILL)");
    expect_plain(
        "#!/bin/sh\necho no libc >&2; exit 127\n",
        "cannot be executed (127)",
    );
}
