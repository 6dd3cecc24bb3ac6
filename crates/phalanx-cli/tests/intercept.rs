//! Programs that know nothing of phalanx and bind their listeners themselves.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeSet;
use std::net::TcpListener;

use cluster::{
    app, expect_in_turn, expect_none_lost_in_changes, expect_served_after_a_kill, free_port, get,
    pid_in, try_get,
};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Target, fixtures, procs, require};

/// Python is there wherever Node's own build tools are, but it is no part of what phalanx needs.
macro_rules! needs {
    ($($program:literal),+) => {
        if $(require($program).is_none())||+ {
            return;
        }
    };
}

/// The fixture that binds in this way.
fn binds(way: &str, port: u16) -> AppBuilder {
    let script = fixtures::fixture("programs/binds.py");
    let command = app().workers(2).command(["python3"]).arg(script);
    command.arg(way).arg(port.to_string())
}

fn at(port: u16) -> Target {
    Target::Tcp(([127, 0, 0, 1], port).into())
}

fn is_steered(app: &mut App) -> bool {
    let because = app.status()["listeners"][0]["because"].clone();
    because.as_str().unwrap().contains("loaded")
}

/// Every worker answers: in turn where the kernel takes turns.
fn expect_shared(app: &mut App, target: &Target) {
    if is_steered(app) {
        expect_in_turn(app, target, 5);
        return;
    }
    let report = Load::new(target.clone()).requests(40).run();
    report.expect_none_lost();
    assert_eq!(report.pids.len(), app.worker_pids().len(), "{report}");
}

/// How many lines of the workers' output have this part.
fn count(app: &App, part: &str) -> usize {
    let lines = app.lines().all();
    lines.iter().filter(|line| line.text.contains(part)).count()
}

/// Waits until the workers have written so many lines with this part.
#[track_caller]
fn wait_for_lines(app: &App, part: &str, wanted: usize) {
    eventually(LIMIT, part, || (count(app, part) >= wanted).then_some(()));
}

#[test]
fn pythons_own_server_is_clustered_and_reloaded_without_a_loss() {
    needs!("python3");
    let port = free_port();
    let mut app = app()
        .workers(2)
        .command(["python3", "-m", "http.server", "--bind", "127.0.0.1"])
        .arg(port.to_string())
        .cwd(fixtures::root().join("fixtures"))
        .start_ready();
    let status = app.status();
    assert_eq!(status["adoption"], "intercept");
    assert_eq!(
        status["listeners"][0]["address"],
        format!("127.0.0.1:{port}")
    );
    expect_none_lost_in_changes(&mut app);
}

#[test]
fn every_worker_of_a_program_that_binds_port_0_gets_the_same_port() {
    needs!("python3");
    let mut app = binds("plain", 0).start_ready();
    let target = app.address();
    assert_eq!(app.addresses().len(), 1);
    expect_shared(&mut app, &target);
    app.verb(["reload"]).expect_success();
    assert_eq!(app.addresses(), std::slice::from_ref(&target));
    expect_shared(&mut app, &target);
}

#[test]
fn a_program_may_have_several_listeners() {
    needs!("python3");
    let several = binds("several", free_port());
    let mut app = several.options(["--share", "127.0.0.1:0"]).start_ready();
    app.wait_for_line("three listens", LIMIT);
    app.wait_status(LIMIT, |status| {
        let listeners = status["listeners"].as_array().unwrap();
        listeners.len() == 3 && listeners.iter().all(|one| one["workers"] == 2)
    });
    let addresses = app.addresses();
    for (target, name) in addresses.iter().zip(["one", "two", "three"]) {
        assert!(get(target, "/").starts_with(name));
        expect_shared(&mut app, target);
    }
}

#[test]
fn a_program_may_close_its_listener_and_listen_again() {
    needs!("python3");
    for way in ["again", "shut"] {
        let port = free_port();
        let mut app = binds(way, port).start_ready();
        wait_for_lines(&app, "again listens", 2);
        assert!(get(&at(port), "/").starts_with("again"));
        expect_shared(&mut app, &at(port));
        if way == "again" {
            assert_eq!(count(&app, "second while open EADDRINUSE"), 2);
        }
        app.verb(["reload"]).expect_success();
        wait_for_lines(&app, "again listens", 4);
        expect_shared(&mut app, &at(port));
    }
}

#[test]
fn whichever_descendant_binds_or_accepts_is_the_workers() {
    needs!("python3");
    for way in ["children", "sharers", "late"] {
        let port = free_port();
        let mut app = binds(way, port).start_ready();
        let report = Load::new(at(port)).requests(60).run();
        report.expect_none_lost();
        let servers: BTreeSet<u32> = report.pids.keys().copied().collect();
        let workers: BTreeSet<u32> = app.worker_pids().into_iter().collect();
        assert!(servers.len() >= 2, "{way}: {report}");
        assert_eq!(servers.is_disjoint(&workers), way != "late", "{way}");
        assert!(app.stop().success());
        assert!(
            servers.into_iter().all(|pid| !procs::is_alive(pid)),
            "{way}"
        );
    }
}

#[test]
fn what_is_no_tcp_listener_passes_untouched() {
    needs!("python3");
    let port = free_port();
    let mut app = binds("strangers", port).start_ready();
    wait_for_lines(&app, "bound True True", 2);
    expect_shared(&mut app, &at(port));
    let port = free_port();
    let mut app = binds("client", port).start_ready();
    app.wait_status(LIMIT, |status| {
        status["listeners"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["address"] == format!("127.0.0.1:{port}") && one["workers"] == 2)
    });
    wait_for_lines(&app, "connected from 127.0.0.3", 2);
    assert!(get(&at(port), "/").starts_with("client"));
}

