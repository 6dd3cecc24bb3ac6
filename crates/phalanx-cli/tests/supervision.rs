//! The primary's care for its workers: respawn and backoff, limits, and what is left when either side dies.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::time::Duration;

use cluster::release::Release;
use cluster::{app, connect, expect_in_turn, get, restarts, try_get, wait_report, wait_state};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::wait::{now, try_eventually};
use phalanx_testkit::{App, LIMIT, Load, Signal, missing, node, procs};
use serde_json::json;

#[test]
fn a_crashed_worker_is_replaced_at_once_and_its_successor_has_its_position() {
    let mut app = app().workers(2).script("crash.js").start();
    let target = app.address();
    let before = app.status();
    let events = app.events();
    try_get(&target, "/throw").unwrap_err();
    let scheduled = wait_report(&events, "respawn_scheduled");
    assert_eq!(scheduled["delay_ms"], 0);
    let spawned = wait_state(&events, "starting");
    assert_eq!(spawned["position"], scheduled["position"]);
    wait_state(&events, "ready");
    let after = app.wait_ready(LIMIT);
    assert_eq!(restarts(&after), restarts(&before) + 1);
    expect_in_turn(&mut app, &target, 2);
}

#[test]
fn a_worker_that_crashes_again_and_again_waits_longer_each_time_and_recovers_when_mended() {
    let release = Release::of("http.js");
    let mut app = app().workers(2).command([release.script()]).start();
    let target = app.address();
    let events = app.events();
    // Only what is started from now on is broken.
    release.deploy("exits-at-once.js");
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    let mut delays = Vec::new();
    while delays.len() < 6 {
        let scheduled = wait_report(&events, "respawn_scheduled");
        delays.push(scheduled["delay_ms"].as_u64().unwrap());
    }
    assert_eq!(delays[0], 0, "{delays:?}");
    assert!(
        delays.is_sorted() && delays[5] > 4 * delays[1],
        "{delays:?}"
    );
    // The position does not vanish meanwhile.
    let status = app.wait_status(LIMIT, |status| {
        status["vacancies"][0]["retry_in_ms"].is_u64()
    });
    assert_eq!(status["vacancies"].as_array().unwrap().len(), 1, "{status}");
    // The others serve meanwhile.
    Load::new(target.clone())
        .clients(4)
        .requests(100)
        .run()
        .expect_none_lost();
    app.wait_for_line("cannot find my configuration", LIMIT);
    release.deploy("http.js");
    app.wait_ready(LIMIT);
    expect_in_turn(&mut app, &target, 2);
}

/// A position is in a crash loop when it waits 30 s; so this takes two minutes, and runs where
/// `PHALANX_TEST_LONG` is set, as `.ci/run` does it.
#[test]
fn a_crash_loop_is_reported_once_and_left_when_mended() {
    if !cluster::is_long() {
        return missing!("PHALANX_TEST_LONG=1, for a test of two minutes");
    }
    let limit = Duration::from_mins(3);
    let release = Release::of("http.js");
    let mut app = app().workers(2).command([release.script()]).start_ready();
    let events = app.events();
    release.deploy("exits-at-once.js");
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    events.wait_for(limit, "the crash loop", |event| {
        event["report"] == "crash_loop_entered"
    });
    events.wait_for(limit, "another try", |event| event["event"] == "exit");
    release.deploy("http.js");
    events.wait_for(limit, "the end of the loop", |event| {
        assert_ne!(event["report"], "crash_loop_entered");
        event["report"] == "crash_loop_left"
    });
    assert!(is_settled(&app.status()));
}

#[test]
fn workers_go_with_a_killed_primary_even_busy_ones() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "slow.js").start();
        let target = app.address();
        let mut busy = connect(&target).unwrap();
        cluster::ask(busy.as_mut(), "/busy?ms=600000").unwrap();
        get(&target, "/?ms=0");
        app.signal(Signal::KILL);
        app.wait_exit(LIMIT);
        app.wait_family_gone(LIMIT);
    }
}

#[test]
fn five_hundred_idle_workers_start_shrink_to_one_and_stop() {
    const WORKERS: usize = 512;
    let program = cluster::example("http_server");
    let limit = Duration::from_mins(2);
    let mut app = app()
        .workers(1)
        .command([program.to_str().unwrap(), "1", "127.0.0.1:0"])
        .start();
    let target = app.address();
    let one = procs::fd_count(app.pid()).unwrap();
    // A verb would give up a primary that answers nothing for 30 s; with hundreds of processes beside it, it may.
    let scale = |app: &App, workers: usize| {
        app.post("/v1/scale", &json!({"workers": workers}))
            .expect_success();
    };
    let began = now();
    scale(&app, WORKERS);
    let status = app.wait_ready(limit);
    let started = began.elapsed();
    assert_eq!(pids(&status).len(), WORKERS);
    Load::new(target.clone())
        .clients(4)
        .requests(600)
        .run()
        .expect_none_lost();
    scale(&app, 1);
    let whole = began.elapsed();
    assert_eq!(app.family().len(), 2, "the primary and one worker are left");
    let descriptors = try_eventually(LIMIT, || (procs::fd_count(app.pid())? <= one).then_some(()));
    assert!(
        descriptors.is_some(),
        "{one} before, now {:#?}",
        procs::fd_targets(app.pid())
    );
    get(&target, "/");
    assert!(app.stop().success());
    assert!(
        whole < limit,
        "{started:?} to start, {whole:?} with the shrinking"
    );
}

#[test]
fn what_a_worker_started_goes_with_it_when_it_is_killed() {
    // The child is work, as far as anybody can tell: the worker has its time for it.
    let builder = app().workers(1).options(["--drain-timeout", "2s"]);
    let mut app = builder.script("has-child.js").start();
    let target = app.address();
    let child = |body: String| {
        body.split_once("child = ")
            .unwrap()
            .1
            .trim()
            .parse::<u32>()
            .unwrap()
    };
    let orphan = child(get(&target, "/"));
    assert!(procs::is_alive(orphan));
    let [worker] = app.worker_pids().try_into().unwrap();
    app.kill_worker(worker);
    assert!(procs::wait_gone(orphan, LIMIT));
    app.wait_ready(LIMIT);
    let last = child(get(&target, "/"));
    assert!(app.stop().success());
    assert!(!procs::is_alive(last));
}

#[test]
fn a_worker_that_ignores_being_stopped_is_killed_at_its_limit() {
    let mut app = app()
        .workers(2)
        .options(["--drain-timeout", "200ms", "--kill-timeout", "300ms"])
        .script("stubborn.js")
        .start();
    let target = app.address();
    let mut kept: Vec<_> = (0..2).map(|_| connect(&target).unwrap()).collect();
    for connection in &mut kept {
        connection.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    }
    let before = app.worker_pids();
    get(&target, "/");
    app.verb(["reload"]).expect_success();
    assert!(before.iter().all(|pid| !procs::is_alive(*pid)));
    assert!(app.stop().success());
}
