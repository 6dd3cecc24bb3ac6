//! Polite drain: a worker that leaves closes no connection on which a request may be on its way. It says
//! `Connection: close` in the next answer, and ends as soon as nothing is left.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::time::Duration;

use cluster::app;
use cluster::kept::{Answer, Kept, find};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::node::NodeBinary;
use phalanx_testkit::wait::Deadline;
use phalanx_testkit::{App, LIMIT, Load, Mode, Process, node};

/// An app of one worker. What is open to it when it is told to leave is what a test is about.
fn scene(node: &NodeBinary) -> AppBuilder {
    app().workers(1).node(node, "polite.js")
}

/// Begins a reload, and waits until the old worker was told to leave: it serves nobody new then.
#[track_caller]
fn begin_reload(app: &mut App) -> Process {
    let reload = app.start_verb(["reload"]);
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().into_iter().flatten();
        let drains = workers.filter(|one| one["state"] == "draining").count() == 1;
        drains && status["listeners"][0]["workers"] == 1
    });
    reload
}

#[test]
fn clients_that_never_pause_hold_no_worker_and_lose_nothing() {
    for node in node::require_versions() {
        for pause in [0, 20, 400] {
            let mut app = app().workers(2).node(&node, "polite.js").start();
            let target = app.address();
            let load = Load::new(target).mode(Mode::KeepAlive).clients(12);
            let load = load.pause(Duration::from_millis(pause)).start();
            load.wait_until_ok(24, LIMIT);
            // The drain limit is 30 s; two workers are replaced twice.
            let deadline = Deadline::after(Duration::from_secs(20));
            for _ in 0..2 {
                app.verb(["reload"]).expect_success();
                load.wait_for_more(24, LIMIT);
            }
            let is_late = deadline.has_passed();
            let report = load.stop();
            let name = format!("{node:?}, pause {pause} ms: {report}");
            assert_eq!((report.disturbed(), report.idle_closes), (0, 0), "{name}");
            assert!(report.announced_closes > 0, "{name}");
            assert!(!is_late, "{name}");
        }
    }
}

#[test]
fn each_connection_ends_after_its_next_answer() {
    for node in node::require_versions() {
        let mut app = scene(&node).start();
        let target = app.address();
        let mut idle = Kept::open(&target);
        idle.ask("/");
        assert!(!idle.answer().closes());
        let fresh = Kept::open(&target);
        let mut half = Kept::open(&target);
        half.send("GET / HTTP/1.1\r\nHo");
        let mut served = Kept::open(&target);
        served.ask("/slow?ms=2000");
        let mut begun = Kept::open(&target);
        begun.ask("/begun");
        begun.head();
        let mut uploading = Kept::open(&target);
        uploading
            .send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345");
        let mut kept = Kept::open(&target);
        kept.ask("/kept");
        kept.answer();

        let reload = begin_reload(&mut app);
        for (path, mut connection) in [("/", idle), ("/", fresh), ("/kept", kept)] {
            connection.ask(path);
            let answer = connection.answer();
            assert!(answer.closes(), "{node:?}: {answer:?}");
            assert!(!answer.head.contains("keep-alive"), "{node:?}: {answer:?}");
            connection.expect_closed();
        }
        half.send("st: localhost\r\n\r\n");
        uploading.send("67890");
        for mut connection in [half, uploading, served] {
            let answer = connection.answer();
            assert!(answer.closes(), "{node:?}: {answer:?}");
            connection.expect_closed();
        }
        // This one had been begun without a word of the end; the next one says it.
        begun.until(|bytes| find(bytes, b"0\r\n\r\n").map(|end| bytes.drain(..end + 5).count()));
        begun.ask("/");
        assert!(begun.answer().closes(), "{node:?}");
        begun.expect_closed();
        reload.finish(LIMIT).expect_success();
    }
}

#[test]
fn pipelined_requests_are_all_answered_and_only_the_last_says_close() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
    };
    for node in node::require_versions() {
        let mut app = scene(&node).start();
        let target = app.address();
        let mut before = Kept::open(&target);
        before.send(&(get("/slow?ms=1500") + &get("/slow?ms=1000") + &get("/")));
        let mut after = [
            Kept::open(&target),
            Kept::open(&target),
            Kept::open(&target),
        ];
        let reload = begin_reload(&mut app);
        after[0].send(&get("/").repeat(5));
        after[1].send(&(get("/") + &post("/upload") + &get("/slow?ms=50") + &get("/") + &get("/")));
        after[2].send(&(post("/upload").repeat(4) + &get("/")));
        for connection in &mut after {
            let answers: Vec<_> = (0..5).map(|_| connection.answer()).collect();
            let closes: Vec<_> = answers.iter().map(Answer::closes).collect();
            assert_eq!(
                closes,
                [false, false, false, false, true],
                "{node:?}: {answers:?}"
            );
        }
        after.into_iter().for_each(Kept::expect_closed);
        // The third was answered in full before the drain, and waits behind the second.
        assert!(!before.answer().closes(), "{node:?}");
        assert!(!before.answer().closes(), "{node:?}");
        if !before.answer().closes() {
            before.ask("/");
            assert!(before.answer().closes(), "{node:?}");
        }
        before.expect_closed();
        reload.finish(LIMIT).expect_success();
    }
}
