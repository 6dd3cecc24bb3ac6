//! `phalanx drill` against real servers: what it must pass, and what it must catch.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this whole file is a test"
)]

use crate::cluster;
use crate::support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use phalanx_testkit::process::Output;
use phalanx_testkit::{LIMIT, Process, fixtures, missing, node};
use serde_json::Value;
use support::{app, directory, expect_refused, fixture, phalanx};

/// A drill waits for its actions, and those for processors: this is only to end at all.
const LONG: Duration = Duration::from_mins(30);

/// Runs a drill to its end, whatever that is; its report is the JSON on standard output.
fn drill(directory: &Path, words: &[&str]) -> (Output, Value) {
    let words = [&["drill", "--json"], words].concat();
    let output = Process::run(phalanx(directory, &words), LONG);
    let report = serde_json::from_str(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, report)
}

/// An answer that comes is not lost, however long it takes on a busy machine.
const PATIENT: [&str; 2] = ["--timeout", "60s"];

/// Words of a drill that a test can wait for.
fn short<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let load = ["--for", "4s", "--rate", "400", "--clients", "8"];
    [&load, &PATIENT[..], words].concat()
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
    // It does not read its uploads, and says with each answer to one whether the connection ends by that.
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
        &PATIENT[..],
        &[
            "--reloads",
            reloads,
            "--kills",
            "1",
            "--upload-path",
            "/upload",
            "--",
        ],
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
    // Reads what is uploaded. hyper closes the connections of apps that do not, after a response that did not say so, and
    // a client may lose its next request by that without any reload.
    let server = cluster::example("axum_app");
    reloads_lose_nothing(&[server.to_str().unwrap(), "127.0.0.1:0"], "90");
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
        "3s",
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
        assert!(moment["since_ms"].as_f64().unwrap() < 3_000.0, "{moment}");
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
    let words = [
        "drill", "--json", "--for", "3s", "--rate", "400", "--mix", "new",
    ];
    let output = app.verb([&words, &PATIENT[..]].concat());
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
