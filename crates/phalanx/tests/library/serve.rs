//! A listener serves alike with axum, hyper and a plain accept loop, however it is dispatched.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use phalanx_testkit::{LIMIT, Load, Mode, Process, Signal, Target, fixtures, wait};
use serde_json::json;

use crate::probe::{Client, Probe};

/// Every kind of listener with every way to serve; the peer's address must be right in each.
fn served_with(with: &str) {
    let directory = tempfile::tempdir().unwrap();
    for (policy, dispatch) in [("rr", "handoff"), ("rr", "auto"), ("none", "auto")] {
        let mut probe = Probe::start_with(|command| {
            command
                .env("NODE_CLUSTER_SCHED_POLICY", policy)
                .env("PROBE_DISPATCH", dispatch);
        });
        let directory = directory.path().display();
        let path = format!("unix:{directory}/{policy}-{dispatch}.sock");
        let workers = [probe.fork().0, probe.fork().0];
        let mut addresses = Vec::new();
        for worker in workers {
            let listen = |at| json!({"do": "listen", "at": at, "with": with});
            addresses = ["127.0.0.1:0", &path]
                .map(|at| probe.listen_with(worker, listen(at)))
                .to_vec();
        }
        for address in &addresses {
            for _ in 0..6 {
                let mut client = Client::connect(address);
                client.request();
                let answer = client.answer();
                assert!(workers.contains(&answer.worker));
                assert_eq!(answer.peer, client.address(), "{policy} {address}");
            }
        }
        let target: Target = addresses[0].parse().unwrap();
        let report = Load::new(target).clients(8).requests(400).run();
        report.expect_none_failed();
        assert_eq!(report.ok, 400);
        // All connections are closed: both leave at once.
        probe.done(json!({"do": "disconnect"}));
        probe.wait("the end of disconnect", |line| {
            line["cluster"] == "disconnected"
        });
    }
}

#[test]
fn axum_serves() {
    served_with("axum");
}

#[test]
fn hyper_serves() {
    served_with("hyper");
}

#[test]
fn a_plain_accept_loop_serves() {
    served_with("tokio");
}

#[test]
fn keep_alive_connections_stay_with_their_worker() {
    let mut probe = Probe::start();
    let workers = [probe.fork().0, probe.fork().0];
    let address = workers.map(|worker| probe.serve(worker, "127.0.0.1:0"))[0].clone();
    let target: Target = address.parse().unwrap();
    // Each client has requests of its own, so that none of them can be left without.
    let mut pids = BTreeSet::new();
    for _ in 0..4 {
        let load = Load::new(target.clone()).mode(Mode::KeepAlive);
        let report = load.clients(1).requests(50).run();
        report.expect_none_failed();
        assert_eq!(report.connections, 1);
        assert_eq!(report.pids.len(), 1);
        pids.extend(report.pids.into_keys());
    }
    assert_eq!(pids.len(), 2);
}

#[test]
fn the_respawn_example_replaces_a_worker_that_crashed() {
    let process = example("respawn");
    let line = process.wait_for_line("listens on 127.0.0.1:", LIMIT);
    let address = line.rsplit(' ').next().unwrap();
    let mut client = Client::connect(address);
    client.request_path("/crash");
    process.wait_for_line("died (signal 6). Restarting ...", LIMIT);
    let target: Target = address.parse().unwrap();
    Load::new(target).requests(20).run().expect_none_failed();
}

#[test]
fn the_broadcast_example_greets_all_and_ends() {
    let process = example("broadcast");
    let output = process.finish(LIMIT).expect_success();
    assert_eq!(output.stdout.matches("says: hello, I am worker").count(), 3);
    assert!(
        output.stdout.ends_with("all have left\n"),
        "{}",
        output.stdout
    );
}

#[test]
fn the_background_jobs_example_finishes_its_jobs() {
    let process = example("background_jobs");
    for worker in 1..=2 {
        process.wait_for_line(&format!("worker {worker} did job 2"), LIMIT);
    }
    process.signal(Signal::TERM);
    let output = process.finish(LIMIT).expect_success();
    assert_eq!(output.stdout.matches(" leaves after ").count(), 2);
}

#[test]
fn the_custom_policy_example_fills_the_first_position_up() {
    let process = example("custom_policy");
    process.wait_for_line("position 1 listens on 127.0.0.1:", LIMIT);
    let line = process.wait_for_line("position 0 listens on 127.0.0.1:", LIMIT);
    let address = line.rsplit(' ').next().unwrap();
    let ask = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    // The second position may be ready before the first.
    wait::eventually(LIMIT, "the first position serves", || {
        ask().ends_with("position = 0\n").then_some(())
    });
    for _ in 0..6 {
        let answer = ask();
        assert!(answer.ends_with("position = 0\n"), "{answer}");
    }
}

#[test]
fn the_rolling_restart_example_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("example.sock");
    let mut command = Command::new(fixtures::example("rolling_restart"));
    command.arg(format!("unix:{}", path.display()));
    let process = Process::start(command);
    process.wait_for_line("is running", LIMIT);
    wait::eventually(LIMIT, "the socket is there", || path.exists().then_some(()));
    let address = Target::from(path);
    let load = Load::new(address).clients(4).start();
    load.wait_for_more(50, LIMIT);
    let mark = process.lines().count();
    process.signal(Signal::USR2);
    let mut gone = mark;
    for _ in 0..2 {
        process
            .lines()
            .wait_after(gone, LIMIT, "a worker is gone", |line| {
                line.ends_with("is gone")
            });
        let lines = process.lines().all();
        gone += 1 + lines[gone..]
            .iter()
            .position(|line| line.text.ends_with("is gone"))
            .unwrap();
    }
    load.wait_for_more(50, LIMIT);
    load.stop().expect_none_failed();
}

fn example(name: &str) -> Process {
    let mut command = Command::new(fixtures::example(name));
    command.arg("127.0.0.1:0");
    Process::start(command)
}
