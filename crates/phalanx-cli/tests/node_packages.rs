//! Drains of servers that are built on npm packages: they need nothing for it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::path::PathBuf;
use std::time::Duration;

use cluster::kept::{Kept, find};
use cluster::{app, begin_reload, side_by_side};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::Deadline;
use phalanx_testkit::{LIMIT, Load, Mode, Target, fixtures, missing, node};

/// A fixture under every Node that is there; none when the package that it requires is not.
fn servers(package: &str, fixture: &str) -> Vec<(u32, AppBuilder)> {
    let packages: PathBuf = fixtures::root().join("target/node-packages/node_modules");
    if !packages.join(package).exists() {
        missing!("the npm package {package}: just node-packages");
        return Vec::new();
    }
    let of_node = node::require_versions().into_iter();
    of_node
        .map(|node| {
            let builder = app().env("NODE_PATH", &packages).node(&node, fixture);
            (node.major, builder)
        })
        .collect()
}

#[test]
fn reloads_of_fastify_lose_nothing() {
    side_by_side(servers("fastify", "fastify.js"), |(major, builder)| {
        let mut app = builder.workers(2).start();
        let load = Load::new(app.address()).mode(Mode::KeepAlive).clients(12);
        let load = load.pause(Duration::from_millis(20)).start();
        load.wait_until_ok(24, LIMIT);
        for _ in 0..3 {
            app.verb(["reload"]).expect_success();
            load.wait_for_more(24, LIMIT);
        }
        let report = load.stop();
        let name = format!("Node {major}: {report}");
        assert_eq!((report.disturbed(), report.idle_closes), (0, 0), "{name}");
        assert!(report.announced_closes > 0, "{name}");
    });
}

/// Opens a WebSocket.
#[track_caller]
fn open_web_socket(target: &Target) -> Kept {
    let mut socket = Kept::open(target);
    socket.send(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert!(socket.head().starts_with("http/1.1 101"));
    socket
}

/// Sends a message (RFC 6455, 5.2: with a mask of zeros), and waits for its echo.
#[track_caller]
fn echo(socket: &mut Kept) {
    socket.send_bytes(b"\x81\x82\0\0\0\0hi");
    let echo = b"\x81\x02hi";
    socket.until(|bytes| find(bytes, echo).map(|at| bytes.drain(..at + echo.len()).count()));
}

#[test]
fn a_web_socket_of_ws_outlives_the_drain_limit_until_it_closes() {
    side_by_side(servers("ws", "ws.js"), |(major, builder)| {
        let limits = ["--drain-timeout", "2s", "--stream-timeout", "1h"];
        let mut app = builder.workers(1).options(limits).start();
        let mut socket = open_web_socket(&app.address());
        let reload = begin_reload(&mut app);
        let deadline = Deadline::after(Duration::from_secs(3));
        while !deadline.has_passed() {
            echo(&mut socket);
        }
        // The client says 1000; the server answers alike, and closes.
        let close = b"\x88\x02\x03\xe8";
        socket.send_bytes(b"\x88\x82\0\0\0\0\x03\xe8");
        socket.until(|bytes| find(bytes, close).map(|at| bytes.drain(..at + close.len()).count()));
        socket.expect_closed();
        let output = reload.finish(LIMIT);
        assert!(output.status.success(), "Node {major}: {output:?}");
    });
}

#[test]
fn a_web_socket_of_ws_is_cut_at_its_limit() {
    side_by_side(servers("ws", "ws.js"), |(major, builder)| {
        let limits = ["--drain-timeout", "1s", "--stream-timeout", "6s"];
        let mut app = builder.workers(1).options(limits).start();
        let mut socket = open_web_socket(&app.address());
        let reload = begin_reload(&mut app);
        echo(&mut socket);
        reload.finish(LIMIT).expect_success();
        socket.expect_end();
        assert_eq!(app.status()["generation"], 2, "Node {major}");
    });
}
