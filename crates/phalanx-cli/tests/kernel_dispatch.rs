//! Dispatch in the kernel, end to end: who gets a connection, and that none is lost by a change of
//! policy, weights or size, by a worker that hangs, or by one that is killed with a queue. Needs
//! the privilege to load an eBPF program.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use cluster::burst::{can_steer, pause};
use cluster::{
    Connection, answer, app, ask, connect, expect_in_turn, free_port, get, has_listeners, pid_in,
};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Signal, Target, fixtures, node, procs, require};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Every policy but `none`, which `auto` leaves to shared dispatch.
const POLICIES: [&str; 7] = [
    "round-robin",
    "weighted",
    "least-connections",
    "fastest",
    "power-of-two",
    "source-hash",
    "random",
];

/// A Node server and the Rust example, with hardly any work for a request.
fn servers() -> Vec<(&'static str, AppBuilder)> {
    let mut servers = vec![("Rust", rust())];
    if node::require().is_some() {
        servers.push(("Node", app().script("http.js")));
    }
    servers
}

fn rust() -> AppBuilder {
    let program = cluster::example("http_server").to_str().unwrap().to_owned();
    app().command([program, "10".to_owned(), "127.0.0.1:0".to_owned()])
}

/// The position of each worker's process.
fn positions(status: &Value) -> BTreeMap<u32, u64> {
    let workers = status["workers"].as_array().into_iter().flatten();
    let number = |worker: &Value, field: &str| worker[field].as_u64().unwrap();
    workers
        .map(|worker| {
            let pid = u32::try_from(number(worker, "pid")).unwrap();
            (pid, number(worker, "position"))
        })
        .collect()
}

/// Requests served by each position, in order.
fn served(app: &mut App, target: &Target, requests: u64) -> Vec<u64> {
    let positions = positions(&app.status());
    let report = Load::new(target.clone()).requests(requests).run();
    report.expect_none_lost();
    let mut counts = vec![0; positions.len()];
    for (pid, count) in &report.pids {
        counts[usize::try_from(positions[pid]).unwrap()] += count;
    }
    counts
}

#[test]
fn auto_chooses_the_kernel_and_says_so() {
    if !can_steer() {
        return;
    }
    for (server, builder) in servers() {
        let mut app = builder.workers(3).start();
        let target = app.address();
        expect_in_turn(&mut app, &target, 5);
        let status = app.status();
        assert_eq!(status["dispatch"], "kernel", "{server}");
        assert_eq!(status["listeners"][0]["because"], "eBPF program loaded");
        for worker in status["workers"].as_array().unwrap() {
            assert_eq!(worker["connections"], 5, "{server}: {status}");
            let share = worker["share"].as_f64().unwrap();
            assert!((share - 0.3333).abs() < 1e-9, "{server}: {status}");
        }
        app.wait_for_line("dispatch: kernel, policy: round-robin", LIMIT);
        assert!(app.stop().success(), "{server}");
    }
}

#[test]
fn every_policy_serves_in_the_kernel_and_by_handoff() {
    if !can_steer() {
        return;
    }
    for (server, builder) in servers() {
        let mut app = builder.workers(3).start();
        let target = app.address();
        for policy in POLICIES {
            app.verb(["policy", policy]).expect_success();
            assert_eq!(app.status()["policy"], policy);
            let counts = served(&mut app, &target, 90);
            assert_eq!(counts.iter().sum::<u64>(), 90, "{server} {policy}");
        }
        let refused = app.verb(["policy", "weighted", "--weights", "0,0,0"]);
        assert!(!refused.status.success());
        assert!(app.stop().success());
    }
    for (_, builder) in servers() {
        let app = builder.workers(3).options(["--dispatch", "handoff"]);
        let mut app = app.start();
        let target = app.address();
        for policy in POLICIES {
            app.verb(["policy", policy]).expect_success();
            let counts = served(&mut app, &target, 30);
            assert_eq!(counts.iter().sum::<u64>(), 30, "{policy}");
        }
        let refused = app.verb(["policy", "none"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("cannot change to the policy none"));
        assert_eq!(app.status()["policy"], "random");
    }
}

#[test]
fn weights_are_kept_exactly() {
    if !can_steer() {
        return;
    }
    let app = rust().options(["--policy", "weighted", "--weights", "3,1"]);
    let mut app = app.workers(2).start_ready();
    let target = app.address();
    assert_eq!(served(&mut app, &target, 400), [300, 100]);
    let words = ["policy", "weighted", "--weights", "1,4"];
    app.verb(words).expect_success();
    assert_eq!(served(&mut app, &target, 500), [100, 400]);
    let shown = app.verb(["policy"]).expect_success().stdout;
    assert_eq!(shown, "weighted 1,4\n");
}

/// The position that serves a client with this address.
fn position_for(app: &mut App, server: SocketAddr, client: Ipv4Addr) -> u64 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from: SocketAddr = (client, 0).into();
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    positions(&app.status())[&pid_in(&text)]
}

