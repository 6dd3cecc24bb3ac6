//! The eleven ways in which requests get lost elsewhere, one test each, with an allowance of zero. Each
//! test says how it was seen to fail with its protection removed, or that it was not tried.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::kept::Kept;
use cluster::{app, get, pid_in, try_get, wait_state};
use phalanx_sys::steering::Steering;
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Mode, Process, Signal, missing, node, procs};
use serde_json::Value;

/// Node 26 where it is to be had: it closes what it has not read when its server is closed.
fn newest() -> Option<AppBuilder> {
    let newest = node::versions().pop();
    if newest.is_none() {
        missing!("Node");
    }
    newest.map(|node| app().node(&node, "polite.js"))
}

fn can_steer() -> bool {
    Steering::available().is_ok()
}

/// Begins a reload of an app of one worker, and waits until the old one was told to leave.
#[track_caller]
fn begin_reload(app: &mut App) -> Process {
    let reload = app.start_verb(["reload"]);
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().into_iter().flatten();
        let mut successors =
            workers.filter(|one| one["generation"] == 2 && one["state"] == "ready");
        successors.next().is_some() && status["listeners"][0]["workers"] == 1
    });
    reload
}

/// Not tried with the protection (`exclude` in `Hub::disconnect`) removed.
#[test]
fn way_1_the_old_worker_gets_new_connections_after_it_was_told_to_stop() {
    let Some(builder) = newest() else { return };
    let mut app = builder.workers(1).start();
    let target = app.address();
    let old = app.worker_pids()[0];
    let mut busy = Kept::open(&target);
    busy.ask("/slow?ms=2000");
    let events = app.events();
    let reload = app.start_verb(["reload"]);
    wait_state(&events, "draining");
    for _ in 0..20 {
        assert_ne!(pid_in(&get(&target, "/")), old);
    }
    busy.answer();
    reload.finish(LIMIT).expect_success();
}

/// Seen to fail with `--no-preload` under Node 26: all were closed at once, and the worker was gone.
#[test]
fn way_2_a_connection_that_was_accepted_and_not_read_is_closed_at_shutdown() {
    let dispatches: &[&str] = if can_steer() {
        &["handoff", "shared", "kernel"]
    } else {
        &["handoff", "shared"]
    };
    for dispatch in dispatches {
        let Some(builder) = newest() else { return };
        let mut app = builder.workers(1).options(["--dispatch", dispatch]).start();
        let target = app.address();
        let fresh: Vec<_> = (0..8).map(|_| Kept::open(&target)).collect();
        let reload = begin_reload(&mut app);
        for mut connection in fresh {
            connection.ask("/");
            connection.answer();
        }
        reload.finish(LIMIT).expect_success();
    }
}

/// Seen to fail with `--no-preload`: 60 of 22,000 requests met a connection that was just being closed.
#[test]
fn way_3_an_idle_connection_is_closed_while_the_next_request_is_on_the_wire() {
    let Some(builder) = newest() else { return };
    let mut app = builder.workers(2).start();
    let load = Load::new(app.address()).mode(Mode::KeepAlive).clients(16);
    let load = load.pause(Duration::from_millis(1)).start();
    for _ in 0..3 {
        load.wait_for_more(50, LIMIT);
        app.verb(["reload"]).expect_success();
    }
    load.wait_for_more(50, LIMIT);
    let report = load.stop();
    assert_eq!((report.disturbed(), report.idle_closes), (0, 0), "{report}");
}

/// Not tried with the protection (the primary's own copy of each slot) removed.
#[test]
fn way_4_the_accept_queue_of_a_closed_reuseport_listener_is_reset() {
    if !can_steer() {
        return missing!("dispatch in the kernel");
    }
    let Some(builder) = newest() else { return };
    let mut app = builder.workers(2).options(["--dispatch", "kernel"]).start();
    let target = app.address();
    let stopped = app.worker_pids()[0];
    assert!(procs::signal(stopped, Signal::STOP));
    eventually(LIMIT, "a stopped process", || {
        procs::stat(stopped).filter(|stat| stat.state == 'T')
    });
    let mut queued: Vec<_> = (0..8).map(|_| Kept::open(&target)).collect();
    for connection in &mut queued {
        connection.ask("/");
    }
    assert!(app.kill_worker(stopped));
    for mut connection in queued {
        connection.answer();
    }
}

/// Not tried with the protection (ready is who listens) removed.
#[test]
fn way_5_readiness_is_guessed_by_a_timer() {
    let Some(builder) = newest() else { return };
    let builder = builder.env("LISTEN_AFTER_MS", "1500");
    let mut app = builder.workers(1).start();
    let target = app.address();
    let events = app.events();
    let load = Load::new(target).clients(4).start();
    let reload = app.start_verb(["reload"]);
    let mut listening = BTreeSet::new();
    let old = loop {
        let event = events.next_before(LIMIT).unwrap();
        if event["event"] == "listening" {
            listening.insert(event["worker"].as_u64());
        } else if event["to"] == "draining" {
            break event["worker"].as_u64();
        }
    };
    let successor = old.map(|id| id + 1);
    assert!(listening.contains(&successor), "{listening:?}");
    load.wait_for_more(20, LIMIT);
    load.stop().expect_none_lost();
    reload.finish(LIMIT).expect_success();
}

