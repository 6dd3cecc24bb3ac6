//! `phalanx drill` starts whatever server there is, on a port that is nobody else's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this whole file is a test"
)]

use crate::cluster;
use crate::support;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use phalanx_testkit::{Process, free_port, node, require};
use serde_json::Value;
use support::{directory, fixture, phalanx};

/// A drill waits for its actions, and those for processors: this is only to end at all.
const LONG: Duration = Duration::from_mins(15);

/// A short drill of this server, with more options for `phalanx run`.
fn short(directory: &std::path::Path, run: &str, server: &[&str]) -> Command {
    let load = "drill --json --quiet --for 2s --rate 200 --clients 4 --timeout 60s --mix new -n 2";
    let actions = "--reloads 1 --kills 1 --scales 0 --run";
    let words = load.split(' ').chain(actions.split(' ')).chain([run, "--"]);
    let words: Vec<_> = words.chain(server.iter().copied()).collect();
    phalanx(directory, &words)
}

/// Where the server was drilled; nothing was lost.
#[track_caller]
fn target(drill: Command) -> SocketAddr {
    let output = Process::run(drill, LONG).expect_success();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (&report["lost"], &report["reloads"]),
        (&0.into(), &1.into()),
        "{report}"
    );
    report["target"].as_str().unwrap().parse().unwrap()
}

/// Servers that are told a port, each in its way.
fn servers(port: u16) -> Vec<Vec<String>> {
    let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let port = port.to_string();
    let http_server = cluster::example("http_server");
    let address = format!("127.0.0.1:{port}");
    let mut servers = vec![own(&[http_server.to_str().unwrap(), "10", &address])];
    if node::require().is_some() {
        servers.push(own(&[&fixture("http.js"), &port]));
    }
    if require("python3").is_some() {
        // On every address, and through a launcher.
        servers.push(own(&[
            "sh",
            "-c",
            &format!("python3 -m http.server {port}"),
        ]));
    }
    servers
}

#[test]
fn a_port_that_is_taken_is_no_hindrance() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let asked = taken.local_addr().unwrap().port();
    for server in servers(asked) {
        let words: Vec<_> = server.iter().map(String::as_str).collect();
        let target = target(short(directory().path(), "", &words));
        assert!(target.ip().is_loopback(), "{server:?}: {target}");
        assert_ne!(target.port(), asked, "{server:?}");
    }
}

#[test]
fn a_port_that_is_free_is_kept_on_loopback() {
    let asked = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for server in servers(asked.port()) {
        let words: Vec<_> = server.iter().map(String::as_str).collect();
        let target = target(short(directory().path(), "", &words));
        assert_eq!(target, asked, "{server:?}");
    }
}

#[test]
fn what_the_user_says_of_ports_goes_first() {
    if node::require().is_none() {
        return;
    }
    let script = fixture("http.js");
    let run = "--publish 127.0.0.2:0:4";
    let target = target(short(directory().path(), run, &[&script, "4"]));
    assert_eq!(target.ip(), std::net::Ipv4Addr::new(127, 0, 0, 2));
}

#[test]
fn the_service_manager_of_the_drill_hears_nothing_of_the_cluster() {
    if node::require().is_none() {
        return;
    }
    let place = directory();
    let manager = place.path().join("notify");
    let socket = UnixDatagram::bind(&manager).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut drill = short(place.path(), "", &[&fixture("http.js"), "0"]);
    drill
        .env("NOTIFY_SOCKET", &manager)
        .env("WATCHDOG_USEC", "1000000");
    target(drill);
    let mut said = [0; 4096];
    let heard = socket
        .recv(&mut said)
        .map(|length| String::from_utf8_lossy(&said[..length]).into_owned());
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::WouldBlock);
}
