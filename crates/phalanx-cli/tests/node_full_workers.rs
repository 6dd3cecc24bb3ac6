//! Node workers with a limit of connections (`server.maxConnections`): one that is full leaves them to another that has room,
//! as under Node's own primary.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use cluster::burst::can_steer;
use cluster::dropin::{self, Primary};
use cluster::{Connection, app, connect, pid_in};
use phalanx_testkit::lines::Stream;
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Process, Target};

/// What each worker takes.
const EACH: usize = 8;

/// The ways that connections come to workers: all of a client's go to the same worker in the second, until it is full.
fn ways() -> Vec<Vec<&'static str>> {
    let mut ways = vec![vec!["--dispatch", "handoff"]];
    if can_steer() {
        let crowded = ["--dispatch", "kernel", "--policy", "source-hash"];
        ways.push(vec!["--dispatch", "kernel"]);
        ways.push(crowded.to_vec());
        ways.push([&crowded[..], &["--serialization", "advanced"]].concat());
    }
    ways
}

fn start(node: &NodeBinary, way: &[&str], limits: &[usize]) -> (App, Vec<Target>) {
    let builder = app().workers(2).options(way).node(node, "full.js");
    let mut app = builder
        .args(limits.iter().map(ToString::to_string))
        .start_ready();
    let addresses = app.addresses();
    assert_eq!(addresses.len(), limits.len());
    (app, addresses)
}

/// A connection that stays open, and the worker that has answered on it.
struct Client {
    connection: BufReader<Box<dyn Connection>>,
    pid: u32,
}

impl Client {
    /// Connects so many at once, and asks on each.
    fn several(target: &Target, count: usize) -> Vec<Self> {
        let mut connections: Vec<_> = (0..count).map(|_| connect(target).unwrap()).collect();
        for connection in &mut connections {
            connection
                .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
        }
        connections.into_iter().map(Self::answered).collect()
    }

    fn answered(connection: Box<dyn Connection>) -> Self {
        let mut connection = BufReader::new(connection);
        let mut length = 0;
        loop {
            let mut line = String::new();
            let count = connection.read_line(&mut line).unwrap();
            assert!(count > 0, "a connection was closed without an answer");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).unwrap();
        let pid = pid_in(&String::from_utf8(body).unwrap());
        Self { connection, pid }
    }

    /// Whether the server has closed it without a word.
    fn is_dropped(target: &Target) -> bool {
        let mut connection = connect(target).unwrap();
        connection.read(&mut [0; 1]).unwrap_or(0) == 0
    }
}

fn by_worker(clients: &[Client]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for client in clients {
        *counts.entry(client.pid).or_default() += 1;
    }
    counts
}

#[test]
fn a_full_worker_leaves_connections_to_one_that_has_room() {
    for (node, way) in node::with_ways(&ways()) {
        let name = format!("Node {}, {way:?}", node.major);
        let (mut app, targets) = start(&node, &way, &[EACH, 2 * EACH]);
        let pids = app.worker_pids();
        let even: BTreeMap<u32, usize> = pids.iter().map(|&pid| (pid, EACH)).collect();
        let mut clients = Client::several(&targets[0], 2 * EACH);
        assert_eq!(by_worker(&clients), even, "{name}");
        // The other server has room of its own.
        let others = Client::several(&targets[1], 4 * EACH);
        assert_eq!(others.len(), 4 * EACH, "{name}");
        // Whoever leaves makes room, for as many as have left.
        for _ in 0..3 {
            let gone = clients
                .iter()
                .position(|client| client.pid == pids[0])
                .unwrap();
            let mut gone = clients.swap_remove(gone);
            gone.connection
                .get_mut()
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut rest = Vec::new();
            gone.connection.read_to_end(&mut rest).unwrap();
            let new = eventually(LIMIT, "room again", || try_one(&targets[0]));
            assert_eq!(new.pid, pids[0], "{name}");
            clients.push(new);
        }
        assert_eq!(by_worker(&clients), even, "{name}");
        drop((clients, others));
        assert!(app.stop().success(), "{name}");
    }
}

/// A client, if there is room for one just now: who leaves is counted until Node has seen it.
fn try_one(target: &Target) -> Option<Client> {
    let mut connection = connect(target).unwrap();
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .ok()?;
    let mut reader = BufReader::new(connection);
    let is_answered = reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
    is_answered.then(|| {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            reader.read_until(b'\n', &mut text).unwrap();
        }
        let mut body = reader.fill_buf().unwrap().to_vec();
        let length = body.len();
        reader.consume(length);
        let pid = pid_in(&String::from_utf8(std::mem::take(&mut body)).unwrap());
        Client {
            connection: reader,
            pid,
        }
    })
}

#[test]
fn connections_that_come_and_go_near_the_limit_are_not_lost() {
    if !can_steer() {
        return;
    }
    for node in node::require_versions() {
        let way = ["--dispatch", "kernel", "--policy", "source-hash"];
        let (mut app, targets) = start(&node, &way, &[EACH]);
        // Two more fit into the first. Each of the four may be counted still when the next one of its client has come.
        let held = Client::several(&targets[0], EACH - 2);
        let load = Load::new(targets[0].clone()).clients(4).requests(600);
        let report = load.request_limit(LIMIT).run();
        let log = app.lines().text(Stream::Stderr);
        assert_eq!(report.disturbed(), 0, "{node:?}: {report}\n{log}");
        assert_eq!(report.pids.len(), 2, "{node:?}: {report}\n{log}");
        drop(held);
        assert!(app.stop().success());
    }
}

#[test]
fn when_all_are_full_what_comes_is_closed_and_the_application_hears_of_it() {
    if !can_steer() {
        return;
    }
    for node in node::require_versions() {
        let way = ["--dispatch", "kernel", "--policy", "source-hash"];
        let (mut app, targets) = start(&node, &way, &[EACH]);
        let clients = Client::several(&targets[0], 2 * EACH);
        let events = app.events();
        let is_told = || {
            events
                .so_far()
                .iter()
                .any(|event| event["message"]["drop"] == 0)
        };
        eventually(LIMIT, "a drop that is told", || {
            assert!(Client::is_dropped(&targets[0]), "Node {}", node.major);
            is_told().then_some(())
        });
        // A limit that is lifted counts at once.
        app.verb(["send", r#"{"of": 0, "limit": 20}"#])
            .expect_success();
        let more = eventually(LIMIT, "room", || try_one(&targets[0]));
        drop((clients, more));
        assert!(app.stop().success(), "Node {}", node.major);
    }
}

#[test]
fn full_workers_of_a_primary_by_nodes_cluster_leave_connections_too() {
    if !can_steer() {
        return;
    }
    for (node, serialization) in node::with_ways(&["json", "advanced"]) {
        let variables = [
            ("PHALANX_DISPATCH", "kernel"),
            ("PHALANX_POLICY", "source-hash"),
            ("SERIALIZATION", serialization),
        ];
        let mut command = dropin::command(&node, "dropin/full.js", &variables);
        command.arg(EACH.to_string());
        let primary = Primary::of(Process::start_with_stdin(command));
        let clients = Client::several(&primary.target, 2 * EACH);
        let counts: Vec<usize> = by_worker(&clients).into_values().collect();
        let name = format!("Node {}, {serialization}", node.major);
        assert_eq!(counts, [EACH; 2], "{name}: {}", primary.text());
    }
}
