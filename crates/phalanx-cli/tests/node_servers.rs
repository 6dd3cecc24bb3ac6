//! Unmodified Node servers of every kind, under each Node that is supported, and the ways to dispatch to them.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;

use cluster::{app, connect, expect_in_turn, get, get_json, greeting, has_listeners, pid_in};
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::{App, LIMIT, Load, Process, Target, fixtures, require};
use serde_json::json;

/// The pids that `count` new connections are greeted with.
fn greeters(target: &Target, count: usize) -> BTreeSet<u32> {
    (0..count).map(|_| pid_in(&greeting(target))).collect()
}

fn set(pids: Vec<u32>) -> BTreeSet<u32> {
    pids.into_iter().collect()
}

/// An app with a variable that is a path in a directory of its own, which lives as long.
fn with_socket(node: &NodeBinary, fixture: &str) -> (App, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("x.sock");
    let app = app().workers(2).node(node, fixture).env("SOCKET", socket);
    (app.start_ready(), directory)
}

#[test]
fn http_is_served_by_all_workers_in_turn() {
    for node in node::require_versions() {
        let app = app().workers(3).options(["--dispatch", "handoff"]);
        let mut app = app.node(&node, "http.js").start();
        let target = app.address();
        expect_in_turn(&mut app, &target, 4);
        assert_eq!(app.status()["dispatch"], "handoff");
        assert!(app.stop().success(), "{node:?}");
    }
}

#[test]
fn a_tls_session_is_resumed_by_another_worker() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "https.js").start();
        let port = app.address().tcp().port().to_string();
        let mut client: Command = node.command();
        client
            .arg(fixtures::fixture("https-get.js"))
            .args([&port, "4"]);
        let output = Process::run(client, LIMIT).expect_success();
        let lines: Vec<&str> = output.stdout.lines().collect();
        let resumed = |line: &&str| line.starts_with("resumed = true");
        // TLS 1.3 gives tickets after the handshake: the second connection may come before them.
        assert!(
            lines.iter().filter(|line| resumed(line)).count() >= 2,
            "{node:?} {lines:?}"
        );
        let pids: BTreeSet<u32> = lines
            .iter()
            .filter(|line| resumed(line))
            .map(|line| pid_in(line))
            .collect();
        assert_eq!(pids, set(app.worker_pids()), "{node:?} {lines:?}");
    }
}

#[test]
fn plain_tcp_is_served_by_all_workers_in_turn() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "net.js").start();
        let target = app.address();
        assert_eq!(greeters(&target, 2), set(app.worker_pids()), "{node:?}");
    }
}

#[test]
fn a_shared_udp_socket_answers_every_datagram() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "udp.js").start();
        let server = app.udp_address();
        let pids = set(app.worker_pids());
        for number in 0..10 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client
                .send_to(format!("datagram {number}").as_bytes(), server)
                .unwrap();
            let mut buffer = [0; 100];
            let (count, _) = client.recv_from(&mut buffer).unwrap();
            let answer = std::str::from_utf8(&buffer[..count]).unwrap();
            assert!(
                answer.starts_with(&format!("datagram {number} ")),
                "{node:?} {answer}"
            );
            assert!(pids.contains(&pid_in(answer)), "{node:?} {answer}");
        }
        assert!(app.stop().success(), "{node:?}");
    }
}

#[test]
fn a_unix_socket_is_served_in_turn_and_its_file_goes_at_the_end() {
    for node in node::require_versions() {
        let (mut app, directory) = with_socket(&node, "unix.js");
        let target = app.address();
        assert_eq!(target, Target::from(directory.path().join("x.sock")));
        expect_in_turn(&mut app, &target, 3);
        app.verb(["reload"]).expect_success();
        expect_in_turn(&mut app, &target, 3);
        assert!(app.stop().success(), "{node:?}");
        assert!(!directory.path().join("x.sock").exists(), "{node:?}");
    }
}

#[test]
fn every_port_of_the_systems_choice_is_the_same_for_all_workers() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "port0.js").start();
        app.wait_status(LIMIT, |status| has_listeners(status, 3, 2));
        let targets = app.addresses();
        for target in &targets {
            let answers = [get_json(target, "/"), get_json(target, "/")];
            assert_eq!(answers[0]["ports"], answers[1]["ports"], "{node:?}");
            assert_ne!(answers[0]["pid"], answers[1]["pid"], "{node:?}");
            let index = usize::try_from(answers[0]["index"].as_u64().unwrap()).unwrap();
            assert_eq!(answers[0]["ports"][index], target.tcp().port(), "{node:?}");
        }
    }
}

#[test]
fn several_listeners_of_different_kinds_serve_side_by_side() {
    for node in node::require_versions() {
        let (mut app, directory) = with_socket(&node, "several.js");
        app.wait_status(LIMIT, |status| has_listeners(status, 4, 2));
        let pids = set(app.worker_pids());
        let targets = app.addresses();
        let mut names = BTreeSet::new();
        for target in targets {
            // The third speaks first and is no HTTP; it closes, which a request does not disturb.
            let answers: Vec<String> = (0..2).map(|_| first_words(&target)).collect();
            names.insert(answers[0].split(',').next().unwrap().to_owned());
            let found: BTreeSet<u32> = answers.iter().map(|answer| pid_in(answer)).collect();
            assert_eq!(found, pids, "{node:?} {answers:?}");
        }
        assert_eq!(names.len(), 4, "{node:?} {names:?}");
        drop(directory);
    }
}

