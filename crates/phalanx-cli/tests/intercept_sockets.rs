//! Programs that do something with their socket before it listens, and primaries that may not look at it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use cluster::{app, expect_in_turn, free_port, get, pid_in};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Target, fixtures, require};

const NOBODY: u32 = 65_534;

/// Python is there wherever Node's own build tools are, but it is no part of what phalanx needs.
fn has_python_and_root() -> bool {
    let root = phalanx_sys::identity::is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "NOT RUN: it takes root"
    );
    require("python3").is_some() && root
}

/// The fixture that behaves in this way, and where it listens.
fn attached(way: &str) -> (AppBuilder, Target) {
    let port = free_port();
    let command = app().workers(2).command(["python3"]);
    let command = command.arg(fixtures::fixture("programs/attached.py"));
    let command = command.arg(way).arg(port.to_string());
    (command, Target::port(port))
}

/// Every worker answers, and no request is lost in a reload.
fn expect_served(mut app: App, target: &Target, way: &str) {
    app.wait_ready(LIMIT);
    let because = app.status()["listeners"][0]["because"].clone();
    if way != "inherited" && because.as_str().unwrap().contains("loaded") {
        expect_in_turn(&mut app, target, 5);
    } else {
        let report = Load::new(target.clone()).requests(60).run();
        report.expect_none_lost();
        assert_eq!(report.pids.len(), 2, "{way}: {report}");
    }
    let load = Load::new(target.clone()).clients(2).request_limit(LIMIT);
    let load = load.start();
    load.wait_until_ok(20, LIMIT);
    for _ in 0..2 {
        app.verb(["reload"]).expect_success();
        load.wait_for_more(20, LIMIT);
    }
    let report = load.stop();
    report.expect_none_lost();
    assert!(report.pids.len() >= 6, "{way}: {report}");
}

#[test]
fn what_was_done_to_a_socket_before_it_listens_is_not_lost() {
    if !has_python_and_root() {
        return;
    }
    for way in ["registered", "duplicated", "inherited"] {
        let (builder, target) = attached(way);
        expect_served(builder.start(), &target, way);
        let (builder, target) = attached(way);
        expect_served(builder.uid(NOBODY).start(), &target, way);
    }
}

#[test]
fn a_program_that_would_choose_among_the_sockets_itself_does_not() {
    if !has_python_and_root() {
        return;
    }
    for uid in [0, NOBODY] {
        let (builder, target) = attached("steering");
        let app = builder.uid(uid).start();
        app.wait_for_line("phalanx chooses", LIMIT);
        expect_served(app, &target, "steering");
    }
}

#[test]
fn a_default_container_is_enough_for_interception() {
    if !has_python_and_root() {
        return;
    }
    let (builder, target) = binds("plain");
    expect_served(builder.contained().start(), &target, "plain");
    let (builder, target) = attached("steering");
    expect_served(builder.contained().start(), &target, "steering");
}

#[test]
fn a_container_in_which_a_program_cannot_be_served_says_so_and_is_never_ready() {
    if !has_python_and_root() {
        return;
    }
    let (builder, _) = attached("registered");
    let output = builder.contained().run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("--cap-add SYS_PTRACE"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("of 2 workers"), "{}", output.stderr);
}

/// The fixture that binds in this way, and where it listens.
fn binds(way: &str) -> (AppBuilder, Target) {
    let port = free_port();
    let command = app().workers(2).command(["python3"]);
    let command = command.arg(fixtures::fixture("programs/binds.py"));
    let command = command.arg(way).arg(port.to_string());
    (command, Target::port(port))
}

#[test]
fn a_helper_on_port_0_is_reached_by_its_own_worker_alone() {
    if require("python3").is_none() {
        return;
    }
    let (builder, target) = binds("helper");
    let mut app = builder.start_ready();
    for generation in 1..=3 {
        let mut pids = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let answer = get(&target, "/");
            assert!(
                answer.starts_with("its own helper"),
                "{generation}: {answer}"
            );
            pids.insert(pid_in(&answer));
        }
        assert_eq!(pids.len(), 2);
        let status = app.status();
        assert_eq!(status["listeners"].as_array().unwrap().len(), 1, "{status}");
        app.verb(["reload"]).expect_success();
    }
}

#[test]
fn listeners_that_come_and_go_leave_nothing_with_the_primary() {
    if require("python3").is_none() {
        return;
    }
    let (builder, target) = binds("passive");
    let mut app = builder.start_ready();
    let primary = app.status()["pid"].as_u64().unwrap();
    let held = || {
        std::fs::read_dir(format!("/proc/{primary}/fd"))
            .unwrap()
            .count()
    };
    get(&target, "/10");
    let before = held();
    for _ in 0..4 {
        assert!(get(&target, "/250").starts_with("opened 250"));
    }
    let few = || (held() <= before + 4).then_some(());
    eventually(LIMIT, "the descriptors come back", few);
    app.wait_status(LIMIT, |status| {
        status["listeners"].as_array().unwrap().len() == 1
    });
}

#[test]
fn workers_share_a_unix_path_that_the_command_names() {
    if require("python3").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let application = fixtures::root().join("fixtures/programs");
    let bind = format!("unix:{}", path.display());
    let mut ways = vec![
        app()
            .command(["python3"])
            .arg(fixtures::fixture("programs/path.py"))
            .arg(&path),
    ];
    if require("gunicorn").is_some() {
        let gunicorn = app()
            .cwd(&application)
            .command(["gunicorn", "--bind", &bind, "wsgi:app"]);
        ways.push(gunicorn);
    }
    for way in ways {
        let mut app = way.workers(2).start_ready();
        let target = Target::Unix(path.clone());
        let load = Load::new(target).clients(4).request_limit(LIMIT).start();
        load.wait_until_ok(100, LIMIT);
        for _ in 0..2 {
            app.verb(["reload"]).expect_success();
            load.wait_for_more(50, LIMIT);
        }
        let report = load.stop();
        report.expect_none_lost();
        assert!(report.pids.len() >= 4, "{report}");
        let status = app.status();
        assert_eq!(status["listeners"].as_array().unwrap().len(), 1, "{status}");
        assert!(app.stop().success());
        assert!(!path.exists());
    }
}

#[test]
fn a_worker_that_listens_where_phalanx_has_no_part_is_told_of() {
    if require("python3").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = fixtures::fixture("programs/path.py");
    let shell = format!("exec python3 {} \"$WHERE\"", script.display());
    let app = app().workers(1).command(["sh", "-c", &shell]);
    let app = app.env("WHERE", directory.path().join("private"));
    let mut app = app.start_ready();
    app.wait_for_line("listens only where phalanx has no part in it", LIMIT);
    assert_eq!(app.status()["unseen"], 1);
    let shown = app.verb(["status"]).expect_success().stdout;
    assert!(
        shown.contains("not dispatched: 1 of the workers"),
        "{shown}"
    );

    let workers = app.worker_pids();
    let refused = app.verb(["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--allow-unseen"), "{refused:?}");
    assert_eq!(app.worker_pids(), workers);
    app.verb(["reload", "--allow-unseen"]).expect_success();
    assert_ne!(app.worker_pids(), workers);
    assert!(app.stop().success());
}
