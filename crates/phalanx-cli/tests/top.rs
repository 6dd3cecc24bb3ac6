//! `phalanx top` in a real terminal: tmux, whose panes are terminals that a test can read and type into.
#![cfg(feature = "top")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this whole file is a test"
)]

use crate::support;
use crate::support::terminal;

use phalanx_testkit::{LIMIT, Process, Signal};
use support::{app, expect_refused, phalanx, run_alone};
use terminal::Terminal;

#[test]
fn without_a_terminal_it_says_so_and_ends_with_64() {
    let output = run_alone(&["top"]);
    expect_refused(
        &output,
        64,
        &["top draws on a terminal", "`phalanx status`"],
    );
}

#[test]
fn the_view_shows_the_workers_within_80_by_24_and_gives_the_terminal_back() {
    let mut app = app().workers(2).script("http.js").start_ready();
    let Some(terminal) = Terminal::open(app.directory(), &[], "top") else {
        return;
    };
    let screen = terminal.wait_for("2 of 2 workers ready");
    let lines: Vec<_> = screen.lines().collect();
    assert!(
        lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
    assert!(
        lines[0].starts_with(" app  2 of 2 workers ready  generation 1  round-robin"),
        "{screen}"
    );
    assert!(lines[1].starts_with(" listening on 127.0.0.1:"), "{screen}");
    for position in ["  0 ready", "  1 ready"] {
        assert!(screen.contains(position), "{screen}");
    }
    assert!(screen.contains("q quit"), "{screen}");
    terminal.keys(&["?"]);
    terminal.wait_for("replace all workers, losing no request");
    terminal.keys(&["Escape"]);
    terminal.wait_for("q quit");
    terminal.keys(&["q"]);
    let screen = terminal.wait_for("ended with 0");
    assert!(!screen.contains("workers ready"), "{screen}");
    assert!(app.stop().success());
}

#[test]
fn keys_reload_scale_replace_and_change_the_policy() {
    let mut app = app().workers(2).script("http.js").start_ready();
    let Some(terminal) = Terminal::open(app.directory(), &[], "top app") else {
        return;
    };
    terminal.wait_for("2 of 2 workers ready");
    terminal.keys(&["+"]);
    terminal.wait_for("3 of 3 workers ready");
    terminal.keys(&["-"]);
    terminal.wait_for("2 of 2 workers ready");
    terminal.wait_for("one worker fewer: done");
    let before = app.wait_ready(LIMIT);
    terminal.keys(&["x"]);
    let id = before["workers"][0]["id"].as_u64().unwrap();
    terminal.wait_for(&format!("app: replace worker {id}?"));
    terminal.keys(&["y"]);
    terminal.wait_for(&format!("replace worker {id}: done"));
    assert_ne!(
        app.wait_ready(LIMIT)["workers"][0]["pid"],
        before["workers"][0]["pid"]
    );
    terminal.keys(&["p"]);
    terminal.wait_for("least-connections");
    terminal.keys(&["Down", "Enter"]);
    terminal.wait_for("policy least-connections: done");
    terminal.keys(&["r", "y"]);
    terminal.wait_for("generation 2  least-connections");
    terminal.wait_for("reload: generation 2 serves");
    terminal.keys(&["b"]);
    terminal.wait_for("app: roll back?");
    terminal.keys(&["n"]);
    terminal.wait_for("q quit");
    let status = app.wait_ready(LIMIT);
    assert_eq!(
        (status["generation"].as_u64(), status["target"].as_u64()),
        (Some(2), Some(2))
    );
    assert!(app.stop().success());
}

#[test]
fn an_app_that_stops_is_said_and_found_again_when_it_is_back() {
    let directory = support::directory();
    let server = support::fixture("http.js");
    let words = ["run", "--name", "web", "-n", "1", &server];
    let start = || {
        let app = Process::start(phalanx(directory.path(), &words));
        app.wait_for_line("ready: 1 of 1", LIMIT);
        app
    };
    let mut app = start();
    let Some(terminal) = Terminal::open(directory.path(), &[], "top web") else {
        return;
    };
    terminal.wait_for("1 of 1 worker ready");
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
    terminal.wait_for("asking again)");
    let mut app = start();
    terminal.wait_until("the app is seen again", |screen| {
        screen.contains("1 of 1 worker ready") && !screen.contains("asking")
    });
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
}

#[test]
fn an_app_that_does_not_answer_is_said_and_heard_again() {
    let mut app = app().workers(1).script("http.js").start_ready();
    let Some(terminal) = Terminal::open(app.directory(), &[], "top") else {
        return;
    };
    terminal.wait_for("1 of 1 worker ready");
    app.signal(Signal::STOP);
    terminal.wait_for("no answer for");
    app.signal(Signal::CONT);
    terminal.wait_until("it is heard again", |screen| {
        screen.contains("listening on 127.0.0.1:") && !screen.contains("no answer")
    });
    assert!(app.stop().success());
}

#[test]
fn an_app_that_gave_up_no_connection_is_heard_all_the_while() {
    let mut app = app().workers(1).script("http.js").start_ready();
    let Some(terminal) = Terminal::open(app.directory(), &[], "top") else {
        return;
    };
    terminal.wait_for("1 of 1 worker ready");
    app.signal(Signal::STOP);
    terminal.wait_for("has not answered for");
    // What happens before it is asked again is told, too.
    app.signal(Signal::CONT);
    app.verb(["reload"]).expect_success();
    terminal.wait_for("reload: generation 2 serves");
    assert!(app.stop().success());
}

#[test]
fn of_several_apps_one_is_chosen() {
    let directory = support::directory();
    let server = support::fixture("http.js");
    let start = |name: &str| {
        let words = ["run", "--name", name, "-n", "1", &server];
        let app = Process::start(phalanx(directory.path(), &words));
        app.wait_for_line("ready: 1 of 1", LIMIT);
        app
    };
    let apps = ["blue", "green"].map(start);
    let Some(terminal) = Terminal::open(directory.path(), &[], "monit") else {
        return;
    };
    terminal.wait_for("blue");
    terminal.keys(&["Down", "Enter"]);
    terminal.wait_for(" green  1 of 1 worker ready");
    terminal.keys(&["a"]);
    terminal.wait_for("Enter: watch");
    terminal.keys(&["Up", "Enter"]);
    terminal.wait_for(" blue  1 of 1 worker ready");
    for mut app in apps {
        app.signal(Signal::TERM);
        assert!(app.wait_exit(LIMIT).success());
    }
}

#[test]
fn no_color_and_a_plain_locale_are_respected() {
    let mut app = app().workers(1).script("http.js").start_ready();
    let plain = ["NO_COLOR=1", "LC_ALL=C"];
    let Some(terminal) = Terminal::open(app.directory(), &plain, "top") else {
        return;
    };
    terminal.wait_for("1 of 1 worker ready");
    let raw = terminal.screen_with_escapes();
    // SGR: 30 to 38 and 40 to 48 choose a colour; 39 and 49 are the terminal's own.
    let has_colour = |raw: &str| {
        let chosen =
            (0..=8).flat_map(|last| [format!("\u{1b}[3{last}"), format!("\u{1b}[4{last}")]);
        chosen.into_iter().any(|one| raw.contains(&one))
    };
    assert!(!has_colour(&raw), "{raw:?}");
    assert!(raw.is_ascii(), "{raw:?}");
    drop(terminal);
    let rich = Terminal::open(app.directory(), &["LC_ALL=C.UTF-8"], "top").expect("tmux was there");
    rich.wait_for("1 of 1 worker ready");
    let raw = rich.screen_with_escapes();
    assert!(has_colour(&raw) && raw.contains('─'), "{raw:?}");
    assert!(app.stop().success());
}
