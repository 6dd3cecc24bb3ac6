//! Addresses that Node servers cannot have, and such as they close and open again.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::net::TcpListener;
use std::time::Duration;

use cluster::{app, expect_in_turn, get, has_listeners, ids, try_get};
use phalanx_testkit::control::Events;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Target, node};

#[test]
fn an_address_in_use_reaches_the_script_as_its_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for node in node::require_versions() {
        for dispatch in ["handoff", "shared", "auto"] {
            let output = app()
                .workers(1)
                .options(["--dispatch", dispatch])
                .env("PORT", &port)
                .node(&node, "in-use.js")
                .run_to_end(LIMIT);
            assert!(
                output.stdout.contains("error code = EADDRINUSE"),
                "{node:?} {output:?}"
            );
            assert_eq!(output.status.code(), Some(1), "{node:?} {output:?}");
        }
    }
}

#[test]
fn the_same_address_twice_in_one_worker_is_in_use() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "twice.js").start();
        let target = app.address();
        for _ in 0..2 {
            assert!(
                get(&target, "/").contains("second = EADDRINUSE"),
                "{node:?}"
            );
        }
    }
}

#[test]
fn a_closed_server_refuses_until_it_listens_again() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .options(["--drain-timeout", "1s"])
            .node(&node, "reopen.js")
            .start();
        app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        let (target, other) = reopened_and_other(&mut app);
        let events = app.events();
        app.verb(["send", r#""close""#]).expect_success();
        wait_said(&events, "closed", 2);
        eventually(LIMIT, "a refused connection", || {
            try_get(&target, "/").err()
        });
        expect_in_turn(&mut app, &other, 2);
        app.verb(["send", r#""listen""#]).expect_success();
        wait_listening(&events, 2);
        let again = app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        assert!(
            again["listeners"].to_string().contains(&target.to_string()),
            "{node:?} {again}"
        );
        expect_in_turn(&mut app, &target, 2);
        assert_eq!(cluster::restarts(&app.status()), 0, "{node:?}");
    }
}

#[test]
fn one_worker_that_closes_its_server_leaves_its_share_to_the_others() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .options(["--drain-timeout", "1s"])
            .node(&node, "reopen.js")
            .start();
        app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        let (target, _) = reopened_and_other(&mut app);
        let events = app.events();
        let status = app.status();
        // Node 26 resets connections that it has not read from yet when it closes a server.
        let load = (node.major < 26).then(|| Load::new(target.clone()).clients(8).start());
        if let Some(load) = &load {
            load.wait_for_more(50, LIMIT);
        }
        app.verb(["send", "--to", &ids(&status)[0].to_string(), r#""close""#])
            .expect_success();
        wait_said(&events, "closed", 1);
        if let Some(load) = load {
            load.wait_for_more(50, LIMIT);
            load.stop().expect_none_lost();
        }
        let report = Load::new(target).requests(6).run();
        let left = phalanx_testkit::app::pids(&status)[1];
        assert_eq!(report.pids.get(&left), Some(&6), "{node:?} {report}");
    }
}

#[test]
fn a_server_that_is_closed_under_load_does_not_hold_up_another() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .options(["--drain-timeout", "1s"])
            .node(&node, "reopen.js")
            .start();
        app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        let (target, other) = reopened_and_other(&mut app);
        let events = app.events();
        for _ in 0..3 {
            let load = Load::new(target.clone())
                .clients(16)
                .request_limit(Duration::from_secs(3))
                .start();
            load.wait_for_more(100, LIMIT);
            app.verb(["send", r#""close""#]).expect_success();
            wait_said(&events, "closed", 2);
            drop(load);
            expect_in_turn(&mut app, &other, 3);
            app.verb(["send", r#""listen""#]).expect_success();
            wait_listening(&events, 2);
            expect_in_turn(&mut app, &target, 3);
        }
    }
}

/// The addresses of `reopen.js`: of the server that obeys, and of the one that stays.
fn reopened_and_other(app: &mut App) -> (Target, Target) {
    let mut targets = app.addresses();
    if get(&targets[0], "/").starts_with("other") {
        targets.reverse();
    }
    let [target, other] = targets.try_into().unwrap();
    (target, other)
}

/// Waits until so many messages of workers say this.
#[track_caller]
fn wait_said(events: &Events, what: &str, count: usize) {
    for _ in 0..count {
        events.wait_for(LIMIT, what, |event| {
            event["event"] == "message" && event["message"] == what
        });
    }
}

/// Waits until so many workers listen again: a script hears of it before the primary does.
#[track_caller]
fn wait_listening(events: &Events, count: usize) {
    for _ in 0..count {
        events.wait_for(LIMIT, "listening", |event| event["event"] == "listening");
    }
}
