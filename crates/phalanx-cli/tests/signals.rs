//! What each signal does, at any moment.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::time::Duration;

use cluster::{app, connect, wait_report};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::wait::now;
use phalanx_testkit::{App, LIMIT, Signal};

/// An app whose workers tell what they know of themselves.
fn plain(workers: usize) -> App {
    app().workers(workers).script("http.js").start_ready()
}

#[test]
fn term_lets_workers_finish_and_a_second_term_changes_nothing() {
    let mut app = app().workers(2).script("slow.js").start();
    let target = app.address();
    let mut connection = connect(&target).unwrap();
    cluster::ask(connection.as_mut(), "/?ms=800&tag=last").unwrap();
    app.wait_for_line("in service last", LIMIT);
    let events = app.events();
    app.signal(Signal::TERM);
    wait_report(&events, "stop_started");
    app.signal(Signal::TERM);
    assert!(cluster::answer(connection.as_mut()).is_ok());
    assert!(app.wait_exit(LIMIT).success());
    app.wait_family_gone(LIMIT);
}

#[test]
fn int_is_graceful_and_twice_it_is_fast() {
    for (signals, is_answered) in [(1, true), (2, false)] {
        let mut app = app().workers(1).script("slow.js").start();
        let target = app.address();
        let mut connection = connect(&target).unwrap();
        let time = if is_answered { 800 } else { 60_000 };
        cluster::ask(connection.as_mut(), &format!("/?ms={time}&tag=last")).unwrap();
        app.wait_for_line("in service last", LIMIT);
        let events = app.events();
        app.signal(Signal::INT);
        wait_report(&events, "stop_started");
        for _ in 1..signals {
            app.signal(Signal::INT);
        }
        assert_eq!(cluster::answer(connection.as_mut()).is_ok(), is_answered);
        assert!(app.wait_exit(LIMIT).success());
        app.wait_family_gone(LIMIT);
    }
}

#[test]
fn quit_is_fast() {
    let mut app = app().workers(2).script("slow.js").start();
    let target = app.address();
    let mut connection = connect(&target).unwrap();
    cluster::ask(connection.as_mut(), "/?ms=60000&tag=last").unwrap();
    app.wait_for_line("in service last", LIMIT);
    app.signal(Signal::QUIT);
    assert!(app.wait_exit(LIMIT).success());
    app.wait_family_gone(LIMIT);
    assert!(cluster::answer(connection.as_mut()).is_err());
}

#[test]
fn the_verb_stop_waits_for_the_end_and_no_longer() {
    let mut app = plain(2);
    let began = now();
    app.verb(["stop"]).expect_success();
    // The primary gives a client two seconds to take its answer: this one has to take it.
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(app.try_exit().is_some_and(|status| status.success()));
}

#[test]
fn hup_and_usr2_reload() {
    let mut app = plain(2);
    for (number, signal) in [(2, Signal::HUP), (3, Signal::USR2)] {
        let before = app.worker_pids();
        let primary = app.pid();
        app.signal(signal);
        let status = app.wait_status(LIMIT, |status| {
            is_settled(status) && status["generation"] == number
        });
        assert!(
            pids(&status).iter().all(|pid| !before.contains(pid)),
            "{status}"
        );
        assert_eq!(status["pid"], primary);
    }
}

#[test]
fn ttin_adds_a_worker_and_ttou_removes_one() {
    let mut app = plain(2);
    let kept = app.worker_pids();
    app.signal(Signal::TTIN);
    app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 3);
    app.signal(Signal::TTOU);
    let status = app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 2);
    assert_eq!(pids(&status), kept);
}

#[test]
fn a_signal_during_the_start_is_obeyed() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut app = app().workers(4).script("http.js").start();
        app.status();
        app.signal(signal);
        app.wait_exit(LIMIT);
        app.wait_family_gone(LIMIT);
    }
    for signal in [Signal::HUP, Signal::USR2] {
        let mut app = app().workers(2).script("http.js").start();
        app.status();
        app.signal(signal);
        app.wait_status(LIMIT, |status| {
            is_settled(status) && status["generation"] == 2
        });
    }
}