#[test]
fn both_families_and_all_options_are_kept() {
    needs!("python3");
    let port = free_port();
    let app = binds("families", port).start_ready();
    app.wait_for_line("v6 listens", LIMIT);
    assert!(get(&at(port), "/").starts_with("v4"));
    let v6 = Target::Tcp(format!("[::1]:{port}").parse().unwrap());
    assert!(get(&v6, "/").starts_with("v6"));
    let port = free_port();
    let app = binds("options", port).start_ready();
    for line in [
        "nodelay True",
        "keepalive True",
        "inheritable False",
        "nonblocking EAGAIN",
    ] {
        wait_for_lines(&app, line, 2);
    }
    get(&at(port), "/");
}

#[test]
fn an_address_in_use_is_the_programs_own_error() {
    needs!("python3");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = binds("plain", port).run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("Address already in use"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_second_cluster_on_the_same_address_fails() {
    needs!("python3");
    let port = free_port();
    let mut first = binds("plain", port).start_ready();
    let output = binds("plain", port).name("second").run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("Address already in use"),
        "{}",
        output.stderr
    );
    expect_shared(&mut first, &at(port));
}

#[test]
fn a_killed_worker_is_replaced_and_what_waited_for_it_is_served() {
    needs!("python3");
    expect_served_after_a_kill(&mut binds("plain", free_port()).start_ready());
}

#[test]
fn node_is_clustered_without_its_channel_and_behind_wrappers() {
    needs!("node");
    let script = fixtures::fixture("http.js");
    let shell = format!("echo wrapped; node {}; true", script.display());
    let directory = tempfile::tempdir().unwrap();
    let package = format!(
        r#"{{"name": "app", "private": true, "scripts": {{"start": "node {}; true"}}}}"#,
        script.display()
    );
    std::fs::write(directory.path().join("package.json"), package).unwrap();
    let node = app()
        .option("--adopt")
        .option("intercept")
        .command(["node"])
        .arg(&script);
    let mut ways = vec![node, app().command(["sh", "-c", &shell])];
    if require("npm").is_some() {
        ways.push(app().cwd(directory.path()).command(["npm", "start"]));
    }
    for way in ways {
        let port = free_port();
        let mut app = way.workers(2).env("PORT", port.to_string()).start_ready();
        assert_eq!(app.status()["adoption"], "intercept");
        let load = Load::new(at(port)).clients(2).request_limit(LIMIT).start();
        load.wait_until_ok(40, LIMIT);
        app.verb(["reload"]).expect_success();
        load.wait_for_more(40, LIMIT);
        let report = load.stop();
        report.expect_none_lost();
        assert!(report.pids.len() >= 4, "{report}");
        assert!(app.stop().success());
    }
}

#[test]
fn a_port_is_published_elsewhere_for_node_and_for_all_others() {
    needs!("python3", "node");
    let publish = |app: AppBuilder, asked: u16, port: u16| {
        app.option("--publish")
            .option(format!("{port}:{asked}"))
            .start_ready()
    };
    // The port that the program asks for belongs to somebody else.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let asked = taken.local_addr().unwrap().port();
    let node = || {
        app()
            .workers(2)
            .env("PORT", asked.to_string())
            .script("http.js")
    };
    for way in [
        binds("plain", asked),
        node(),
        node().options(["--adopt", "intercept"]),
    ] {
        let port = free_port();
        let mut app = publish(way, asked, port);
        assert_eq!(app.addresses(), [at(port)]);
        app.wait_for_line(&format!("{port}"), LIMIT);
        expect_shared(&mut app, &at(port));
        app.verb(["reload"]).expect_success();
        expect_shared(&mut app, &at(port));
    }
    let mut app = publish(binds("plain", asked), asked, 0);
    let target = app.address();
    expect_shared(&mut app, &target);
}

#[test]
fn a_port_that_is_taken_where_it_is_published_is_named() {
    needs!("python3", "node");
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let asked = free_port();
    let node = app().env("PORT", asked.to_string()).script("http.js");
    for way in [binds("plain", asked), node] {
        let way = way.option("--publish").option(format!("{port}:{asked}"));
        let output = way.run_to_end(LIMIT);
        let said = format!("{}{}", output.stdout, output.stderr);
        let is_named = said.contains(&format!(":{port}, where --publish opens port {asked}"));
        assert!(is_named, "{said}");
    }
}

#[test]
fn an_unprivileged_primary_intercepts_too() {
    needs!("python3");
    if !phalanx_sys::identity::is_root() {
        return;
    }
    let port = free_port();
    // The binary, the fixture and Python itself have to be readable for nobody.
    let mut app = binds("plain", port).uid(65_534).start();
    app.wait_ready(LIMIT);
    assert!(!is_steered(&mut app));
    expect_shared(&mut app, &at(port));
    let load = Load::new(at(port)).clients(2).request_limit(LIMIT).start();
    load.wait_until_ok(40, LIMIT);
    app.verb(["reload"]).expect_success();
    load.wait_for_more(40, LIMIT);
    load.stop().expect_none_lost();
}

#[test]
fn the_pid_in_an_answer_is_a_workers() {
    needs!("python3");
    let port = free_port();
    let mut app = binds("plain", port).start_ready();
    let pid = pid_in(&try_get(&at(port), "/").unwrap());
    assert!(app.worker_pids().contains(&pid));
}
