//! The high-level style: the builder's signals, limits and exit codes; the supervisor's commands.

use std::collections::BTreeSet;
use std::process::Command;

use phalanx_testkit::{LIMIT, Load, Process, Signal, Target, procs, wait};
use serde_json::{Value, json};

use crate::probe::{Client, command, get, number};

/// A server made with the builder.
struct Server {
    process: Process,
    address: String,
}

impl Server {
    fn start(workers: usize) -> Self {
        Self::start_with(workers, |_| {})
    }

    fn start_with(workers: usize, change: impl FnOnce(&mut Command)) -> Self {
        let process = Process::start(build(workers, change));
        let line = process.wait_for_line("\"serves\"", LIMIT);
        let line: Value = serde_json::from_str(&line).unwrap();
        let server = Self {
            address: line["at"].as_str().unwrap().to_owned(),
            process,
        };
        server.wait_serving(workers);
        server
    }

    /// The lines of workers that serve, in order.
    fn serving(&self) -> Vec<Value> {
        let lines = self.process.lines().all();
        let parsed = lines
            .iter()
            .filter_map(|line| serde_json::from_str(&line.text).ok());
        parsed
            .filter(|line: &Value| line.get("serves").is_some())
            .collect()
    }

    /// Waits until so many workers have ever served.
    #[track_caller]
    fn wait_serving(&self, count: usize) {
        let enough = || (self.serving().len() >= count).then_some(());
        wait::eventually(LIMIT, &format!("{count} workers have served"), enough);
    }

    fn workers(&self) -> BTreeSet<u32> {
        procs::children(self.process.pid())
            .into_iter()
            .filter(|&pid| procs::is_alive(pid))
            .collect()
    }

    #[track_caller]
    fn wait_workers(&self, count: usize) {
        let settled = || (self.workers().len() == count).then_some(());
        wait::eventually(LIMIT, &format!("{count} workers live"), settled);
    }

    fn target(&self) -> Target {
        self.address.parse().unwrap()
    }
}

fn build(workers: usize, change: impl FnOnce(&mut Command)) -> Command {
    let mut command = command("builder");
    command.arg("127.0.0.1:0").arg(workers.to_string());
    change(&mut command);
    command
}

#[test]
fn usr2_replaces_all_workers_and_loses_nothing() {
    let server = Server::start(2);
    let load = Load::new(server.target()).clients(4).start();
    load.wait_for_more(50, LIMIT);
    for round in 1..=5 {
        let old = server.workers();
        server.process.signal(Signal::USR2);
        server.wait_serving(2 + 2 * round);
        for pid in old {
            assert!(procs::wait_gone(pid, LIMIT));
        }
        load.wait_for_more(20, LIMIT);
    }
    let report = load.stop();
    report.expect_none_failed();
    // Each successor holds its predecessor's position.
    let positions: Vec<_> = server
        .serving()
        .iter()
        .map(|line| number(&line["position"]))
        .collect();
    assert!(
        positions
            .chunks(2)
            .all(|pair| pair.iter().sum::<u32>() == 1),
        "{positions:?}"
    );
}

#[test]
fn hup_is_a_rolling_restart_too() {
    let server = Server::start(1);
    let old = server.workers();
    server.process.signal(Signal::HUP);
    for pid in old {
        assert!(procs::wait_gone(pid, LIMIT));
    }
    assert_eq!(get(&server.address).worker, 2);
}

#[test]
fn as_many_workers_are_recycled_at_once_as_the_builder_says() {
    let server = Server::start_with(3, |command| {
        command.env("PROBE_RECYCLING", "2");
    });
    server.wait_workers(5);
}

#[test]
fn term_lets_requests_finish_and_exits_with_0() {
    let mut server = Server::start(2);
    let mut client = Client::connect(&server.address);
    // A request that has begun: its worker has accepted it.
    let mut other = Client::connect(&server.address);
    other.request();
    other.answer();
    get(&server.address);
    server.process.signal(Signal::TERM);
    let refused = || match Client::try_connect(&server.address) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Some(()),
        _ => None,
    };
    client.request();
    client.answer();
    assert_eq!(server.process.wait_exit(LIMIT).code(), Some(0));
    refused().unwrap();
    server.process.wait_family_gone(LIMIT);
}

#[test]
fn an_idle_server_stops_at_once_whatever_it_is_told() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut server = Server::start(2);
        server.process.signal(signal);
        assert_eq!(
            server.process.wait_exit(LIMIT).code(),
            Some(0),
            "{signal:?}"
        );
        server.process.wait_family_gone(LIMIT);
    }
}

