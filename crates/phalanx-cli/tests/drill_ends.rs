//! Drills that do not begin, and drills that do not come to their end.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::support;

use phalanx_testkit::wait::eventually;
use phalanx_testkit::{LIMIT, Process, Signal, node};
use support::{directory, expect_refused, fixture, phalanx, run_alone};

#[test]
fn an_interrupted_drill_reports_what_it_saw_and_leaves_nothing_behind() {
    if node::require().is_none() {
        return;
    }
    let place = directory();
    let script = fixture("http.js");
    let temp = place.path().join("tmp");
    std::fs::create_dir(&temp).unwrap();
    let words = [
        "drill", "--json", "--for", "10m", "--rate", "100", "-n", "2", "--mix", "new", "--",
        &script,
    ];
    let mut command = phalanx(place.path(), &words);
    command.env("TMPDIR", &temp);
    let drill = Process::start(command);
    // The drill, its primary and two workers.
    eventually(LIMIT, "the cluster", || {
        (drill.family().len() >= 4).then_some(())
    });
    drill.signal(Signal::INT);
    drill.wait_family_gone(LIMIT);
    let output = drill.finish(LIMIT);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(
        std::fs::read_dir(&temp).unwrap().count(),
        0,
        "files are left"
    );
}

#[test]
fn a_drill_that_is_killed_takes_its_cluster_along() {
    if node::require().is_none() {
        return;
    }
    let place = directory();
    let script = fixture("http.js");
    let words = [
        "drill", "--for", "10m", "--rate", "100", "-n", "1", "--", &script,
    ];
    let mut command = phalanx(place.path(), &words);
    // Its private directory is all that a killed drill leaves behind.
    command.env("TMPDIR", place.path());
    let drill = Process::start(command);
    eventually(LIMIT, "the cluster", || {
        (drill.family().len() >= 3).then_some(())
    });
    drill.signal(Signal::KILL);
    drill.wait_family_gone(LIMIT);
}

#[test]
fn a_server_that_does_not_start_or_answer_is_told_before_the_drill() {
    if node::require().is_none() {
        return;
    }
    let script = fixture("exits-at-once.js");
    let output = run_alone(&["drill", "-n", "1", "--", &script]);
    expect_refused(&output, 1, &["the app did not start"]);
    let output = run_alone(&["drill", "--", "/nowhere/server"]);
    expect_refused(&output, 127, &["/nowhere/server"]);
    let output = run_alone(&["drill", "--url", "http://127.0.0.1:1"]);
    expect_refused(&output, 1, &["does not answer", "refused"]);
    let script = fixture("http.js");
    let output = run_alone(&["drill", "-n", "1", "--ws", "/ws", "--", &script]);
    expect_refused(&output, 1, &["/ws is no WebSocket"]);
    let output = run_alone(&["drill", "--name", "nobody"]);
    expect_refused(&output, 69, &["no app named nobody"]);
}

#[test]
fn senseless_drills_are_usage_errors() {
    for (words, part) in [
        (&["drill"][..], "name what to drill"),
        (
            &["drill", "--url", "http://192.0.2.7:80"],
            "only against this machine",
        ),
        (&["drill", "--url", "https://127.0.0.1"], "plain HTTP"),
        (
            &["drill", "--url", "http://127.0.0.1:1", "--kills", "1"],
            "no --kills and --scales with --url",
        ),
        (
            &["drill", "--url", "http://127.0.0.1:1", "--reloads", "1"],
            "--reload-command",
        ),
        (&["drill", "--reload-command", "true", "--", "cat"], "--url"),
        (
            &["drill", "--name", "a", "--", "cat"],
            "cannot be used with",
        ),
        (
            &["drill", "--for", "30", "--", "cat"],
            "a number and a unit",
        ),
        (&["drill", "--for", "0s", "--", "cat"], "more than zero"),
        (&["drill", "--clients", "0", "--", "cat"], "1..=4096"),
        (&["drill", "--path", "x", "--", "cat"], "starts with /"),
        (
            &["drill", "--header", "Connection: close", "--", "cat"],
            "the drill writes Connection itself",
        ),
        (&["drill", "--method", "get", "--", "cat"], "in capitals"),
        (
            &["drill", "--mix", "fast", "--", "cat"],
            "possible values: new, keep-alive",
        ),
        (&["drill", "--mix", "websocket", "--", "cat"], "--ws PATH"),
        (
            &["drill", "--run", "--max-surge 0", "--", "cat"],
            "no worker could ever be replaced",
        ),
    ] {
        expect_refused(&run_alone(words), 64, &[part]);
    }
}