/// What a server says, be it HTTP or not.
fn first_words(target: &Target) -> String {
    let mut connection = connect(target).unwrap();
    cluster::ask(connection.as_mut(), "/").unwrap();
    let mut words = String::new();
    // A server that speaks first and closes may reset what it did not read.
    connection.read_to_string(&mut words).ok();
    words.rsplit("\r\n\r\n").next().unwrap().trim().to_owned()
}

#[test]
fn an_exclusive_server_is_ready_unannounced_and_has_a_port_of_its_own() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .options(["--kill-timeout", "300ms"])
            .node(&node, "alone.js")
            .start_ready();
        let status = app.status();
        assert_eq!(status["listeners"], json!([]), "{node:?}");
        let announced = |pid: u32| {
            let line = app.wait_for_line(&format!("pid {pid} alone on "), LIMIT);
            line.rsplit_once(" on ")
                .unwrap()
                .1
                .parse::<Target>()
                .unwrap()
        };
        let targets: Vec<Target> = phalanx_testkit::app::pids(&status)
            .into_iter()
            .map(|pid| {
                let target = announced(pid);
                assert_eq!(pid_in(&get(&target, "/")), pid, "{node:?}");
                target
            })
            .collect();
        assert_ne!(targets[0], targets[1], "{node:?}");
        // Node does not close such a server by itself: the worker has to be told to stop.
        assert!(app.stop().success(), "{node:?}");
    }
}

#[test]
fn an_exclusive_server_beside_a_shared_one_disturbs_neither() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .options(["--kill-timeout", "300ms"])
            .node(&node, "exclusive.js")
            .start();
        let target = app.address();
        expect_in_turn(&mut app, &target, 2);
        let own = |body: String| body.split([' ', ',']).nth(2).unwrap().to_owned();
        assert_ne!(own(get(&target, "/")), own(get(&target, "/")), "{node:?}");
    }
}

#[test]
fn a_descriptor_that_the_primary_inherited_is_served() {
    for node in node::require_versions() {
        let mut app = App::builder(fixtures::fixture("with-listener.py"))
            .env("LISTENER_PROGRAM", cluster::PHALANX)
            .env("FD", "9")
            .workers(2)
            .node(&node, "listen-fd.js")
            .start();
        let line = app.wait_for_line("descriptor 9 is ", LIMIT);
        let target = app.address();
        assert!(
            line.ends_with(&target.to_string()),
            "{node:?} {line} {target}"
        );
        expect_in_turn(&mut app, &target, 2);
        app.verb(["reload"]).expect_success();
        expect_in_turn(&mut app, &target, 2);
    }
}

#[test]
fn a_udp_descriptor_that_the_primary_inherited_is_shared() {
    if require("python3").is_none() {
        return;
    }
    for node in node::require_versions() {
        let mut app = App::builder(fixtures::fixture("with-listener.py"))
            .env("LISTENER_PROGRAM", cluster::PHALANX)
            .env("LISTENER_UDP", "1")
            .env("FD", "9")
            .workers(2)
            .node(&node, "udp-fd.js")
            .start();
        let server = app.udp_address();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.send_to(b"hello", server).unwrap();
        let mut text = [0; 64];
        let count = client.recv(&mut text).unwrap();
        let pid = pid_in(std::str::from_utf8(&text[..count]).unwrap());
        assert!(app.worker_pids().contains(&pid), "{node:?}");
    }
}

#[test]
fn policy_none_leaves_the_choice_to_the_system() {
    for node in node::require_versions() {
        let app = app()
            .workers(2)
            .options(["--policy", "none"])
            .node(&node, "http.js");
        expect_shared(app.start(), "none");
    }
}

#[test]
fn shared_dispatch_can_be_asked_for() {
    let Some(node) = node::require() else { return };
    let app = app()
        .workers(2)
        .options(["--dispatch", "shared"])
        .node(&node, "http.js");
    expect_shared(app.start(), "round-robin");
}

#[test]
fn the_variable_of_nodes_own_cluster_chooses_the_policy() {
    let Some(node) = node::require() else { return };
    let named = |value| {
        app()
            .workers(2)
            .env("NODE_CLUSTER_SCHED_POLICY", value)
            .node(&node, "http.js")
    };
    expect_shared(named("none").start(), "none");
    let mut app = named("rr").start();
    let target = app.address();
    expect_in_turn(&mut app, &target, 2);
}

#[track_caller]
fn expect_shared(mut app: App, policy: &str) {
    let target = app.address();
    let status = app.status();
    assert_eq!(
        (&status["dispatch"], &status["policy"]),
        (&json!("shared"), &json!(policy))
    );
    let before = set(app.worker_pids());
    let load = Load::new(target).clients(8).start();
    load.wait_for_more(100, LIMIT);
    app.verb(["scale", "+1"]).expect_success();
    load.wait_for_more(100, LIMIT);
    let report = load.stop();
    report.expect_none_lost();
    assert!(
        report.pids.keys().any(|pid| before.contains(pid)),
        "{report}"
    );
    assert!(
        report.pids.keys().all(|pid| app.family().contains(pid)),
        "{report}"
    );
    assert!(app.stop().success());
}
