//! How workers and apps leave: newcomers are refused at a stop and served at everything else, what has arrived is
//! served, and a listener outlives the worker that closes it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::io::ErrorKind;

use cluster::{answer, app, ask, connect, side_by_side, try_get};
use phalanx_sys::identity;
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::lines::Stream;
use phalanx_testkit::load::Failure;
use phalanx_testkit::node::NodeBinary;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{LIMIT, Load, Report, Signal, Target, fixtures, node, require};

const DISPATCHES: [&str; 3] = ["kernel", "handoff", "shared"];

#[test]
fn a_stop_refuses_newcomers_and_serves_what_was_queued() {
    if node::require().is_none() {
        return;
    }
    side_by_side(DISPATCHES, |dispatch| {
        let builder = app().workers(1).options(["--dispatch", dispatch]);
        let mut app = builder.script("slow.js").start_ready();
        let target = app.address();
        let mut first = connect(&target).unwrap();
        ask(first.as_mut(), "/held?tag=first").unwrap();
        app.wait_for_line("in service first", LIMIT);
        let mut last = connect(&target).unwrap();
        // The worker does not turn to the others before the primary has heard of the stop.
        let mut busy = connect(&target).unwrap();
        ask(busy.as_mut(), "/busy?ms=500").unwrap();
        let mut queued: Vec<_> = (0..20).map(|_| connect(&target).unwrap()).collect();
        for connection in &mut queued {
            ask(connection.as_mut(), "/?ms=0").unwrap();
        }
        app.signal(Signal::TERM);
        // While the first is still in service.
        let refused = eventually(LIMIT, "a refusal", || try_get(&target, "/").err());
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{dispatch}");
        ask(last.as_mut(), "/free").unwrap();
        for connection in queued.iter_mut().chain([&mut busy, &mut first, &mut last]) {
            assert!(answer(connection.as_mut()).is_ok(), "{dispatch}");
        }
        assert!(app.wait_exit(LIMIT).success(), "{dispatch}");
    });
}

/// Servers of each way to reach a worker, with a worker alone.
fn servers() -> Vec<(&'static str, AppBuilder)> {
    let python = |app: AppBuilder| {
        let server = fixtures::fixture("programs/binds.py");
        let words = ["python3", server.to_str().unwrap(), "plain", "0"];
        app.option("--adopt").option("intercept").command(words)
    };
    let mut servers = Vec::new();
    if node::require().is_some() {
        let by = |dispatch| app().options(["--dispatch", dispatch]).script("slow.js");
        servers.extend([("kernel", by("kernel")), ("handoff", by("handoff"))]);
    }
    if require("python3").is_some() {
        servers.push(("intercepted", python(app())));
        if identity::is_root() {
            servers.push(("intercepted, unprivileged", python(app().uid(65_534))));
        }
    }
    servers
}

fn load(target: &Target) -> Load {
    Load::new(target.clone())
        .clients(4)
        .path("/?ms=20")
        .request_limit(LIMIT)
}

#[test]
fn the_last_worker_that_leaves_is_not_fed() {
    for (server, builder) in servers() {
        // Whoever were to wait for one of these limits would not be there in time.
        let alone = [
            "--drain-timeout",
            "1h",
            "--settle-timeout",
            "1h",
            "--workers",
            "1",
            "--max-surge",
            "0",
            "--max-unavailable",
            "1",
        ];
        let mut app = builder.options(alone).start_ready();
        let target = app.address();
        let load = load(&target).start();
        for _ in 0..3 {
            load.wait_for_more(50, LIMIT);
            app.verb(["reload"]).expect_success();
        }
        load.wait_for_more(50, LIMIT);
        assert!(app.stop().success(), "{server}");
        expect_only_refused(server, &load.stop());
    }
}

#[track_caller]
fn expect_only_refused(server: &str, report: &Report) {
    let refused = report.count(Failure::Refused);
    assert!(
        report.ok > 0 && report.failed() == refused,
        "{server}: {report}"
    );
}

#[test]
fn a_listener_outlives_the_workers_that_close_it() {
    // Node 26 resets what it has accepted and not read from when it closes a server.
    let versions = node::require_versions().into_iter();
    for node in versions.filter(|node| [18, 24].contains(&node.major)) {
        for dispatch in ["kernel", "handoff"] {
            for workers in [1, 2] {
                let builder = app().workers(workers).options(["--dispatch", dispatch]);
                let mut app = builder.node(&node, "gives-up.js").start_ready();
                let target = app.address();
                let load = Load::new(target.clone())
                    .clients(4)
                    .request_limit(LIMIT)
                    .start();
                let name = format!("Node {}, {dispatch}, {workers} workers", node.major);
                for way in ["/throw", "/exit"] {
                    load.wait_for_more(50, LIMIT);
                    for _ in 0..workers {
                        assert!(try_get(&target, way).is_ok(), "{name}");
                    }
                    app.wait_ready(LIMIT);
                }
                load.wait_for_more(50, LIMIT);
                let report = load.stop();
                assert!(report.ok > 0 && report.disturbed() == 0, "{name}: {report}");
                assert!(app.stop().success(), "{name}");
            }
        }
    }
}

#[test]
fn a_worker_that_listens_nowhere_is_asked_as_nodes_primary_asks() {
    for node in node::require_versions() {
        let mut app = app().workers(1).node(&node, "told.js").start();
        app.wait_for_line("runs", LIMIT);
        assert!(app.stop().success(), "{node:?}");
        let told = app.lines().text(Stream::Stdout);
        assert!(
            told.contains("told: disconnect") && !told.contains("SIGTERM"),
            "{node:?}: {told}"
        );
    }
}

/// Stops an app, long before the limit for drains: what was printed.
fn stop_of(node: &NodeBinary, kind: &str) -> String {
    let builder = app().workers(1).options(["--drain-timeout", "1h"]);
    let mut app = builder.node(node, "kept-alive.js").arg(kind).start_ready();
    let target = app.address();
    assert!(try_get(&target, "/").is_ok(), "{node:?}");
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success(), "{node:?} {kind}");
    app.lines().text(Stream::Stdout)
}

#[test]
fn a_worker_without_work_ends_at_once_and_work_after_the_answer_is_finished() {
    let versions = node::require_versions().into_iter();
    let some = versions.filter(|node| [18, 22, 26].contains(&node.major));
    side_by_side(some, |node| {
        stop_of(&node, "interval");
        stop_of(&node, "word");
        let said = stop_of(&node, "work");
        assert!(said.contains("work is done"), "{node:?}: {said}");
    });
}
