//! Who is judged to be stuck, and who is not: a primary that was stopped, workers that take nothing.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::time::Duration;

use cluster::{Connection, answer, app, ask, connect, get, pid_in, side_by_side};
use phalanx_testkit::app::{AppBuilder, is_settled, pids};
use phalanx_testkit::{App, LIMIT, Load, Signal, Target, fixtures, node, procs, require, wait};
use serde_json::Value;

/// Longer than any limit of these tests; with `PHALANX_TEST_LONG` several times as long as the longest.
fn pause_time() -> Duration {
    let is_long = std::env::var_os("PHALANX_TEST_LONG").is_some();
    Duration::from_secs(if is_long { 20 } else { 7 })
}

/// Stops the primary for a while, as a suspended machine does.
fn pause(app: &App) {
    app.signal(Signal::STOP);
    // The pause is what is tested; nothing else is waited for.
    wait::try_eventually(pause_time(), || None::<()>);
    app.signal(Signal::CONT);
}

#[test]
fn a_primary_that_was_stopped_blames_no_worker_for_the_silence() {
    if require("python3").is_none() {
        return;
    }
    let script = fixtures::fixture("programs/activated.py");
    let mut app = app()
        .workers(2)
        .options(["--bind", "127.0.0.1:0", "--watchdog", "3s"])
        .command(["python3"])
        .arg(script)
        .arg("notify")
        .arg("pings")
        .start_ready();
    let before = app.worker_pids();
    pause(&app);
    app.wait_for_line("the primary did not run", LIMIT);
    // It is a breach of what is promised of the event loop, whoever is to blame.
    app.wait_for_line("the primary was late by", LIMIT);
    let late = app.status()["primary"]["loop_lag_max_ms"].as_f64();
    assert!(late.is_some_and(|late| late > 250.0), "{late:?}");
    get(&app.address(), "/");
    assert_eq!(app.worker_pids(), before);
    // The watchdog goes on to watch.
    let victim = get(&app.address(), "/hang");
    app.wait_status(LIMIT, |status| {
        is_settled(status)
            && !pids(status)
                .iter()
                .any(|pid| victim.contains(&pid.to_string()))
    });
}

#[test]
fn a_reload_outlasts_a_stop_of_the_primary() {
    if node::require().is_none() {
        return;
    }
    // Shorter than the pause, and as long as can be for a machine on which Node starts slowly.
    let limit = format!("{}ms", pause_time().as_millis() * 3 / 4);
    let mut app = app()
        .workers(2)
        .options(["--ready-timeout", &limit])
        .script("http.js")
        .start_ready();
    let before = app.worker_pids();
    let events = app.events();
    // A signal: the verb's own patience with a silent primary is shorter than the pause.
    app.signal(Signal::USR2);
    events.wait_for(LIMIT, "a successor", |event| event["event"] == "fork");
    pause(&app);
    events.wait_for(LIMIT, "the end of the reload", |event| {
        event["report"] == "rollout_finished"
    });
    let after = app.worker_pids();
    assert!(
        after.iter().all(|pid| !before.contains(pid)),
        "{before:?} {after:?}"
    );
}

/// Node and Rust workers, in the dispatches that know who is stuck; and a program that is intercepted.
fn servers() -> Vec<(&'static str, AppBuilder)> {
    let mut servers = Vec::new();
    let rust = || {
        let program = cluster::example("http_server").to_str().unwrap().to_owned();
        app().command([program, "10".to_owned(), "127.0.0.1:0".to_owned()])
    };
    servers.push(("Rust by itself", rust()));
    servers.push(("Rust by handoff", rust().options(["--dispatch", "handoff"])));
    if node::require().is_some() {
        let node = || app().script("http.js");
        servers.push(("Node by itself", node()));
        servers.push(("Node by handoff", node().options(["--dispatch", "handoff"])));
        servers.push((
            "Node by handoff without a preload",
            node().options(["--dispatch", "handoff", "--no-preload"]),
        ));
    }
    servers
}

