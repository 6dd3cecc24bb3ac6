//! Programs with a primary of their own, by Node's `cluster`: unmodified, with the package `phalanx-cluster` registered.
//! Both halves are real: Node's primary and Node's workers, of every version.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use cluster::dropin::{LIMIT, Primary, WAYS};
use cluster::free_port;
use phalanx_testkit::fixtures::{fixture, root};
use phalanx_testkit::node;
use phalanx_testkit::process::Output;
use phalanx_testkit::{Load, Mode, Process, Target, procs};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn connections_go_in_turn_and_messages_arrive() {
    for (node, way) in node::with_ways(&WAYS) {
        let (mut primary, name) = Primary::start_by(&node, way);
        let answers = primary.answers(20);
        assert_eq!(
            answers.values().copied().collect::<Vec<_>>(),
            [10, 10],
            "{name}: {answers:?}"
        );
        primary.process.write_line("broadcast 7");
        primary.wait_for(" 7 true", 2);
        primary.process.write_line("long 1000000");
        primary.wait_for(" 1000000 true", 2);
        if way.1 == "advanced" {
            primary.process.write_line("map");
            primary.wait_for(" Map a,1 true", 2);
        }
        // `cluster.disconnect()`: each ends in the order of Node's documentation, and the address is free.
        primary.process.write_line("end");
        primary.wait_for("all are gone", 1);
        for id in [1, 2] {
            let exit = format!("exit {id} 0 null true");
            primary.wait_for(&exit, 1);
            let text = primary.text();
            let disconnect = text.find(&format!("disconnect {id}"));
            assert!(
                disconnect.is_some() && disconnect < text.find(&exit),
                "{name}: {text}"
            );
        }
        let Target::Tcp(address) = primary.target else {
            panic!("TCP was asked for")
        };
        assert!(TcpStream::connect(address).is_err(), "{name}");
    }
}

#[test]
fn restarts_lose_no_request_of_keep_alive_clients() {
    let ways = [("handoff", "json"), ("auto", "advanced")];
    for (node, way) in node::with_ways(&ways) {
        let (primary, name) = Primary::start_by(&node, way);
        let load = Load::new(primary.target.clone())
            .mode(Mode::KeepAlive)
            .clients(12)
            .start();
        load.wait_until_ok(100, LIMIT);
        for _ in 0..2 {
            primary.restart();
            load.wait_for_more(24, LIMIT);
        }
        let report = load.stop();
        assert_eq!(report.disturbed(), 0, "{name}: {report}");
    }
}

const REPLACED: &str = "phalanx-cluster: Node's primary listens and dispatches, because this program has replaced net.Server.prototype.listen";

#[test]
fn a_primary_whose_listen_was_replaced_listens_itself_and_restarts_lose_nothing() {
    for node in node::require_versions() {
        for serialization in ["json", "advanced"] {
            let name = format!("Node {}, {serialization}", node.major);
            let variables = [("SERIALIZATION", serialization), ("BACKLOG", "100")];
            let primary = Primary::start_script(&node, "dropin/replaced-listen.js", &variables);
            primary.wait_for("called: backlog 100", 1);
            assert_eq!(primary.count(REPLACED), 1, "{name}: {}", primary.text());
            let answers = primary.answers(10);
            assert_eq!(answers.len(), 2, "{name}: {answers:?}");
            let load = Load::new(primary.target.clone())
                .mode(Mode::KeepAlive)
                .clients(8)
                .start();
            load.wait_until_ok(50, LIMIT);
            primary.restart();
            load.wait_for_more(16, LIMIT);
            let report = load.stop();
            assert_eq!(report.disturbed(), 0, "{name}: {report}");
            // The engine after the one that was killed leaves it to Node's primary, too.
            assert!(procs::signal(primary.engine(), Signal::KILL));
            primary.wait_for("the next one goes on", 1);
            primary.restart();
            assert_eq!(primary.answers(10).len(), 2, "{name}");
            assert_eq!(primary.count("called"), 1, "{name}: {}", primary.text());
            assert_eq!(primary.count(REPLACED), 1, "{name}: {}", primary.text());
        }
    }
}

#[test]
fn a_primary_whose_listen_was_replaced_is_not_called_where_it_would_not_or_need_not_be() {
    let Some(node) = node::require() else { return };
    for variable in [
        ("PHALANX_LISTEN", "engine"),
        ("NODE_CLUSTER_SCHED_POLICY", "none"),
    ] {
        let primary = Primary::start_script(&node, "dropin/replaced-listen.js", &[variable]);
        assert_eq!(primary.answers(10).values().sum::<usize>(), 10);
        assert_eq!(primary.count("called"), 0, "{variable:?}");
        assert_eq!(primary.count(REPLACED), 0, "{variable:?}");
    }
}

#[test]
fn the_status_shows_workers_ready_that_nodes_primary_listens_for() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let variables = named(directory.path());
    let _primary = Primary::start_script(&node, "dropin/replaced-listen.js", &variables);
    let status = status(variables);
    assert_eq!(ready(&status), 2, "{status}");
    assert_eq!(status["listeners"].as_array().unwrap().len(), 0, "{status}");
}