#[test]
fn a_second_int_does_not_wait_for_requests() {
    let mut server = Server::start(1);
    // A client that says half of a request and keeps its worker from leaving.
    let mut client = Client::connect(&server.address);
    client.send(b"GET / HTTP/1.1\r\nHost: ");
    get(&server.address);
    server.process.signal(Signal::INT);
    let refused = || Client::try_connect(&server.address).err();
    // The first was heard when no successor can be added any more: the listener is closed or full of
    // what nobody takes; the second ends it long before the drain limit of 20 s.
    drop(refused());
    let asked = wait::now();
    wait::eventually(LIMIT, "it ends", || {
        server.process.signal(Signal::INT);
        server.process.try_exit()
    });
    assert!(asked.elapsed() < std::time::Duration::from_secs(15));
    server.process.wait_family_gone(LIMIT);
}

#[test]
fn ttin_adds_a_worker_and_ttou_takes_one_away() {
    let server = Server::start(1);
    server.process.signal(Signal::TTIN);
    server.wait_serving(2);
    server.process.signal(Signal::TTIN);
    server.wait_serving(3);
    server.wait_workers(3);
    let seen: BTreeSet<_> = (0..6).map(|_| get(&server.address).worker).collect();
    assert_eq!(seen.len(), 3);
    server.process.signal(Signal::TTOU);
    server.wait_workers(2);
    let load = Load::new(server.target()).requests(20).run();
    load.expect_none_failed();
    assert_eq!(load.pids.len(), 2);
}

#[test]
fn a_worker_that_crashes_is_replaced_in_its_position() {
    let server = Server::start(2);
    let mut client = Client::connect(&server.address);
    client.request_path("/crash");
    server.wait_serving(3);
    server.wait_workers(2);
    let serving = server.serving();
    assert!(
        [&serving[0], &serving[1]]
            .iter()
            .any(|line| line["position"] == serving[2]["position"])
    );
    Load::new(server.target())
        .requests(20)
        .run()
        .expect_none_failed();
}

#[test]
fn a_server_that_cannot_start_says_why_and_exits_with_1() {
    let failing = build(2, |command| {
        command.env("PROBE_FAIL", "1");
    });
    let output = Process::run(failing, LIMIT);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("BootFailed"), "{}", output.stderr);
    assert!(output.stderr.contains("told to fail"), "{}", output.stderr);
}

#[test]
fn a_server_whose_address_is_taken_says_so_and_exits_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command("builder");
    command
        .arg(taken.local_addr().unwrap().to_string())
        .arg("2");
    let output = Process::run(command, LIMIT);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("AddrInUse"), "{}", output.stderr);
}

#[test]
fn a_worker_that_never_becomes_ready_is_a_failed_start() {
    let slow = build(1, |command| {
        command.env("PROBE_NEVER_READY", "1");
    });
    let output = Process::run(slow, LIMIT);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("ready"), "{}", output.stderr);
}

#[test]
fn without_respawn_it_ends_with_its_last_worker() {
    let mut server = Server::start_with(1, |command| {
        command.env("PROBE_NO_RESPAWN", "1");
    });
    let mut client = Client::connect(&server.address);
    client.request_path("/crash");
    assert_eq!(server.process.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_environments_policy_holds_for_the_builder_too() {
    let server = Server::start_with(1, |command| {
        command.env("NODE_CLUSTER_SCHED_POLICY", "none");
    });
    let worker = *server.workers().first().unwrap();
    let inode = crate::parity::listening_inode(&server.address);
    assert!(
        procs::fd_targets(worker).contains(&inode),
        "the worker accepts itself"
    );
}

#[test]
fn a_primary_that_was_killed_leaves_nothing_behind() {
    let server = Server::start(3);
    server.process.signal(Signal::KILL);
    server.process.wait_family_gone(LIMIT);
}

#[test]
fn from_1_worker_to_64_and_back() {
    let mut probe = crate::probe::Probe::start_mode("supervisor");
    let first = probe.wait("a worker serves", |line| line.get("serves").is_some());
    let address = first["at"].as_str().unwrap().to_owned();
    let load = Load::new(address.parse::<Target>().unwrap()).clients(2);
    let load = load.pause(std::time::Duration::from_millis(5)).start();
    let status =
        |probe: &mut crate::probe::Probe| probe.done(json!({"do": "status"}))["status"].clone();
    for count in [64, 1] {
        probe.done(json!({"do": "scale", "to": count}));
        let status = status(&mut probe);
        assert_eq!(status["target"], count);
        let workers = status["workers"].as_array().unwrap();
        assert_eq!(workers.len(), count);
        assert!(
            workers.iter().all(|worker| worker["state"] == "ready"),
            "{status}"
        );
        assert_eq!(procs::children(probe.pid()).len(), count);
    }
    load.wait_for_more(10, LIMIT);
    load.stop().expect_none_failed();
    probe.done(json!({"do": "reload"}));
    assert_eq!(status(&mut probe)["workers"][0]["generation"], 2);
    probe.done(json!({"do": "stop"}));
    probe.wait("the outcome", |line| line["outcome"] == "Stopped");
}