/// So many clients, each with a request under way.
fn clients(target: &Target, count: usize) -> Vec<Box<dyn Connection>> {
    let one = |_| {
        let mut client = connect(target).unwrap();
        ask(client.as_mut(), "/").unwrap();
        client
    };
    (0..count).map(one).collect()
}

fn stuck_pids(status: &Value) -> Vec<u64> {
    let workers = status["workers"].as_array().unwrap().iter();
    let stuck = workers.filter(|worker| worker["stuck_ms"].is_u64());
    stuck.filter_map(|worker| worker["pid"].as_u64()).collect()
}

#[test]
fn what_waits_for_a_stuck_worker_goes_to_the_others_in_every_dispatch() {
    side_by_side(servers(), |(server, builder)| {
        let mut app = builder.workers(2).start_ready();
        let target = app.address();
        let stuck = app.worker_pids()[0];
        procs::suspend(stuck);
        for mut client in clients(&target, 30) {
            let pid = pid_in(&answer(client.as_mut()).unwrap());
            assert_ne!(pid, stuck, "{server}: it is stopped");
        }
        app.wait_for_line("is stuck", LIMIT);
        // On a busy machine the other one may look so for a moment.
        app.wait_status(LIMIT, |status| stuck_pids(status) == [u64::from(stuck)]);
        // It is tried again and again; no client is what it is tried with.
        let report = Load::new(target.clone())
            .clients(4)
            .pause(Duration::from_millis(10))
            .time(Duration::from_millis(2500))
            .run();
        report.expect_none_lost();
        assert!(
            report.latency(0.95) < Duration::from_secs(1) + 10 * report.latency(0.5),
            "{server}: {report}"
        );
        assert!(procs::signal(stuck, Signal::CONT));
        app.wait_for_line("takes connections again", LIMIT);
        app.wait_status(LIMIT, |status| stuck_pids(status).is_empty());
        wait::eventually(LIMIT, "it serves again", || {
            (pid_in(&get(&target, "/")) == stuck).then_some(())
        });
        assert!(app.stop().success(), "{server}");
    });
}

#[test]
fn where_all_are_stuck_the_first_that_wakes_serves_all() {
    side_by_side(servers(), |(server, builder)| {
        let mut app = builder.workers(2).start_ready();
        let target = app.address();
        let workers = app.worker_pids();
        workers.iter().copied().for_each(procs::suspend);
        let waiting = clients(&target, 30);
        app.wait_status(LIMIT, |status| stuck_pids(status).len() == 2);
        assert!(procs::signal(workers[1], Signal::CONT));
        for mut client in waiting {
            let pid = pid_in(&answer(client.as_mut()).unwrap());
            assert_eq!(pid, workers[1], "{server}: the other is stopped");
        }
        assert!(procs::signal(workers[0], Signal::CONT));
        app.wait_status(LIMIT, |status| stuck_pids(status).is_empty());
        assert!(app.stop().success(), "{server}");
    });
}

#[test]
fn a_worker_that_was_busy_for_a_while_is_told_of_and_serves_again() {
    if node::require().is_none() {
        return;
    }
    let mut app = app()
        .workers(2)
        .options(["--dispatch", "handoff"])
        .script("slow.js")
        .start_ready();
    let target = app.address();
    let mut busy = connect(&target).unwrap();
    ask(busy.as_mut(), "/busy?ms=4000").unwrap();
    let report = Load::new(target)
        .clients(6)
        .path("/?ms=1")
        .time(Duration::from_secs(3))
        .run();
    report.expect_none_lost();
    // Some may have been accepted before it was busy. On a busy machine all take longer.
    let usual = report.latency(0.5);
    assert!(
        report.latency(0.9) < Duration::from_secs(2) + 10 * usual,
        "{report}"
    );
    app.wait_for_line("is stuck", LIMIT);
    answer(busy.as_mut()).unwrap();
    app.wait_for_line("takes connections again", LIMIT);
}