/// Node calls back before the workers are gone.
#[test]
fn workers_that_are_forked_when_all_were_told_to_leave_are_not_refused_their_clients() {
    let Some(node) = node::require() else { return };
    for dispatch in ["handoff", "auto"] {
        for port in [None, Some(free_port().to_string())] {
            let mut variables = vec![("PHALANX_DISPATCH", dispatch)];
            variables.extend(port.as_deref().map(|port| ("PORT", port)));
            let mut primary = Primary::start(&node, &variables);
            // It holds up the leave of its worker.
            let Target::Tcp(address) = primary.target else {
                panic!("TCP was asked for")
            };
            let mut busy = TcpStream::connect(address).unwrap();
            busy.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
            primary.process.write_line("again");
            primary.wait_for("listening", 4);
            let text = primary.text();
            let mut line = text.lines().filter(|line| line.starts_with("listening"));
            let address = line.next_back().unwrap().split(' ').nth(2).unwrap();
            primary.target = Target::Tcp(address.parse().unwrap());
            let answers = primary.answers(10);
            assert_eq!(
                answers.values().copied().collect::<Vec<_>>(),
                [5, 5],
                "{dispatch}: {answers:?}"
            );
            busy.write_all(b"\r\n").unwrap();
            primary.wait_for("exit ", 2);
            assert_eq!(primary.answers(10).len(), 2, "{dispatch}");
        }
    }
}

/// What makes an app be found by its name, in this directory.
fn named(runtime: &Path) -> [(&str, &str); 3] {
    let runtime = runtime.to_str().unwrap();
    [
        ("PHALANX_NAME", "dropin"),
        ("XDG_RUNTIME_DIR", runtime),
        ("PHALANX_RUNTIME_DIR", runtime),
    ]
}

fn verb(variables: [(&str, &str); 3], words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
    command
        .args(words)
        .args(["--name", "dropin"])
        .envs(variables);
    Process::run(command, LIMIT)
}

fn status(variables: [(&str, &str); 3]) -> Value {
    let json = verb(variables, &["status", "--json"]);
    serde_json::from_str(&json.expect_success().stdout).unwrap()
}

/// How many of its workers are ready.
fn ready(status: &Value) -> usize {
    let workers = status["workers"].as_array().unwrap().iter();
    workers.filter(|worker| worker["state"] == "ready").count()
}

#[test]
fn an_app_with_a_name_is_found_by_the_other_commands() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let variables = named(directory.path());
    let primary = Primary::start(&node, &variables);
    let verb = |words: &[&str]| verb(variables, words);
    let status = || status(variables);
    let now = status();
    assert_eq!(
        (now["name"].as_str(), now["target"].as_u64()),
        (Some("dropin"), Some(2)),
        "{now}"
    );
    assert_eq!(ready(&now), 2, "{now}");

    verb(&["send", r#"{"echo": 9}"#]).expect_success();
    primary.wait_for(" 9 ", 2);
    verb(&["policy", "random"]).expect_success();
    assert_eq!(status()["policy"], "random");
    // The program has a handler of its own for SIGUSR2: that is called.
    verb(&["reload"]).expect_success();
    primary.wait_for("restarted", 1);
    verb(&["scale", "3"]).expect_success();
    primary.wait_for("listening", 5);
    assert_eq!(status()["target"], 3);
    let refused = verb(&["rollback"]);
    assert!(
        refused.stderr.contains("no earlier release"),
        "{}",
        refused.stderr
    );
    let mut primary = primary;
    verb(&["stop"]).expect_success();
    assert!(primary.process.wait_exit(LIMIT).success());
    primary.process.wait_family_gone(LIMIT);
}

#[test]
fn recipes_restart_respawn_and_broadcast() {
    let Some(node) = node::require() else { return };
    let port = free_port().to_string();
    let mut primary = Primary::start_script(&node, "dropin/recipes.js", &[("PORT", &port)]);
    primary.process.write_line("broadcast");
    primary.wait_for("told 2", 1);
    primary.wait_for(" 7", 2);
    primary.process.write_line("crash");
    primary.wait_for("listening", 4);
    let load = Load::new(primary.target.clone())
        .mode(Mode::KeepAlive)
        .clients(8)
        .start();
    load.wait_until_ok(50, LIMIT);
    primary.process.write_line("restart");
    primary.wait_for("restarted", 1);
    primary.process.write_line("fail");
    primary.wait_for("failed: worker 7 ended before it listened (1)", 1);
    load.wait_for_more(16, LIMIT);
    let report = load.stop();
    assert_eq!(report.disturbed(), 0, "{report}");
}

#[test]
fn the_packages_install_offline_and_run() {
    let Some(node) = node::require() else { return };
    let Some(npm) = phalanx_testkit::require("npm") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut pack = Command::new(root().join("npm/pack.sh"));
    pack.arg(env!("CARGO_BIN_EXE_phalanx"))
        .arg(directory.path());
    // npm compresses the program.
    Process::run(pack, 5 * LIMIT).expect_success();
    let tarballs: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(tarballs.len(), 2);
    std::fs::write(
        directory.path().join("package.json"),
        r#"{"private": true}"#,
    )
    .unwrap();
    for file in ["main.js", "server.js"] {
        let from = fixture(&format!("dropin/{file}"));
        std::fs::copy(from, directory.path().join(file)).unwrap();
    }
    let mut install = Command::new(npm);
    install
        .args(["install", "--offline", "--no-audit", "--no-fund"])
        .args(tarballs);
    Process::run(
        {
            install.current_dir(directory.path());
            install
        },
        5 * LIMIT,
    )
    .expect_success();
    for flag in ["--require", "--import"] {
        let mut command = node.command();
        command
            .args([flag, "phalanx-cluster/register", "main.js"])
            .current_dir(directory.path());
        command.env_remove("PHALANX_BINARY");
        let primary = Primary::of(Process::start_with_stdin(command));
        let answers = primary.answers(10);
        assert_eq!(
            answers.values().copied().collect::<Vec<_>>(),
            [5, 5],
            "{flag}: {answers:?}"
        );
        primary.engine();
    }
    let program = directory.path().join("node_modules/.bin/phalanx");
    let mut version = Command::new(program);
    version.arg("--version");
    assert!(
        Process::run(version, LIMIT)
            .expect_success()
            .stdout
            .starts_with("phalanx ")
    );
}
