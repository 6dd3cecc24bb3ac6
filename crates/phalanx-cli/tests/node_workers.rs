//! Unmodified Node servers of every kind as workers, under each Node that is supported.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use cluster::{app, connect, expect_in_turn, get, get_json, greeting, ids, pid_in, try_get};
use phalanx_testkit::control::Events;
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Mode, Process, Target, fixtures, procs};
use serde_json::{Value, json};

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

/// Whether the status shows so many listeners, each served by so many workers.
fn has_listeners(status: &Value, count: usize, workers: u32) -> bool {
    let listeners = status["listeners"].as_array().unwrap();
    listeners.len() == count
        && listeners
            .iter()
            .all(|listener| listener["workers"] == workers)
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

#[test]
fn an_address_in_use_reaches_the_script_as_its_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for node in node::require_versions() {
        for dispatch in ["handoff", "shared", "auto"] {
            let output = app()
                .workers(1)
                .options(["--dispatch", dispatch])
                .env("PORT", &port)
                .node(&node, "in-use.js")
                .run_to_end(LIMIT);
            assert!(
                output.stdout.contains("error code = EADDRINUSE"),
                "{node:?} {output:?}"
            );
            assert_eq!(output.status.code(), Some(1), "{node:?} {output:?}");
        }
    }
}

#[test]
fn the_same_address_twice_in_one_worker_is_in_use() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "twice.js").start();
        let target = app.address();
        for _ in 0..2 {
            assert!(
                get(&target, "/").contains("second = EADDRINUSE"),
                "{node:?}"
            );
        }
    }
}

#[test]
fn a_closed_server_refuses_until_it_listens_again() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "reopen.js").start();
        app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        let (target, other) = reopened_and_other(&mut app);
        let events = app.events();
        app.verb(["send", r#""close""#]).expect_success();
        wait_said(&events, "closed", 2);
        eventually(LIMIT, "a refused connection", || {
            try_get(&target, "/").err()
        });
        expect_in_turn(&mut app, &other, 2);
        app.verb(["send", r#""listen""#]).expect_success();
        wait_said(&events, "listening", 2);
        let again = app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        assert!(
            again["listeners"].to_string().contains(&target.to_string()),
            "{node:?} {again}"
        );
        expect_in_turn(&mut app, &target, 2);
        assert_eq!(cluster::restarts(&app.status()), 0, "{node:?}");
    }
}

#[test]
fn one_worker_that_closes_its_server_leaves_its_share_to_the_others() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "reopen.js").start();
        app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        let (target, _) = reopened_and_other(&mut app);
        let events = app.events();
        let status = app.status();
        // Node 26 resets connections that it has not read from yet when it closes a server.
        let load = (node.major < 26).then(|| Load::new(target.clone()).clients(8).start());
        if let Some(load) = &load {
            load.wait_for_more(50, LIMIT);
        }
        app.verb(["send", "--to", &ids(&status)[0].to_string(), r#""close""#])
            .expect_success();
        wait_said(&events, "closed", 1);
        if let Some(load) = load {
            load.wait_for_more(50, LIMIT);
            load.stop().expect_none_lost();
        }
        let report = Load::new(target).requests(6).run();
        let left = phalanx_testkit::app::pids(&status)[1];
        assert_eq!(report.pids.get(&left), Some(&6), "{node:?} {report}");
    }
}

#[test]
fn a_server_that_is_closed_under_load_does_not_hold_up_another() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "reopen.js").start();
        app.wait_status(LIMIT, |status| has_listeners(status, 2, 2));
        let (target, other) = reopened_and_other(&mut app);
        let events = app.events();
        for _ in 0..3 {
            let load = Load::new(target.clone())
                .clients(16)
                .request_limit(Duration::from_secs(3))
                .start();
            load.wait_for_more(100, LIMIT);
            app.verb(["send", r#""close""#]).expect_success();
            wait_said(&events, "closed", 2);
            drop(load);
            expect_in_turn(&mut app, &other, 3);
            app.verb(["send", r#""listen""#]).expect_success();
            wait_said(&events, "listening", 2);
            expect_in_turn(&mut app, &target, 3);
        }
    }
}

/// The addresses of `reopen.js`: of the server that obeys, and of the one that stays.
fn reopened_and_other(app: &mut App) -> (Target, Target) {
    let mut targets = app.addresses();
    if get(&targets[0], "/").starts_with("other") {
        targets.reverse();
    }
    let [target, other] = targets.try_into().unwrap();
    (target, other)
}

/// Waits until so many messages of workers say this.
#[track_caller]
fn wait_said(events: &Events, what: &str, count: usize) {
    for _ in 0..count {
        events.wait_for(LIMIT, what, |event| {
            event["event"] == "message" && event["message"] == what
        });
    }
}

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
