//! A worker that misuses its channel harms nobody but itself: the primary answers, keeps its log and its
//! memory, and the other workers serve.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::time::Duration;

use cluster::{app, get, ids};
use phalanx_testkit::wait::{self, Deadline};
use phalanx_testkit::{App, LIMIT, node, procs};
use serde_json::{Value, json};

/// A verb or a question takes no longer than this while one worker misbehaves. The primary promises 250 ms of
/// itself; the machine that runs the tests may take more.
const PATIENCE: Duration = Duration::from_secs(4);
/// What the primary may take above its memory at rest, with room for the debug build's own.
const GROWTH_BYTES: u64 = 64 << 20;

fn start() -> App {
    app()
        .workers(2)
        .option("--dispatch=handoff")
        .script("floods.js")
        .start_ready()
}

/// Has the first worker flood its channel.
fn flood(app: &mut App, kind: &str, size: u32) {
    let worker = ids(&app.status())[0];
    let message = json!({"flood": kind, "size": size});
    let body = json!({"message": message, "to": worker});
    let reply = app.post("/v1/messages", &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    app.wait_for_line(&format!("flood of {kind} begins"), LIMIT);
}

/// Until the flood is over: the primary answers, and stays within its bounds. Gives the last status.
fn watch(app: &mut App, kind: &str) -> Value {
    let over = format!("flood of {kind} is over");
    let idle = app.wait_status(LIMIT, |status| {
        status["primary"]["memory_idle_bytes"].is_u64()
    });
    let idle = idle["primary"]["memory_idle_bytes"].as_u64().unwrap();
    let deadline = Deadline::after(4 * LIMIT);
    loop {
        let asked = wait::now();
        let status = app.status();
        let took = asked.elapsed();
        assert!(took < PATIENCE, "{kind}: status took {took:?}");
        let memory = status["primary"]["memory_bytes"].as_u64().unwrap();
        assert!(
            memory < idle + GROWTH_BYTES,
            "{kind}: {memory} bytes, {idle} when idle"
        );
        if app.lines().shown().contains(&over) {
            return status;
        }
        deadline.check(&format!("the flood of {kind} ends"));
    }
}

#[test]
fn a_flood_on_the_channel_harms_only_the_worker_that_makes_it() {
    if node::require().is_none() {
        return;
    }
    let mut app = start();
    let target = app.address();
    let floods = [
        ("answers", 25_000),
        ("garbage", 25_000),
        ("small", 70_000),
        ("large", 16),
        ("numbers", 2),
        ("huge", 1),
        ("questions", 200),
        ("boards", 2_000),
        ("addresses", 2_000),
    ];
    for (generation, (kind, size)) in (2..).zip(floods) {
        flood(&mut app, kind, size);
        let status = watch(&mut app, kind);
        let late = status["primary"]["loop_lag_p99_ms"].as_f64().unwrap();
        assert!(late < 1000.0, "{kind}: late by {late} ms");
        // The primary's own subscriptions have kept their places.
        app.verb(["reload"]).expect_success();
        app.wait_for_line(&format!("reload: generation {generation} serves"), LIMIT);
        get(&target, "/");
    }
    // What it said of the worker is no flood itself.
    let lines = app.lines().shown().lines().count();
    assert!(lines < 2_000, "{lines} lines");
    assert!(app.stop().success());
}

#[test]
fn events_are_told_during_a_flood_to_those_who_keep_up() {
    if node::require().is_none() {
        return;
    }
    let mut app = start();
    let events = app.events();
    flood(&mut app, "small", 4_000);
    let last = |event: &Value| event["message"]["number"] == 3_999;
    events.wait_for(LIMIT, "the last message", last);
}

#[test]
fn addresses_that_a_worker_invents_are_told_to_nobody_without_end() {
    if node::require().is_none() {
        return;
    }
    let mut app = start();
    let mut events = app.events();
    flood(&mut app, "addresses", 3_000);
    // What the product itself acts upon has no bound but this.
    watch(&mut app, "addresses");
    app.verb(["reload"]).expect_success();
    let mut told = 0;
    while events.next().unwrap()["report"] != "rollout_finished" {
        told += 1;
    }
    assert!(told < 600, "{told} events");
}

#[test]
fn a_worker_has_a_limit_of_listeners_and_says_so() {
    if node::require().is_none() {
        return;
    }
    let mut app = start();
    let before = procs::fd_count(app.pid()).unwrap();
    flood(&mut app, "listeners", 3_000);
    watch(&mut app, "listeners");
    app.wait_for_line("has 256 listeners, the most there may be", LIMIT);
    let after = procs::fd_count(app.pid()).unwrap();
    assert!(after < before + 300, "{before} before, {after} after");
    // Neither does the one that comes after it pile up its own beside them.
    for _ in 0..2 {
        let victim = app.worker_pids()[0];
        app.kill_worker(victim);
        app.wait_status(LIMIT, |status| {
            phalanx_testkit::app::is_settled(status)
                && !phalanx_testkit::app::pids(status).contains(&victim)
        });
        flood(&mut app, "listeners", 3_000);
        watch(&mut app, "listeners");
    }
    let after = procs::fd_count(app.pid()).unwrap();
    assert!(after < before + 900, "{before} before, {after} after");
    app.verb(["reload"]).expect_success();
    let back = || (procs::fd_count(app.pid()).unwrap() <= before + 16).then_some(());
    wait::eventually(LIMIT, "the descriptors come back", back);
}

#[test]
fn a_fault_on_the_channel_is_told_once() {
    if node::require().is_none() {
        return;
    }
    let mut app = start();
    flood(&mut app, "huge", 1);
    watch(&mut app, "huge");
    app.wait_for_line("oversized message", LIMIT);
    assert!(app.stop().success());
    let lines = app.lines().all();
    let told = lines
        .iter()
        .filter(|line| line.text.contains("oversized message"));
    assert_eq!(told.count(), 1, "{lines:?}");
}