/// How many workers serve, by the reports of one rollout.
#[track_caller]
fn fewest_ready(app: &mut App, workers: usize) -> usize {
    let events = app.events();
    app.verb(["reload"]).expect_success();
    let is_change = |event: &Value| event["report"] == "changed";
    let mut ready = workers;
    let mut fewest = workers;
    for event in events.so_far().into_iter().filter(is_change) {
        if event["from"] == "ready" {
            ready -= 1;
        }
        if event["to"] == "ready" {
            ready += 1;
        }
        fewest = fewest.min(ready);
    }
    fewest
}

/// Seen to fail with `--max-surge 0 --max-unavailable 1`: for a while nobody served.
#[test]
fn way_6_stop_before_start_leaves_a_gap_in_capacity() {
    let Some(builder) = newest() else { return };
    let mut app = builder.workers(1).start_ready();
    assert_eq!(fewest_ready(&mut app, 1), 1);
}

/// Seen to fail with `--stream-timeout 0s`: the streams were cut at the drain limit.
#[test]
fn way_7_long_connections_are_cut_or_hold_the_old_generation_for_ever() {
    let Some(builder) = newest() else { return };
    let limits = ["--drain-timeout", "1s", "--stream-timeout", "4s"];
    let mut app = builder.workers(1).options(limits).start();
    let mut upgraded = Kept::open(&app.address());
    upgraded
        .send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    upgraded.head();
    let silent = Kept::open(&app.address());
    let reload = begin_reload(&mut app);
    // The drain limit is over for whatever is no stream, and not for the stream.
    silent.expect_end();
    upgraded.send("x");
    upgraded.until(|bytes| (!bytes.is_empty()).then(|| bytes.clear()));
    // It does not go on for ever.
    reload.finish(LIMIT).expect_success();
    upgraded.expect_end();
}

/// Seen to fail with `--max-surge 0 --max-unavailable 2`: for a while nobody served.
#[test]
fn way_8_two_workers_are_replaced_in_parallel_and_none_is_left() {
    let Some(builder) = newest() else { return };
    let mut app = builder.workers(2).start_ready();
    assert_eq!(fewest_ready(&mut app, 2), 2);
}

/// The primary does not replace itself yet. What is promised now: its workers end with it, nothing
/// half-dead keeps the port, and the next primary takes the name and serves.
///
/// Not tried with the protection removed: there are two, the end of the channel and the signal that follows
/// the primary's death.
#[test]
fn way_9_the_primary_is_replaced_and_everything_with_it() {
    let Some(builder) = newest() else { return };
    let mut app = builder.clone().workers(2).start();
    let target = app.address();
    let workers = app.worker_pids();
    get(&target, "/");
    assert!(procs::signal(app.pid(), Signal::KILL));
    for worker in workers {
        assert!(
            procs::wait_gone(worker, LIMIT),
            "{worker} outlives its primary"
        );
    }
    try_get(&target, "/").unwrap_err();
    let port = target.to_string().rsplit(':').next().unwrap().to_owned();
    let mut next = builder.workers(2).env("PORT", port).start();
    assert_eq!(next.address(), target);
    get(&target, "/");
}

/// A reload during a reload, a worker killed in it, and TERM twice. A reused pid cannot be made here: a
/// worker is addressed by its pidfd, which `phalanx-sys` tests.
///
/// Not tried with the protection (a second TERM asks for nothing new) removed.
#[test]
fn way_10_signals_come_at_bad_moments() {
    let Some(builder) = newest() else { return };
    let mut app = builder.workers(2).start();
    let target = app.address();
    let load = Load::new(target.clone()).mode(Mode::KeepAlive).clients(8);
    let load = load.pause(Duration::from_millis(1)).start();
    load.wait_for_more(20, LIMIT);
    let first = app.start_verb(["reload"]);
    app.signal(Signal::USR2);
    let second = app.start_verb(["reload"]);
    first.finish(LIMIT).expect_success();
    second.finish(LIMIT).expect_success();
    load.wait_for_more(20, LIMIT);
    let report = load.stop();
    assert_eq!((report.disturbed(), report.idle_closes), (0, 0), "{report}");
    let mut busy = Kept::open(&target);
    busy.ask("/slow?ms=1000");
    let events = app.events();
    app.signal(Signal::TERM);
    wait_state(&events, "draining");
    app.signal(Signal::TERM);
    busy.answer();
    assert!(app.stop().success());
}

/// phalanx does not recycle workers by age or memory, so this way cannot be walked. The nearest thing: a
/// worker that leaves by its own wish, again and again, is replaced, and no request is lost.
///
/// Not tried with the protection (a worker's own wish is no crash) removed.
#[test]
fn way_11_recycling_is_not_protected_as_a_reload_is() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().workers(2).script("leaves.js").start();
    let target = app.address();
    let events = app.events();
    let load = Load::new(target.clone()).clients(4).start();
    for _ in 0..5 {
        load.wait_for_more(20, LIMIT);
        get(&target, "/leave");
        events.wait_for(LIMIT, "exit", |event| event["event"] == "exit");
        app.wait_ready(LIMIT);
    }
    load.wait_for_more(20, LIMIT);
    load.stop().expect_none_lost();
}