#[test]
fn a_client_keeps_its_position_through_reloads_and_few_move_when_there_are_more() {
    if !can_steer() {
        return;
    }
    let app = rust().options(["--policy", "source-hash"]);
    let mut app = app.workers(3).start_ready();
    let server = app.address().tcp();
    let clients: Vec<_> = (1..=80)
        .map(|last| Ipv4Addr::new(127, 0, 7, last))
        .collect();
    let all = |app: &mut App| -> Vec<u64> {
        let position = |&client: &Ipv4Addr| position_for(app, server, client);
        clients.iter().map(position).collect()
    };
    let before = all(&mut app);
    app.verb(["reload"]).expect_success();
    assert_eq!(all(&mut app), before, "a reload moves none");
    app.verb(["scale", "4"]).expect_success();
    let after = all(&mut app);
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    // A quarter is due; half as much more is allowed.
    let moved = moved.count();
    assert!(
        moved > 0 && moved * 4 * 2 <= clients.len() * 3,
        "{moved} moved"
    );
    let to_others = before
        .iter()
        .zip(&after)
        .filter(|(old, new)| old != new && **new != 3);
    assert_eq!(to_others.count(), 0, "who moves goes to the new position");
}

#[test]
fn a_hundred_changes_of_policy_weights_and_size_lose_nothing() {
    if !can_steer() {
        return;
    }
    for (server, builder) in servers() {
        let mut app = builder.workers(3).start_ready();
        let target = app.address();
        let load = Load::new(target.clone())
            .clients(8)
            .request_limit(LIMIT)
            .start();
        for change in 0..50 {
            load.wait_for_more(5, LIMIT);
            let policy = POLICIES[change % POLICIES.len()];
            let weights = format!("{},1,{}", 1 + change % 5, 1 + change % 3);
            let body = json!({"policy": policy, "weights": weights});
            let reply = app.post("/v1/policy", &body);
            assert_eq!(reply.status, 200, "{reply:?}");
            if change % 10 == 9 {
                let size = if change % 20 == 9 { "2" } else { "4" };
                app.verb(["scale", size]).expect_success();
            }
        }
        load.wait_for_more(50, LIMIT);
        let report = load.stop();
        assert_eq!(report.disturbed(), 0, "{server}: {report}");
        assert!(app.stop().success());
    }
}

/// Clients that have asked, some of whom wait in the queue of a worker that is stopped.
fn twenty_that_ask(target: &Target) -> Vec<Box<dyn Connection>> {
    let mut clients: Vec<_> = (0..20).map(|_| connect(target).unwrap()).collect();
    for client in &mut clients {
        ask(client.as_mut(), "/").unwrap();
    }
    clients
}

#[test]
fn what_waits_for_a_worker_that_hangs_moves_to_the_others() {
    if !can_steer() {
        return;
    }
    for (server, builder) in servers() {
        let mut app = builder.workers(2).start_ready();
        let target = app.address();
        let hung = app.worker_pids()[0];
        pause(&mut app, hung);
        let mut clients = twenty_that_ask(&target);
        for client in &mut clients {
            let pid = pid_in(&answer(client.as_mut()).unwrap());
            assert_ne!(pid, hung, "{server}: it is still stopped");
        }
        app.wait_for_line("is stuck", LIMIT);
        assert!(procs::signal(hung, Signal::CONT));
        // It is tried again, and serves as before.
        eventually(LIMIT, "the worker that hung serves", || {
            (pid_in(&get(&target, "/")) == hung).then_some(())
        });
        assert!(app.stop().success(), "{server}");
    }
}

#[test]
fn a_killed_worker_leaves_its_queue_to_its_successor() {
    if !can_steer() {
        return;
    }
    for (server, builder) in servers() {
        let mut app = builder.workers(1).start_ready();
        let target = app.address();
        let killed = app.worker_pids()[0];
        pause(&mut app, killed);
        let mut clients = twenty_that_ask(&target);
        assert!(app.kill_worker(killed));
        for client in &mut clients {
            let pid = pid_in(&answer(client.as_mut()).unwrap());
            assert_ne!(pid, killed, "{server}");
        }
        assert!(app.stop().success(), "{server}");
    }
}

#[test]
fn a_killed_worker_leaves_its_queue_to_the_others_and_not_to_a_successor_that_starts() {
    if !can_steer() || require("python3").is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let serves_once = format!(
        "mkdir {}/$PHALANX_POSITION && exec python3 {} notify; exec sleep 60",
        place.path().display(),
        fixtures::fixture("programs/activated.py").display()
    );
    let builder = app().options(["--bind", "127.0.0.1:0"]).workers(2);
    let mut app = builder.command(["sh", "-c"]).arg(serves_once).start_ready();
    let target = app.address();
    let [killed, other] = app.worker_pids()[..] else {
        panic!("two workers");
    };
    pause(&mut app, killed);
    let mut clients = twenty_that_ask(&target);
    assert!(app.kill_worker(killed));
    for client in &mut clients {
        assert_eq!(pid_in(&answer(client.as_mut()).unwrap()), other);
    }
}

