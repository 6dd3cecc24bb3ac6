//! Workers that are worn out, or no longer wanted, give way to others of their release: one position at a time, and
//! no request is lost.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeSet;

use cluster::{app, get};
use phalanx_testkit::app::{AppBuilder, is_settled, pids};
use phalanx_testkit::{App, LIMIT, Load, fixtures, node, require};
use serde_json::{Value, json};

/// Leaks so much that a worker is worn out within a few seconds.
fn leaking(builder: AppBuilder) -> AppBuilder {
    builder.workers(2).env("LEAK_MIB", "20")
}

/// Checks the events until so many workers have been recycled: never two positions at once.
fn expect_turns(app: &mut App, count: usize, why: &str) {
    let events = app.events();
    let mut turn: Option<(u64, u64)> = None;
    let mut recycled = 0;
    while recycled < count {
        let event = events.next_before(LIMIT).unwrap();
        let (worker, position) = (event["worker"].as_u64(), event["position"].as_u64());
        match (event["to"].as_str(), event["reason"]["why"].as_str()) {
            (Some("draining"), Some("recycled")) => {
                assert_eq!(turn, None, "two positions at once: {event}");
                assert_eq!(event["reason"]["wear"], why, "{event}");
                turn = worker.zip(position);
            }
            (Some("starting"), Some("recycle")) => assert_eq!(turn, None, "{event}"),
            (Some("gone"), _) if turn.map(|(worker, _)| worker) == worker => {
                turn = None;
                recycled += 1;
            }
            _ => {}
        }
    }
}

fn expect_recycled(mut app: App, why: &str) {
    let load = Load::new(app.address()).clients(4).start();
    expect_turns(&mut app, 4, why);
    let report = load.stop();
    assert_eq!(report.failures.len(), 0, "{report:?}");
    // They go on leaking, so the fleet need never settle.
    let is_told = |worker: &Value| {
        let recycled = worker["recycled"]["why"].as_str();
        recycled.is_some_and(|text| text.starts_with(why)) && worker["memory_bytes"].is_u64()
    };
    // What a worker takes is known when it was looked at.
    app.wait_status(LIMIT, |status| {
        status["workers"].as_array().unwrap().iter().any(is_told)
    });
}

#[test]
fn a_leaking_node_app_is_recycled_and_loses_nothing() {
    if node::require().is_none() {
        return;
    }
    let app = leaking(app().script("leaks.js")).options(["--max-memory", "100M"]);
    expect_recycled(app.start_ready(), "memory");
}

#[test]
fn what_a_child_takes_counts_for_its_worker() {
    if node::require().is_none() {
        return;
    }
    // Both processes together have some 90 MB at first; the worker alone never comes near the limit.
    let options = ["--max-memory", "160M"];
    let mut app = leaking(app().script("leaks-in-child.js")).options(options);
    app = app.env("LEAK_MIB", "20");
    expect_recycled(app.start_ready(), "memory");
}

#[test]
fn a_leaking_python_app_is_recycled_and_loses_nothing() {
    if require("python3").is_none() {
        return;
    }
    let script = fixtures::fixture("programs/leaks.py");
    let app = leaking(app().command(["python3"]).arg(script));
    let app = app.options(["--max-memory", "60M"]);
    expect_recycled(app.start_ready(), "memory");
}

#[test]
fn workers_are_recycled_by_age_and_by_requests() {
    if node::require().is_none() {
        return;
    }
    let app = || app().workers(2).script("leaks.js");
    expect_recycled(app().options(["--max-age", "2s"]).start_ready(), "age");
    let by_requests = app().options(["--max-requests", "300"]);
    expect_recycled(by_requests.start_ready(), "requests");
}

#[test]
fn workers_are_recycled_by_hand() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().workers(3).script("http.js").start_ready();
    let before = app.status();
    let load = Load::new(app.address()).clients(4).start();
    let words = |words: &[&str]| app.verb([&["recycle"], words].concat());
    let id = before["workers"][2]["id"].to_string();
    let output = words(&["0", &format!("id:{id}")]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.contains("recycled: 2 workers"));
    let after = app.wait_status(LIMIT, is_settled);
    let (old, new) = (pids(&before), pids(&after));
    assert_ne!((old[0], old[2]), (new[0], new[2]));
    assert_eq!(old[1], new[1], "nobody asked for that one");
    assert_eq!(after["generation"], before["generation"]);
    let all = app.post("/v1/recycle", &json!({})).expect_success();
    assert_eq!(all.json(), json!({"done": "recycled", "workers": 3}));
    let last: BTreeSet<u32> = pids(&app.wait_status(LIMIT, is_settled))
        .into_iter()
        .collect();
    assert!(new.iter().all(|pid| !last.contains(pid)));
    let report = load.stop();
    assert_eq!(report.failures.len(), 0, "{report:?}");
    let output = app.verb(["recycle", "9"]);
    assert!(!output.status.success());
    assert!(output.stderr.contains("no worker is ready at position 9"));
}

#[test]
fn a_successor_that_does_not_start_leaves_the_old_worker_serving() {
    if node::require().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("server.js");
    std::fs::copy(fixtures::fixture("http.js"), &script).unwrap();
    let mut app = app().workers(2).command([&script]).start_ready();
    let before = app.worker_pids();
    std::fs::write(&script, "process.exit(3);\n").unwrap();
    let output = app.verb(["recycle", "0"]);
    let text = &output.stderr;
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("serves on") && text.contains("exit code 3"),
        "{text}"
    );
    assert_eq!(app.worker_pids(), before);
    get(&app.address(), "/");
}
