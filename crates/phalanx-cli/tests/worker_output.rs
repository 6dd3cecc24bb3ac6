//! What workers print, and what becomes of it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::process::Command;

use cluster::{app, get, pid_in};
use phalanx_testkit::app::is_settled;
use phalanx_testkit::control::Control;
use phalanx_testkit::lines::Stream;
use phalanx_testkit::{LIMIT, Load, Process, Signal, Target, fixtures, procs};
use serde_json::Value;

#[test]
fn output_is_passed_on_raw_where_it_is_no_terminal() {
    let mut app = app().workers(2).script("noisy.js").start();
    let target = app.address();
    let [one, two] =
        [get(&target, "/?lines=3"), get(&target, "/?lines=3")].map(|body| pid_in(&body));
    for pid in [one, two] {
        for line in 0..3 {
            app.wait_for_line(&format!("line {line} of pid {pid} "), LIMIT);
        }
    }
    let (stdout, stderr) = (
        app.lines().text(Stream::Stdout),
        app.lines().text(Stream::Stderr),
    );
    assert!(
        stdout
            .lines()
            .all(|line| line.starts_with("line ") || line.starts_with("listening on")),
        "{stdout}"
    );
    assert!(
        stderr
            .lines()
            .all(|line| line.starts_with("line ") || line.starts_with("phalanx: ")),
        "{stderr}"
    );
}

#[test]
fn output_on_a_terminal_is_marked_with_the_position() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let mut command = Command::new("script");
    let run = format!(
        "{} run --name app -n 2 {}",
        cluster::PHALANX,
        fixtures::fixture("http.js").display()
    );
    command
        .args(["-qefc", &run, "/dev/null"])
        .env("XDG_RUNTIME_DIR", directory.path());
    let mut process = Process::start(command);
    process.wait_for_line("[0] listening on ", LIMIT);
    process.wait_for_line("[1] listening on ", LIMIT);
    process.wait_for_line("phalanx: ready: 2 of 2 workers", LIMIT);
    let status = control_of(&directory)
        .request("GET", "/v1/status", None, LIMIT)
        .unwrap()
        .json();
    procs::signal(primary_pid(&status), Signal::TERM);
    assert!(process.wait_exit(LIMIT).success());
    process.wait_family_gone(LIMIT);
}

fn primary_pid(status: &Value) -> u32 {
    u32::try_from(status["pid"].as_u64().unwrap()).unwrap()
}

/// The control socket of the app `app` in this runtime directory.
fn control_of(directory: &tempfile::TempDir) -> Control {
    Control::new(directory.path().join("phalanx/app.sock"))
}

#[test]
fn a_reader_of_the_output_that_stops_does_not_stop_the_workers() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let script = format!(
        "{} run --name app -n 2 {} | sh -c 'echo reader $$ >&2; exec cat >/dev/null'",
        cluster::PHALANX,
        fixtures::fixture("noisy.js").display()
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .env("XDG_RUNTIME_DIR", directory.path());
    let mut process = Process::start(command);
    let line = process.wait_for_line("reader ", LIMIT);
    let reader = line["reader ".len()..].parse().unwrap();
    process.wait_for_line("phalanx: ready: 2 of 2 workers", LIMIT);
    assert!(procs::signal(reader, Signal::STOP));
    let control = control_of(&directory);
    let status = control
        .request("GET", "/v1/status", None, LIMIT)
        .unwrap()
        .json();
    let target: Target = status["listeners"][0]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    // 12 MB on each stream: more than pipes and queues hold.
    let load = Load::new(target)
        .path("/?lines=2000")
        .clients(2)
        .requests(60);
    load.run().expect_none_lost();
    assert!(is_settled(
        &control
            .request("GET", "/v1/status", None, LIMIT)
            .unwrap()
            .json()
    ));
    assert!(procs::signal(reader, Signal::CONT));
    process.wait_for_line(
        "lines of worker output: the reader of stdout is too slow",
        LIMIT,
    );
    procs::signal(primary_pid(&status), Signal::TERM);
    assert!(process.wait_exit(LIMIT).success());
    process.wait_family_gone(LIMIT);
}

#[test]
fn a_json_log_is_nothing_but_json_and_says_whose_line_it_is() {
    if phalanx_testkit::node::require().is_none() {
        return;
    }
    let mut app = app()
        .workers(1)
        .option("--log-format=json")
        .script("escapes.js")
        .start_ready();
    app.wait_for_line("cannot listen on", LIMIT);
    app.wait_for_line(&"x".repeat(200_000), LIMIT);
    assert!(app.stop().success());
    let mut wrapped = Vec::new();
    for stream in [Stream::Stdout, Stream::Stderr] {
        for line in app.lines().text(stream).lines() {
            assert!(!line.contains('\u{1b}'), "{line}");
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["time"].is_u64(), "{line}");
            assert_ne!(line["text"], "forged");
            if line["event"] == "output" {
                assert_eq!((&line["worker"], &line["position"]), (&1.into(), &0.into()));
                wrapped.push((line["stream"].clone(), line["text"].as_str().unwrap().len()));
            }
        }
    }
    for stream in ["stdout", "stderr"] {
        let long = |(from, length): &(Value, usize)| *from == *stream && *length == 200_000;
        assert!(wrapped.iter().any(long), "{stream}: {wrapped:?}");
    }
}

#[test]
fn what_workers_choose_neither_steers_a_terminal_nor_passes_for_a_line_of_the_log() {
    if phalanx_testkit::node::require().is_none() {
        return;
    }
    let mut app = app().workers(1).script("escapes.js").start_ready();
    app.wait_for_line("cannot listen on", LIMIT);
    let status = app.verb(["status"]).expect_success();
    assert!(app.stop().success());
    let log = app.lines().text(Stream::Stderr);
    let own: Vec<_> = log
        .lines()
        .filter(|line| line.starts_with("phalanx: "))
        .collect();
    assert!(!own.contains(&"phalanx: forged"), "{own:?}");
    assert!(!own.concat().contains('\u{1b}') && !status.stdout.contains('\u{1b}'));
    assert!(own.concat().contains("\\u{1b}"), "{own:?}");
}