#[test]
fn a_worker_that_counts_for_itself_shows_its_load() {
    if !can_steer() {
        return;
    }
    let mut app = rust().workers(2).start_ready();
    let target = app.address();
    let open = |app: &mut App| -> u64 {
        let status = app.status();
        let workers = status["workers"].as_array().unwrap();
        workers
            .iter()
            .map(|worker| worker["open"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(open(&mut app), 0);
    let clients: Vec<_> = (0..6).map(|_| connect(&target).unwrap()).collect();
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().into_iter().flatten();
        workers.into_iter().all(|worker| worker["open"] == 3)
    });
    drop(clients);
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().into_iter().flatten();
        workers.into_iter().all(|worker| worker["open"] == 0)
    });
    served(&mut app, &target, 20);
    let status = app.status();
    for worker in status["workers"].as_array().unwrap() {
        assert!(worker["response_us"].as_u64().is_some(), "{status}");
    }
    assert!(app.stop().success());
}

#[test]
fn a_node_worker_tells_its_load_while_a_policy_goes_by_it() {
    if !can_steer() {
        return;
    }
    for node in node::require_versions() {
        for dispatch in ["kernel", "handoff"] {
            let app = app().workers(2).options(["--dispatch", dispatch]);
            let mut app = app.node(&node, "slow.js").start_ready();
            let target = app.address();
            get(&target, "/?ms=0");
            let status = app.status();
            assert!(
                status["workers"][0]["open"].is_null(),
                "nobody asked: {status}"
            );
            app.verb(["policy", "least"]).expect_success();
            let all = |status: &Value, count: u64| {
                let workers = status["workers"].as_array().into_iter().flatten();
                workers.into_iter().all(|worker| worker["open"] == count)
            };
            app.wait_status(LIMIT, |status| all(status, 0));
            let clients: Vec<_> = (0..6).map(|_| connect(&target).unwrap()).collect();
            app.wait_status(LIMIT, |status| all(status, 3));
            drop(clients);
            app.wait_status(LIMIT, |status| all(status, 0));
            app.verb(["policy", "fastest"]).expect_success();
            served(&mut app, &target, 20);
            app.wait_status(LIMIT, |status| {
                let workers = status["workers"].as_array().into_iter().flatten();
                let told = workers
                    .into_iter()
                    .any(|worker| worker["response_us"].is_u64());
                told && all(status, 0)
            });
            app.verb(["policy", "rr"]).expect_success();
            assert!(app.status()["workers"][0]["open"].is_null());
            assert!(app.stop().success(), "{node:?}");
        }
    }
}

#[test]
fn a_second_cluster_on_the_same_address_is_refused() {
    if !can_steer() || node::require().is_none() {
        return;
    }
    let mut first = app().workers(2).script("http.js").start_ready();
    let port = first.address().tcp().port().to_string();
    let second = app().workers(2).env("PORT", &port).script("http.js");
    let output = second.run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("EADDRINUSE"), "{output:?}");
    expect_in_turn(&mut first, &format!("127.0.0.1:{port}").parse().unwrap(), 3);
}

/// One program is kept ready: the others are loaded while their listeners wait, beside the primary's lock.
#[test]
fn listeners_that_are_opened_in_one_instant_all_have_a_program() {
    if !can_steer() {
        return;
    }
    let mut servers = Vec::new();
    if node::require().is_some() {
        servers.push(("Node", app().script("at-once.js")));
    }
    if require("python3").is_some() {
        let script = fixtures::fixture("programs/at_once.py");
        let ports: Vec<String> = (0..8).map(|_| free_port().to_string()).collect();
        let command = app().command(["python3"]).arg(script).args(ports);
        servers.push(("intercepted", command));
    }
    for (server, builder) in servers {
        let mut app = builder.workers(2).start_ready();
        // A worker is ready when it has opened none for a moment, which may come before the last on a busy machine.
        let status = app.wait_status(LIMIT, |status| has_listeners(status, 8, 2));
        let listeners = status["listeners"].as_array().unwrap();
        let steered = listeners.iter().filter(|one| one["dispatch"] == "kernel");
        assert_eq!(steered.count(), 8, "{server}: {listeners:?}");
        let workers = app.worker_pids();
        for target in app.addresses() {
            let pids: BTreeSet<u32> = (0..4).map(|_| pid_in(&get(&target, "/"))).collect();
            assert!(
                workers.iter().all(|pid| pids.contains(pid)),
                "{server}: {target}"
            );
        }
        assert!(app.stop().success(), "{server}");
    }
}
