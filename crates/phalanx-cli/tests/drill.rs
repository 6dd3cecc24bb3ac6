//! `phalanx drill` against real servers: what it must pass, and what it must catch.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this whole file is a test"
)]

mod cluster;
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use phalanx_testkit::process::Output;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{LIMIT, Process, Signal, fixtures, missing, node};
use serde_json::Value;
use support::{app, directory, expect_refused, fixture, phalanx, run_alone};

/// A drill waits for its actions, and those for processors: this is only to end at all.
const LONG: Duration = Duration::from_mins(10);

/// Runs a drill to its end, whatever that is; its report is the JSON on standard output.
fn drill(directory: &Path, words: &[&str]) -> (Output, Value) {
    let words = [&["drill", "--json"], words].concat();
    let output = Process::run(phalanx(directory, &words), LONG);
    let report = serde_json::from_str(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, report)
}

/// Words of a drill that a test can wait for.
fn short<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["--for", "4s", "--rate", "400", "--clients", "8"], words].concat()
}

#[track_caller]
fn number(report: &Value, field: &str) -> u64 {
    let value = &report[field];
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{field} is {value}"))
}

#[test]
fn a_rust_app_passes_and_the_report_has_what_it_promises() {
    let server = cluster::example("http_server");
    let server = server.to_str().unwrap();
    let place = directory();
    let svg = place.path().join("drill.svg");
    let words = short(&[
        "-n",
        "2",
        "--mix",
        "new,slow-upload,slow-reader",
        "--svg",
        svg.to_str().unwrap(),
    ]);
    let words = [&words[..], &["--", server, "10", "127.0.0.1:0"]].concat();
    let (output, report) = drill(place.path(), &words);
    output.expect_success();
    assert_eq!(report["passed"], true, "{report}");
    for (field, expected) in [
        ("lost", 0),
        ("retried", 0),
        ("reloads", 3),
        ("kills", 2),
        ("scales", 2),
    ] {
        assert_eq!(number(&report, field), expected, "{field}: {report}");
    }
    assert!(number(&report, "requests") > 400, "{report}");
    assert_eq!(
        number(&report, "requests"),
        number(&report, "answered") + number(&report, "lost_to_kills")
    );
    assert_eq!(report["causes"], serde_json::json!({}));
    for phase in ["calm", "reload"] {
        let quantiles = &report["latency_ms"][phase];
        let of = |name: &str| quantiles[name].as_f64().unwrap();
        assert!(
            of("p50") > 0.0 && of("p50") <= of("p99") && of("p99") <= of("max"),
            "{quantiles}"
        );
    }
    assert_eq!(report["replace_ms"]["kill"]["count"], 2);
    assert_eq!(report["actions"].as_array().unwrap().len(), 7);
    let picture = std::fs::read_to_string(svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("reload 3"));
}

/// Drills a server with the whole mix: three reloads, and so many where `PHALANX_TEST_LONG` is set, as
/// `.ci/run` does it. The three tests that use this have 200 together.
fn reloads_lose_nothing(server: &[&str], reloads_when_long: &str) {
    let place = directory();
    let reloads = if cluster::is_long() {
        reloads_when_long
    } else {
        "3"
    };
    let words = [
        &["drill", "--json", "--for", "6s", "--rate", "400", "-n", "2"],
        &["--reloads", reloads, "--kills", "1", "--"][..],
        server,
    ];
    let mut command = phalanx(place.path(), &words.concat());
    command.env("NODE_PATH", packages());
    let output = Process::run(command, LONG).expect_success();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["reloads"].to_string(), reloads);
    assert_eq!(
        (number(&report, "lost"), number(&report, "retried")),
        (0, 0),
        "{report}"
    );
    assert_eq!(report["ways"].as_object().unwrap().len(), 7, "{report}");
}

/// Where `just node-packages` puts what Node servers of the tests require.
fn packages() -> PathBuf {
    fixtures::root().join("target/node-packages/node_modules")
}

#[test]
fn reloads_of_a_node_script_lose_nothing_and_cut_nothing_off() {
    if node::require().is_some() {
        reloads_lose_nothing(&[&fixture("http.js")], "70");
    }
}

#[test]
fn reloads_of_a_rust_app_lose_nothing_and_cut_nothing_off() {
    let server = cluster::example("http_server");
    let server = server.to_str().unwrap();
    reloads_lose_nothing(&[server, "10", "127.0.0.1:0"], "90");
}

#[test]
fn reloads_of_an_express_app_lose_nothing_and_cut_nothing_off() {
    if node::require().is_none() {
        return;
    }
    if !packages().join("express").exists() {
        return missing!("the npm package express: just node-packages");
    }
    reloads_lose_nothing(&[&fixture("express.js")], "40");
}

