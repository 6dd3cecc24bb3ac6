//! Connections that are kept open are spread evenly on request, and nobody loses a request by it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::fs;
use std::io::{Read, Write};

use cluster::{app, connect};
use phalanx_testkit::app::{AppBuilder, is_settled};
use phalanx_testkit::{App, LIMIT, Load, Mode, fixtures, node, require, wait};
use serde_json::{Value, json};

fn kinds() -> Vec<(&'static str, AppBuilder)> {
    let rust = || app().command([cluster::example("loops")]);
    let handoff = ["--dispatch", "handoff"];
    let mut kinds = vec![
        ("Rust", rust()),
        ("Rust by handoff", rust().options(handoff)),
    ];
    if node::require().is_some() {
        let node = || app().script("http.js");
        kinds.push(("Node", node()));
        kinds.push(("Node by handoff", node().options(handoff)));
        let least = ["--policy", "least-connections"];
        kinds.push(("Node by load", node().options(least)));
    }
    kinds
}

/// An app that was scaled from one number of workers to another after it was given its connections.
fn scaled(app: &App, to: usize) {
    let output = app.verb(["scale", &to.to_string()]);
    assert!(output.status.success(), "{output:?}");
}

fn rebalance(app: &App) -> Value {
    let reply = app.post("/v1/rebalance", &json!({}));
    reply.expect_success().json()
}

fn count(done: &Value, name: &str) -> u64 {
    done[name].as_u64().unwrap()
}

/// Descriptors that are sockets.
fn sockets(pid: u32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = descriptors.filter_map(|one| fs::read_link(one.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn clients_that_keep_their_connections_are_spread_and_lose_nothing() {
    for (kind, builder) in kinds() {
        let mut app = builder.workers(2).start_ready();
        let load = Load::new(app.address()).mode(Mode::KeepAlive).clients(200);
        let load = load.pause(std::time::Duration::from_millis(50)).start();
        load.wait_until_ok(400, LIMIT);
        scaled(&app, 4);
        let idle = app.worker_pids();
        let before: Vec<usize> = idle.iter().map(|&pid| sockets(pid)).collect();
        assert!(before[0] > before[3] + 50, "{kind}: {before:?}");
        let done = rebalance(&app);
        assert!(count(&done, "above_before") >= 80, "{kind}: {done}");
        assert!(count(&done, "above_after") <= 20, "{kind}: {done}");
        load.wait_for_more(400, LIMIT);
        // Those that were told to end are on their way to others for a moment.
        wait::eventually(LIMIT, kind, || {
            let after: Vec<usize> = app.worker_pids().iter().map(|&pid| sockets(pid)).collect();
            let (least, most) = (after.iter().min()?, after.iter().max()?);
            (most - least <= 20).then_some(())
        });
        let report = load.stop();
        assert!(report.announced_closes >= 80, "{kind}: {report}");
        report.expect_none_lost();
    }
}

#[test]
fn upgraded_connections_stay() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().script("websocket.js").workers(1).start_ready();
    let target = app.address();
    let upgrade = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut streams: Vec<_> = (0..8).map(|_| connect(&target).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(upgrade).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
    }
    scaled(&app, 2);
    let done = rebalance(&app);
    assert_eq!(count(&done, "above_after"), 4, "{done}");
    for stream in &mut streams {
        // A ping without content; its mask is 0.
        stream.write_all(&[0x89, 0x80, 0, 0, 0, 0]).unwrap();
        let mut pong = [0; 2];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(pong, [0x8a, 0]);
    }
}

#[test]
fn where_nobody_tells_or_distributes_it_is_refused_with_the_reason() {
    if node::require().is_none() {
        return;
    }
    let cases: [(&[&str], &str); 2] = [
        (&["--dispatch", "shared"], "use another dispatch"),
        (&["--no-preload"], "--no-preload"),
    ];
    for (options, why) in cases {
        let mut app = app()
            .script("http.js")
            .workers(2)
            .options(options)
            .start_ready();
        app.wait_status(LIMIT, is_settled);
        let output = app.verb(["rebalance"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stderr.contains(why), "{output:?}");
    }
    if require("python3").is_some() {
        let script = fixtures::fixture("programs/loops.py");
        let app = app()
            .command(["python3"])
            .arg(script)
            .arg("0")
            .workers(2)
            .start_ready();
        let output = app.verb(["rebalance"]);
        assert!(
            output.stderr.contains("not every worker tells"),
            "{output:?}"
        );
    }
}
