//! Releases that are broken in every way: the old one serves on, and nobody outside notices.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::time::Duration;

use cluster::release::Release;
use cluster::{app, wait_report};
use phalanx_testkit::app::{AppBuilder, pids};
use phalanx_testkit::control::Events;
use phalanx_testkit::load::Failure;
use phalanx_testkit::process::Output;
use phalanx_testkit::{App, LIMIT, Load, node};
use serde_json::{Value, json};

/// What crashes or hangs later does so after longer than a busy machine takes to see that it serves before that.
const LATER_MS: &str = "4000";

/// Three workers of it.
fn start(script: &Release, options: &[&str]) -> App {
    let app: AppBuilder = app().workers(3).options(["--kill-timeout", "500ms"]);
    app.options(options)
        .env("AFTER_MS", LATER_MS)
        .command([script.script()])
        .start_ready()
}

/// Deploys a release, reloads with these options under load, and expects that it is refused with
/// these words; that the workers from before still serve, all of them; and that no request was lost.
#[track_caller]
fn expect_refused(release: &str, run: &[&str], reload: &[&str], words: &[&str]) {
    if node::require().is_none() {
        return;
    }
    let script = Release::of("http.js");
    let mut app = start(&script, run);
    let before = app.worker_pids();
    let load = Load::new(app.address()).clients(8).start();
    load.wait_until_ok(50, LIMIT);
    script.deploy(release);
    // What goes back is read anew where it is not a directory of its own.
    let refused = reload_then_mend(&mut app, &script, reload);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for word in words {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    let status = app.wait_ready(LIMIT);
    let after = pids(&status);
    let kept = after.iter().filter(|pid| before.contains(pid)).count();
    assert_eq!(kept, 3, "{before:?} {after:?}");
    assert_eq!(status["generation"], 1);
    load.wait_for_more(50, LIMIT);
    load.stop().expect_none_lost();
}

fn reload_then_mend(app: &mut App, script: &Release, options: &[&str]) -> Output {
    let events = app.events();
    let verb = app.start_verb([&["reload"], options].concat());
    events.wait_for(LIMIT, "a successor", |event| {
        event["event"] == "listening" || is_over(event)
    });
    script.deploy("http.js");
    verb.finish(LIMIT)
}

fn is_over(event: &Value) -> bool {
    event["report"] == "rollout_failed"
}

#[test]
fn a_syntax_error() {
    expect_refused("syntax-error.js", &[], &[], &["SyntaxError"]);
    let canary = ["--canary", "1", "--for", "1s"];
    expect_refused("syntax-error.js", &[], &canary, &["SyntaxError"]);
}

#[test]
fn never_ready() {
    // The limit is that of the good release too, on a busy machine.
    let limit = ["--ready-timeout", "10s"];
    let words = ["was not ready within 10s", "thinking"];
    expect_refused("never-ready.js", &limit, &[], &words);
}

#[test]
fn a_crash_after_seconds_is_caught_by_the_soak_before_there_was_any_request() {
    let words = [
        "ended within its soak time of 10s",
        "the database went away",
    ];
    expect_refused("crashes-later.js", &["--soak", "10s"], &[], &words);
}

/// The canary has connections when it crashes, and takes with it what it had in service: so no load
/// here, and the count of requests is not the point.
#[test]
fn a_crash_after_seconds_is_caught_by_the_watch() {
    if node::require().is_none() {
        return;
    }
    let script = Release::of("http.js");
    let mut app = start(&script, &[]);
    let before = app.worker_pids();
    let events = app.events();
    script.deploy("crashes-later.js");
    let verb = app.start_verb(["reload", "--canary", "1", "--for", "1m"]);
    let started = wait_report(&events, "canary_started");
    assert_eq!(
        (&started["canaries"], &started["watch_ms"]),
        (&json!(1), &json!(60_000))
    );
    assert_eq!(app.status()["watching"], true);
    script.deploy("http.js");
    let refused = verb.finish(LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for word in [
        "crashed (exit code 1)",
        "the database went away",
        "watching 1 worker for 60s",
    ] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    let after = app.wait_ready(LIMIT);
    assert_eq!(
        pids(&after)[1..],
        before[1..],
        "the others were not touched"
    );
    assert_eq!(
        (&after["generation"], &after["watching"]),
        (&json!(1), &json!(false))
    );
}

#[test]
fn a_canary_that_hangs_is_found_out_and_killed() {
    if node::require().is_none() {
        return;
    }
    let script = Release::of("http.js");
    let mut app = start(&script, &["--drain-timeout", "500ms"]);
    let before = app.worker_pids();
    let events = app.events();
    script.deploy("hangs-later.js");
    let verb = app.start_verb(["reload", "--canary", "1", "--for", "1m"]);
    wait_report(&events, "canary_started");
    script.deploy("http.js");
    let refused = verb.finish(LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for word in ["hangs", "counting to infinity"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    assert_eq!(pids(&app.wait_ready(LIMIT))[1..], before[1..]);
}

/// Requests go on, answered with 200 by the others and with 500 by the canary; expects that the canary
/// is found out by its answers, and that no request was lost.
#[track_caller]
fn expect_found_by_its_answers(app: &mut App, deploy: impl FnOnce(), mend: impl FnOnce()) {
    let before = app.worker_pids();
    let load = Load::new(app.address()).clients(8).start();
    load.wait_until_ok(50, LIMIT);
    let events = app.events();
    deploy();
    let verb = app.start_verb(["reload", "--canary", "1", "--for", "1m"]);
    wait_report(&events, "canary_started");
    mend();
    let refused = verb.finish(LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = "requests with a server error, the others 0 of";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    let status = app.wait_ready(LIMIT);
    assert_eq!(generations(&status), [1, 1, 1]);
    assert_eq!(pids(&status)[1..], before[1..]);
    load.wait_for_more(50, LIMIT);
    let report = load.stop();
    // Answers of the canary are bad ones, but answers.
    let lost = report
        .failures
        .keys()
        .find(|one| !matches!(one, Failure::BadStatus(500)));
    assert!(lost.is_none() && report.failed() > 0, "{report}");
}

#[test]
fn a_release_that_only_fails_is_found_out_by_its_answers() {
    for node in node::require_versions() {
        let script = Release::of("http.js");
        let command = [node.path.clone(), script.script()];
        let mut app = app().workers(3).command(command).start_ready();
        let deploy = |fixture: &'static str| script.deploy(fixture);
        expect_found_by_its_answers(&mut app, || deploy("errors.js"), || deploy("http.js"));
    }
}

#[test]
fn a_rust_release_that_only_fails_is_found_out_by_its_answers() {
    let directory = tempfile::tempdir().unwrap();
    let status = directory.path().join("status");
    fs::write(&status, "200").unwrap();
    let program = cluster::example("statuses");
    let command = [
        program.as_os_str(),
        "127.0.0.1:0".as_ref(),
        status.as_os_str(),
    ];
    let mut app = app().workers(3).command(command).start_ready();
    let write = |text: &str| fs::write(&status, text).unwrap();
    expect_found_by_its_answers(&mut app, || write("500"), || write("200"));
}

/// What the states of the workers were while a canary was watched.
fn generations(status: &Value) -> Vec<u64> {
    let workers = status["workers"].as_array().unwrap().iter();
    workers
        .filter_map(|worker| worker["generation"].as_u64())
        .collect()
}

#[test]
fn a_good_release_passes_its_watch_and_the_others_follow() {
    if node::require().is_none() {
        return;
    }
    let script = Release::of("http.js");
    let mut app = start(&script, &[]);
    // Enough to judge errors by and too few for times: on a busy machine either side may be the slower one.
    let load = Load::new(app.address()).clients(4);
    let load = load.pause(Duration::from_millis(100)).start();
    let events: Events = app.events();
    // Longer than a busy machine takes for the two looks at the status.
    let verb = app.start_verb(["reload", "--canary", "34%", "--for", "10s"]);
    wait_report(&events, "canary_started");
    let watched = app.wait_status(LIMIT, |status| generations(status).len() == 3);
    assert_eq!(generations(&watched), [2, 2, 1], "34% of 3 are 2");
    assert_eq!(app.status()["reloading"], true);
    let done = verb.finish(LIMIT).expect_success();
    assert!(
        done.stderr.contains("reload: all well, going on"),
        "{}",
        done.stderr
    );
    assert_eq!(done.stdout, "app reloaded: generation 2\n");
    assert_eq!(generations(&app.wait_ready(LIMIT)), [2, 2, 2]);
    load.stop().expect_none_lost();
}

#[test]
fn a_rollback_returns_to_the_release_before_and_only_once() {
    if node::require().is_none() {
        return;
    }
    let script = Release::of("http.js");
    let mut app = start(&script, &[]);
    let nothing = app.verb(["rollback"]);
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
    assert!(
        nothing.stderr.contains("there is no earlier release"),
        "{nothing:?}"
    );
    app.verb(["reload"]).expect_success();
    let load = Load::new(app.address()).clients(8).start();
    assert_eq!(app.status()["previous"], 1);
    let back = app.verb(["rollback"]).expect_success();
    assert_eq!(back.stdout, "app rolled back: generation 1\n");
    let status = app.wait_ready(LIMIT);
    assert_eq!(
        (&status["generation"], &status["previous"]),
        (&json!(1), &json!(null))
    );
    assert_eq!(generations(&status), [1, 1, 1]);
    assert_eq!(app.verb(["rollback"]).status.code(), Some(1));
    app.verb(["reload"]).expect_success();
    assert_eq!(
        app.status()["generation"],
        3,
        "a number is never used for another release"
    );
    load.stop().expect_none_lost();
}

#[test]
fn a_rollback_during_a_reload_undoes_it() {
    if node::require().is_none() {
        return;
    }
    let script = Release::of("http.js");
    let mut app = start(&script, &[]);
    let load = Load::new(app.address()).clients(8).start();
    let events = app.events();
    let reload = app.start_verb(["reload", "--canary", "1", "--for", "1h"]);
    wait_report(&events, "canary_started");
    app.verb(["rollback"]).expect_success();
    let refused = reload.finish(LIMIT);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("superseded"), "{}", refused.stderr);
    assert_eq!(generations(&app.wait_ready(LIMIT)), [1, 1, 1]);
    load.stop().expect_none_lost();
}

#[test]
fn of_two_workers_one_always_serves() {
    if node::require().is_none() {
        return;
    }
    for limits in [["--max-surge", "2"], ["--max-surge", "100%"]] {
        let mut app = app().workers(2).script("http.js").start_ready();
        let load = Load::new(app.address()).clients(4).start();
        let events = app.events();
        app.verb(["reload", limits[0], limits[1]]).expect_success();
        let mut ready = 2;
        while let Some(event) = events.next_before(LIMIT) {
            if event["report"] == "changed" {
                ready += i32::from(event["to"] == "ready");
                ready -= i32::from(event["from"] == "ready");
                assert!(ready >= 2, "{event}");
            }
            if event["report"] == "rollout_finished" {
                break;
            }
        }
        load.stop().expect_none_lost();
    }
}
