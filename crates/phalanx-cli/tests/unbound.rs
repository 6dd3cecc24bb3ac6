//! Programs that have no channel: supervised like all others, and asked to stop by a signal.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use cluster::{app, restarts, wait_state};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, procs};

/// Says what became of its environment and which signals come, and ends at the stop signal.
const PROGRAM: &str = r#"
    trap 'echo "got TERM"; exit 0' TERM
    trap 'echo "got USR1"; exit 0' USR1
    echo "position $PHALANX_POSITION channel ${NODE_CHANNEL_FD-none}"
    while :; do sleep 1000 & wait; done
"#;

/// A shell that waits for signals.
fn waiting(options: &[&str]) -> AppBuilder {
    app()
        .workers(2)
        .options(["--adopt", "none"])
        .options(options)
        .env("NODE_CHANNEL_FD", "77")
        .command(["sh", "-c", PROGRAM])
}

/// How many lines of an app's output have this part.
fn count(app: &App, part: &str) -> usize {
    let lines = app.lines().all();
    lines.iter().filter(|line| line.text.contains(part)).count()
}

/// Waits until so many workers have heard a signal, or are prepared for one: each is ready as soon as it runs.
#[track_caller]
fn wait_count(app: &App, part: &str, wanted: usize) {
    let what = format!("{wanted} lines with {part:?}");
    eventually(LIMIT, &what, || (count(app, part) >= wanted).then_some(()));
}

#[test]
fn a_program_without_a_channel_is_ready_by_running_and_gets_no_channel() {
    let mut app = waiting(&[]).start_ready();
    app.wait_for_line("position 0 channel none", LIMIT);
    app.wait_for_line("position 1 channel none", LIMIT);
    assert!(app.stop().success());
    assert_eq!(count(&app, "got TERM"), 2);
}

#[test]
fn a_program_without_a_channel_is_replaced_when_it_dies_and_at_a_reload() {
    const PREPARED: &str = "channel none";
    let mut app = waiting(&["--stop-signal", "USR1"]).start_ready();
    let before = app.status();
    let events = app.events();
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    wait_state(&events, "ready");
    let after = app.wait_ready(LIMIT);
    assert_eq!(restarts(&after), restarts(&before) + 1);
    wait_count(&app, PREPARED, 3);
    let old = app.worker_pids();
    app.verb(["reload"]).expect_success();
    let new = app.worker_pids();
    assert!(old.iter().all(|pid| !new.contains(pid)), "{old:?} {new:?}");
    assert!(old.iter().all(|&pid| !procs::is_alive(pid)));
    wait_count(&app, "got USR1", 2);
    app.verb(["scale", "3"]).expect_success();
    wait_count(&app, PREPARED, 6);
    app.verb(["scale", "1"]).expect_success();
    wait_count(&app, "got USR1", 4);
    assert!(app.stop().success());
    assert_eq!(count(&app, "got USR1"), 5, "one word to each");
}

#[test]
fn a_program_that_ignores_its_stop_signal_gets_term_and_is_killed_at_last() {
    let mut app = app()
        .workers(1)
        .options(["--adopt", "none", "--stop-signal", "USR1"])
        // It has to say its word before it is killed.
        .options(["--drain-timeout", "200ms", "--kill-timeout", "5s"])
        .command([
            "sh",
            "-c",
            "trap '' USR1; trap 'echo \"got TERM\"' TERM; echo deaf; while :; do sleep 1000 & wait; done",
        ])
        .start_ready();
    app.wait_for_line("deaf", LIMIT);
    assert!(app.stop().success());
    assert_eq!(count(&app, "got TERM"), 1);
}
