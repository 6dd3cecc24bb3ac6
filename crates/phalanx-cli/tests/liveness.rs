//! Who is judged to be stuck, and who is not: a primary that was stopped, workers that take nothing.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::time::Duration;

use cluster::{app, get};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::{App, LIMIT, Signal, fixtures, node, require, wait};

/// Longer than any limit of these tests.
const PAUSE: Duration = Duration::from_millis(2500);

/// Stops the primary for a while, as a suspended machine does.
fn pause(app: &App) {
    app.signal(Signal::STOP);
    // The pause is what is tested; nothing else is waited for.
    wait::try_eventually(PAUSE, || None::<()>);
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
        .options(["--bind", "127.0.0.1:0", "--watchdog", "1s"])
        .command(["python3"])
        .arg(script)
        .arg("notify")
        .arg("pings")
        .start_ready();
    let before = app.worker_pids();
    for _ in 0..2 {
        pause(&app);
        app.wait_for_line("the primary did not run", LIMIT);
        get(&app.address(), "/");
        assert_eq!(app.worker_pids(), before);
    }
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
    let mut app = app()
        .workers(2)
        .options(["--ready-timeout", "1500ms"])
        .script("http.js")
        .start_ready();
    let before = app.worker_pids();
    let events = app.events();
    let reload = app.start_verb(["reload"]);
    events.wait_for(LIMIT, "a successor", |event| event["event"] == "fork");
    pause(&app);
    reload.finish(LIMIT).expect_success();
    let after = app.worker_pids();
    assert!(
        after.iter().all(|pid| !before.contains(pid)),
        "{before:?} {after:?}"
    );
}
