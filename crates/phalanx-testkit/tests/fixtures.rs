//! Each fixture alone, under every Node that is there: what a cluster of it does differently is
//! then the cluster's doing.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;

use phalanx_testkit::load::Failure;
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::{LIMIT, Load, Mode, Process, Report, Signal, Target, fixtures, procs};

const LISTENING: &str = "listening on ";

fn command(node: &NodeBinary, fixture: &str) -> Command {
    let mut command = node.command();
    command.arg(fixtures::fixture(fixture)).env_remove("PORT");
    command
}

/// Starts a fixture and waits for its (first) address.
fn start(node: &NodeBinary, fixture: &str) -> (Process, Target) {
    let process = Process::start(command(node, fixture));
    let line = process.wait_for_line(LISTENING, LIMIT);
    (
        process,
        line.split_once(LISTENING).unwrap().1.parse().unwrap(),
    )
}

fn load(target: &Target, path: &str) -> Report {
    Load::new(target.clone()).path(path).requests(3).run()
}

#[test]
fn http_fixtures_answer_with_their_pid_under_every_version() {
    for node in node::require_versions() {
        for fixture in [
            "http.js",
            "cpu.js",
            "exclusive.js",
            "keep-alive.js",
            "slow.js",
            "noisy.js",
            "port0.js",
        ] {
            let (process, target) = start(&node, fixture);
            let report = load(&target, "/");
            assert_eq!(
                report.pids.get(&process.pid()),
                Some(&3),
                "{node:?} {fixture}: {report}"
            );
        }
    }
}

#[test]
fn keep_alive_holds_connections() {
    let Some(node) = node::require() else { return };
    let (_process, target) = start(&node, "keep-alive.js");
    let report = Load::new(target).mode(Mode::KeepAlive).requests(20).run();
    report.expect_none_lost();
    assert_eq!(report.connections, 1);
}

#[test]
fn crash_closes_the_connection_in_service() {
    let Some(node) = node::require() else { return };
    let (mut process, target) = start(&node, "crash.js");
    load(&target, "/").expect_none_lost();
    let report = Load::new(target).path("/crash").requests(1).run();
    assert_eq!(report.failed(), 1, "{report}");
    assert_eq!(process.wait_exit(LIMIT).code(), Some(1));
}

#[test]
fn programs_that_cannot_serve_say_so_by_their_status() {
    let Some(node) = node::require() else { return };
    let status = |fixture| Process::run(command(&node, fixture), LIMIT).status.code();
    assert_eq!(status("syntax-error.js"), Some(1));
    assert_eq!(status("exits-at-once.js"), Some(1));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut in_use = command(&node, "in-use.js");
    in_use.env("PORT", taken.local_addr().unwrap().port().to_string());
    let output = Process::run(in_use, LIMIT);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, "error code = EADDRINUSE\n");
    let silent = Process::start(command(&node, "never-ready.js"));
    silent.wait_for_line("thinking", LIMIT);
}

#[test]
fn sockets_below_http_answer() {
    let Some(node) = node::require() else { return };
    let (process, target) = start(&node, "net.js");
    let mut greeting = [0; 6];
    TcpStream::connect(target.tcp())
        .unwrap()
        .read_exact(&mut greeting)
        .unwrap();
    assert_eq!(&greeting, b"pid = ");
    drop(process);
    let (process, target) = start(&node, "udp.js");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.send_to(b"hi", target.tcp()).unwrap();
    let mut answer = [0; 100];
    let count = socket.recv(&mut answer).unwrap();
    assert_eq!(
        answer[..count],
        *format!("hi pid = {}", process.pid()).as_bytes()
    );
}

#[test]
fn unix_sockets_and_several_listeners_answer() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mut unix = command(&node, "unix.js");
    let process = Process::start({
        unix.arg(&path);
        unix
    });
    process.wait_for_line(LISTENING, LIMIT);
    load(&Target::from(path), "/").expect_none_lost();
    let several = Process::start(command(&node, "several.js"));
    for name in ["first", "second"] {
        let line = several.wait_for_line(&format!("{name} {LISTENING}"), LIMIT);
        let target: Target = line.split_once(LISTENING).unwrap().1.parse().unwrap();
        load(&target, "/").expect_none_lost();
    }
    several.wait_for_line("third listening on", LIMIT);
}

#[test]
fn an_inherited_listener_is_served() {
    let Some(node) = node::require() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::from(listener.local_addr().unwrap());
    // As standard input the descriptor survives the exec without unsafe code: FD=0.
    let mut served = command(&node, "listen-fd.js");
    served.env("FD", "0").stdin(OwnedFd::from(listener));
    let process = Process::start_with(served);
    process.wait_for_line("listening on descriptor 0", LIMIT);
    load(&target, "/").expect_none_lost();
}

#[test]
fn tls_sessions_are_resumed() {
    let Some(node) = node::require() else { return };
    let (process, target) = start(&node, "https.js");
    let mut client = command(&node, "https-get.js");
    client.arg(target.tcp().port().to_string());
    let output = Process::run(client, LIMIT).expect_success().stdout;
    let expected = |resumed| format!("resumed = {resumed}, pid = {}\n", process.pid());
    assert_eq!(output, expected(false) + &expected(true).repeat(3));
}

#[test]
fn node_cluster_reloads_by_its_recipe() {
    let Some(node) = node::require() else { return };
    for policy in ["rr", "none"] {
        let mut cluster = command(&node, "node-cluster.js");
        cluster.env("NODE_CLUSTER_SCHED_POLICY", policy);
        let cluster = Process::start(cluster);
        let line = cluster.wait_for_line(LISTENING, LIMIT);
        cluster.wait_for_line("ready pid", LIMIT);
        let target: Target = line.split_once(LISTENING).unwrap().1.parse().unwrap();
        let before = procs::children(cluster.pid());
        assert_eq!(before.len(), 2);
        let running = Load::new(target).clients(2).start();
        running.wait_until_ok(10, LIMIT);
        cluster.signal(Signal::USR2);
        cluster.wait_for_line("reloaded", LIMIT);
        let report = running.stop();
        assert_eq!(report.count(Failure::Refused), 0, "{report}");
        assert!(
            procs::children(cluster.pid())
                .iter()
                .all(|pid| !before.contains(pid))
        );
    }
}
