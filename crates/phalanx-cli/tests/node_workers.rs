//! Unmodified Node scripts as workers, under each Node that is supported: what they know, how they are
//! started, and how they leave.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::net::TcpListener;
use std::time::Duration;

use cluster::{app, connect, expect_in_turn, get, get_json, pid_in};
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{LIMIT, Load, Mode, fixtures, node, procs};
use serde_json::{Value, json};

#[test]
fn a_worker_knows_who_it_is() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "messages.js").start();
        let target = app.address();
        let status = app.status();
        for worker in status["workers"].as_array().unwrap() {
            let known = eventually(LIMIT, "an answer of each worker", || {
                let answer = get_json(&target, "/");
                (answer["pid"] == worker["pid"]).then_some(answer)
            });
            assert_eq!(known["id"], worker["id"], "{node:?}");
            assert_eq!(
                known["instance"],
                worker["position"].to_string(),
                "{node:?}"
            );
            let facts = [
                &known["isWorker"],
                &known["isPrimary"],
                &known["isConnected"],
            ];
            assert_eq!(
                facts,
                [&json!(true), &json!(false), &json!(true)],
                "{node:?}"
            );
        }
    }
}

#[test]
fn a_module_script_is_clustered_too() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "module.mjs").start();
        let target = app.address();
        expect_in_turn(&mut app, &target, 2);
        assert!(app.stop().success(), "{node:?}");
    }
}

#[test]
fn options_of_node_and_arguments_of_the_script_arrive() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .command([&node.path])
            .arg("--max-old-space-size=64")
            .arg(fixtures::fixture("arguments.js"))
            .arg("x")
            .arg("--workers=7")
            .start();
        let target = app.address();
        let answer = get_json(&target, "/");
        assert_eq!(
            answer["options"],
            json!(["--max-old-space-size=64"]),
            "{node:?}"
        );
        assert_eq!(answer["arguments"], json!(["x", "--workers=7"]), "{node:?}");
        // The variables of the channel are not for the script's own children.
        assert_eq!(answer["channel"], json!([]), "{node:?}");
    }
}

#[test]
fn a_launcher_that_takes_the_channel_for_itself_is_never_ready() {
    for node in node::require_versions() {
        let output = app()
            .workers(1)
            .options(["--ready-timeout", "1s", "--kill-timeout", "500ms"])
            .node(&node, "launcher.js")
            .run_to_end(LIMIT);
        assert_eq!(output.status.code(), Some(1), "{node:?} {output:?}");
        assert!(output.stderr.contains("not ready"), "{node:?} {output:?}");
    }
}

#[test]
fn an_option_of_the_inspector_gives_each_worker_a_port() {
    let Some(node) = node::require() else { return };
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = free.local_addr().unwrap().port();
    let mut app = app()
        .workers(2)
        .command([&node.path])
        .arg(format!("--inspect=127.0.0.1:{base}"))
        .arg(fixtures::fixture("arguments.js"))
        .start();
    let target = app.address();
    let options = |answer: &Value| answer["options"].to_string();
    let (one, next) = (get_json(&target, "/"), get_json(&target, "/"));
    assert!(options(&one).contains("--inspect-port="), "{one}");
    assert_ne!(options(&one), options(&next));
}

#[test]
fn a_request_in_service_is_finished_by_the_worker_that_has_it() {
    for node in node::require_versions() {
        let mut app = app().workers(1).node(&node, "slow.js").start();
        let target = app.address();
        let [old] = app.worker_pids().try_into().unwrap();
        let mut connection = connect(&target).unwrap();
        cluster::ask(connection.as_mut(), "/?ms=700&tag=kept").unwrap();
        app.wait_for_line("in service kept", LIMIT);
        app.verb(["reload"]).expect_success();
        assert_eq!(
            pid_in(&cluster::answer(connection.as_mut()).unwrap()),
            old,
            "{node:?}"
        );
        assert_ne!(pid_in(&get(&target, "/?ms=0")), old, "{node:?}");
        assert!(procs::wait_gone(old, LIMIT));
    }
}

#[test]
fn idle_connections_do_not_hold_up_a_drain() {
    for node in node::require_versions() {
        // Node 18 closes an idle connection when its time is over, the others when they drain.
        let mut app = app()
            .workers(1)
            .env("KEEP_ALIVE_MS", "300")
            .node(&node, "keep-alive.js")
            .start();
        let target = app.address();
        let load = Load::new(target)
            .mode(Mode::KeepAlive)
            .clients(4)
            .pause(Duration::from_mins(1))
            .start();
        load.wait_until_ok(4, LIMIT);
        app.verb(["reload"]).expect_success();
        assert_eq!(load.stop().failed(), 0, "{node:?}");
    }
}

#[test]
fn a_connection_that_never_ends_is_cut_at_the_drain_limit() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(1)
            .options(["--drain-timeout", "200ms"])
            .node(&node, "http.js")
            .start();
        let target = app.address();
        let [old] = app.worker_pids().try_into().unwrap();
        let mut connection = connect(&target).unwrap();
        connection
            .write_all(b"GET / HTTP/1.1\r\nHost: local")
            .unwrap();
        let answered = get(&target, "/");
        assert_eq!(pid_in(&answered), old);
        app.verb(["reload"]).expect_success();
        let mut rest = Vec::new();
        // Reset or closed, as the kernel has it.
        connection.read_to_end(&mut rest).ok();
        assert_eq!(rest, b"", "{node:?}");
        assert!(procs::wait_gone(old, LIMIT));
    }
}
