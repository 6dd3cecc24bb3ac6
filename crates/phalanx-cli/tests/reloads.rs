//! Rolling restarts: their limits, and releases that fail.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeMap;

use cluster::release::Release;
use cluster::{app, expect_in_turn, ids, try_get, wait_report};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::control::Events;
use phalanx_testkit::{LIMIT, Load, node, procs};
use serde_json::{Value, json};

#[test]
fn a_reload_during_a_reload_ends_with_the_newest_generation_everywhere() {
    let mut app = app().workers(3).script("http.js").start();
    let target = app.address();
    let load = Load::new(target.clone()).clients(4).start();
    let events = app.events();
    let first = app.start_verb(["reload"]);
    wait_report(&events, "rollout_started");
    let second = app.start_verb(["reload"]);
    second.finish(LIMIT).expect_success();
    // The first is either taken over by the second or told that it was.
    let first = first.finish(LIMIT);
    assert!(matches!(first.status.code(), Some(0 | 1)), "{first:?}");
    let status = app.wait_ready(LIMIT);
    let generations: Vec<&Value> = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| &worker["generation"])
        .collect();
    assert_eq!(generations, [&json!(3); 3], "{status}");
    load.stop().expect_none_lost();
}

#[test]
fn a_release_with_a_syntax_error_is_refused_and_the_old_one_serves_on() {
    for node in node::require_versions() {
        let release = Release::of("http.js");
        let mut app = app()
            .workers(2)
            .command([node.path.clone(), release.script()])
            .start();
        let target = app.address();
        let before = app.worker_pids();
        let load = Load::new(target.clone()).clients(8).start();
        release.deploy("syntax-error.js");
        let refused = app.verb(["reload"]);
        assert_eq!(refused.status.code(), Some(1), "{node:?} {refused:?}");
        assert!(
            refused.stderr.contains("SyntaxError"),
            "{node:?} {}",
            refused.stderr
        );
        let status = app.wait_ready(LIMIT);
        assert_eq!(pids(&status), before, "{node:?}");
        release.deploy("http.js");
        app.verb(["reload"]).expect_success();
        load.stop().expect_none_lost();
        expect_in_turn(&mut app, &target, 2);
    }
}

#[test]
fn a_release_that_is_never_ready_is_given_up_at_its_limit() {
    let release = Release::of("http.js");
    let mut app = app()
        .workers(2)
        .options(["--ready-timeout", "15s", "--kill-timeout", "500ms"])
        .command([release.script()])
        .start();
    let target = app.address();
    let before = app.worker_pids();
    let load = Load::new(target.clone()).clients(8).start();
    release.deploy("never-ready.js");
    let refused = app.verb(["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("thinking"), "{}", refused.stderr);
    assert_eq!(pids(&app.wait_ready(LIMIT)), before);
    load.stop().expect_none_lost();
}

#[test]
fn a_release_that_fails_at_the_second_position_goes_back_at_the_first() {
    let release = Release::of("http.js");
    let mut app = app()
        .workers(2)
        .options(["--kill-timeout", "500ms"])
        .command([release.script()])
        .start();
    let target = app.address();
    let load = Load::new(target.clone()).clients(8).start();
    let events = app.events();
    release.deploy("in-turn-fails.js");
    let refused = app.verb(["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("not at position 1"),
        "{}",
        refused.stderr
    );
    wait_report(&events, "rollout_failed");
    // What goes back runs the script that is there now: the operator puts the old one back first.
    release.deploy("http.js");
    app.wait_ready(LIMIT);
    load.stop().expect_none_lost();
    expect_in_turn(&mut app, &target, 2);
}

/// The most workers alive and the fewest ready, from the events of a reload.
fn extremes(events: &Events, workers: usize) -> (usize, usize) {
    let (mut alive, mut ready) = (workers, workers);
    let (mut most, mut fewest) = (alive, ready);
    let is_over = |event: &Value| event["report"] == "rollout_finished";
    while let Some(event) = events.next_before(LIMIT) {
        if event["report"] == "changed" {
            let (from, to) = (&event["from"], &event["to"]);
            alive = alive + usize::from(from.is_null()) - usize::from(to == "gone");
            ready =
                ready + usize::from(to == "ready") - usize::from(from == "ready" && to != "ready");
            most = most.max(alive);
            fewest = fewest.min(ready);
        }
        if is_over(&event) {
            break;
        }
    }
    (most, fewest)
}

#[test]
fn a_reload_keeps_within_surge_and_unavailability() {
    for (surge, unavailable, most, fewest) in [
        ("1", "0", 5, 4),
        ("2", "0", 6, 4),
        ("0", "1", 4, 3),
        ("50%", "25%", 6, 3),
    ] {
        let mut app = app()
            .workers(4)
            .options(["--max-surge", surge, "--max-unavailable", unavailable])
            .options(["--max-draining", "0"])
            .script("http.js")
            .start();
        let target = app.address();
        let load = Load::new(target).clients(4).start();
        let events = app.events();
        app.verb(["reload"]).expect_success();
        let (most_alive, fewest_ready) = extremes(&events, 4);
        assert_eq!(most_alive, most, "{surge} {unavailable}");
        assert!(
            fewest_ready >= fewest,
            "{surge} {unavailable}: {fewest_ready}"
        );
        load.stop().expect_none_lost();
    }
}

#[test]
fn a_stopped_worker_is_replaced_by_a_reload_and_killed() {
    let mut app = app()
        .workers(2)
        // Enough for the other old worker to finish what it has.
        .options(["--drain-timeout", "8s", "--kill-timeout", "300ms"])
        .script("http.js")
        .start();
    let target = app.address();
    let stopped = app.worker_pids()[0];
    procs::suspend(stopped);
    let load = Load::new(target.clone())
        .clients(40)
        .request_limit(LIMIT)
        .start();
    load.wait_for_more(100, LIMIT);
    app.verb(["reload"]).expect_success();
    assert!(!procs::is_alive(stopped));
    load.stop().expect_none_lost();
    expect_in_turn(&mut app, &target, 2);
}

#[test]
fn ids_are_never_used_again_and_positions_are() {
    let mut app = app().workers(2).script("crash.js").start();
    let target = app.address();
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..3 {
        let status = app.wait_ready(LIMIT);
        for worker in status["workers"].as_array().unwrap() {
            let (id, pid) = (
                worker["id"].as_u64().unwrap(),
                worker["pid"].as_u64().unwrap(),
            );
            assert_eq!(*seen.entry(id).or_insert(pid), pid, "{status}");
            assert!(worker["position"].as_u64().unwrap() < 2, "{status}");
        }
        let before = ids(&status);
        try_get(&target, "/crash").unwrap_err();
        app.wait_status(LIMIT, |status| is_settled(status) && ids(status) != before);
    }
}