#[test]
fn what_a_killed_worker_had_in_service_is_told_apart_and_excused() {
    if node::require().is_none() {
        return;
    }
    let place = directory();
    // Uploads of half a second: each kill finds some in service.
    let words = short(&[
        "-n",
        "2",
        "--mix",
        "slow-upload",
        "--reloads",
        "0",
        "--scales",
        "0",
        "--kills",
        "3",
    ]);
    let script = fixture("slow.js");
    let (output, report) = drill(
        place.path(),
        &[&words[..], &["--path", "/slow", "--", &script]].concat(),
    );
    output.expect_success();
    assert_eq!(
        (number(&report, "kills"), number(&report, "lost")),
        (3, 0),
        "{report}"
    );
    assert!(number(&report, "lost_to_kills") > 0, "{report}");
    for incident in report["incidents"].as_array().unwrap() {
        assert!(incident["killed_by"].is_u64(), "{incident}");
        assert_eq!(incident["moment"]["kind"], "kill", "{incident}");
    }
}

#[test]
fn a_reload_that_cuts_connections_off_is_caught_with_cause_and_moment() {
    let Some(node) = node::require() else {
        return;
    };
    let mut server = std::process::Command::new(node.path);
    server.arg(fixture("lossy.js"));
    let server = Process::start(server);
    let line = server.wait_for_line("listening on ", LIMIT);
    let url = line.replace("listening on ", "http://");
    let reload = format!("kill -USR2 {}", server.pid());
    let words = short(&[
        "--url",
        url.trim(),
        "--reload-command",
        &reload,
        "--reloads",
        "2",
        "--settle",
        "500ms",
    ]);
    let (output, report) = drill(directory().path(), &words);
    expect_refused(&output, 1, &["drill failed", "lost"]);
    assert_eq!(
        (number(&report, "reloads"), &report["passed"]),
        (2, &Value::Bool(false))
    );
    assert!(number(&report, "lost") > 0, "{report}");
    let causes = report["causes"].as_object().unwrap();
    let sum: u64 = causes.values().filter_map(Value::as_u64).sum();
    assert_eq!(sum, number(&report, "lost"), "{report}");
    let moments = report["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|incident| &incident["moment"]);
    for moment in moments {
        assert_eq!(
            (&moment["kind"], &moment["during"]),
            (&"reload".into(), &true.into()),
            "{report}"
        );
        assert!(moment["since_ms"].as_f64().unwrap() < 500.0, "{moment}");
    }
}

#[test]
fn a_reload_command_that_fails_fails_the_drill() {
    let mut app = app().script("http.js").workers(1).start_ready();
    let url = format!("http://{}", app.address());
    let words = short(&[
        "--url",
        &url,
        "--reload-command",
        "exit 3",
        "--reloads",
        "1",
        "--mix",
        "new",
    ]);
    let (output, report) = drill(directory().path(), &words);
    expect_refused(&output, 1, &["an action had no effect"]);
    assert_eq!(
        (number(&report, "reloads_failed"), number(&report, "lost")),
        (1, 0),
        "{report}"
    );
    assert_eq!(
        report["actions"][0]["failure"],
        "the command exited with status 3"
    );
}

#[test]
fn a_running_app_is_drilled_by_its_name_and_nothing_is_killed_unasked() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().script("http.js").workers(2).start_ready();
    let output = app.verb([
        "drill", "--json", "--for", "3s", "--rate", "400", "--mix", "new",
    ]);
    let output = output.expect_success();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    for (field, expected) in [("reloads", 3), ("kills", 0), ("scales", 0), ("lost", 0)] {
        assert_eq!(number(&report, field), expected, "{field}: {report}");
    }
    assert_eq!(app.status()["generation"], 4);
    assert!(app.stop().success());
}

#[test]
fn streams_that_clients_end_are_not_cut_by_reloads() {
    if node::require().is_none() {
        return;
    }
    let place = directory();
    let words = short(&[
        "-n",
        "2",
        "--ws",
        "/ws",
        "--mix",
        "websocket,new",
        "--reloads",
        "1",
        "--scales",
        "0",
        "--kills",
        "1",
    ]);
    let script = fixture("websocket.js");
    let (output, report) = drill(place.path(), &[&words[..], &["--", &script]].concat());
    output.expect_success();
    assert!(
        number(&report["ways"]["websocket"], "requests") > 0,
        "{report}"
    );
    assert!(number(&report["statuses"], "101") > 0, "{report}");
}

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
