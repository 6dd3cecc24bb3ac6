//! Connections that are kept open are spread evenly on request, and nobody loses a request by it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cluster::kept::{Kept, find};
use cluster::session::Session;
use cluster::{app, pid_in};
use phalanx_testkit::app::{AppBuilder, is_settled};
use phalanx_testkit::{App, LIMIT, Load, Mode, Target, fixtures, node, require, wait};
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
        let all = |pids: &[u32]| pids.iter().map(|&pid| sockets(pid)).sum::<usize>();
        let (two, without) = (app.worker_pids(), all(&app.worker_pids()));
        let load = Load::new(app.address()).mode(Mode::KeepAlive).clients(200);
        let load = load.pause(Duration::from_millis(50)).start();
        wait::eventually(LIMIT, "all clients are there", || {
            (all(&two) >= without + 200).then_some(())
        });
        scaled(&app, 4);
        let idle = app.worker_pids();
        let before: Vec<usize> = idle.iter().map(|&pid| sockets(pid)).collect();
        assert!(before[0] > before[3] + 50, "{kind}: {before:?}");
        let done = rebalance(&app);
        assert!(count(&done, "above_before") >= 80, "{kind}: {done}");
        // On a busy machine clients may take longer to come back than a rebalance waits.
        if count(&done, "above_after") > 20 {
            let again = || (count(&rebalance(&app), "above_after") <= 20).then_some(());
            wait::eventually(LIMIT, kind, again);
        }
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

/// A client of HTTP/2 that asks again and again, and comes back when it is told to go. Which worker answered it last.
fn asks_on(target: &Target, is_over: &AtomicBool, all_are_there: &Barrier) -> u32 {
    let mut session = Session::open(target, false);
    let mut is_there = false;
    loop {
        let stream = session.ask("/slow?ms=50");
        let last = pid_in(&session.answer(stream));
        if !is_there {
            all_are_there.wait();
            is_there = true;
        }
        if session.is_leaving {
            let next = Session::open(target, false);
            session.expect_gentle_end();
            session = next;
        } else if is_over.load(Ordering::Acquire) {
            return last;
        }
    }
}

#[test]
fn clients_of_http2_are_spread_and_lose_nothing() {
    const CLIENTS: usize = 40;
    let mut kinds = vec![("Rust", app().command([cluster::example("polite")]))];
    if node::require().is_some() {
        kinds.push(("Node", app().script("polite.js")));
    }
    for (kind, builder) in kinds {
        let mut app = builder.env("HTTP", "2").workers(2).start_ready();
        let target = app.address();
        let (is_over, all_are_there) = (AtomicBool::new(false), Barrier::new(CLIENTS + 1));
        let shares = thread::scope(|scope| {
            let client = || asks_on(&target, &is_over, &all_are_there);
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            all_are_there.wait();
            scaled(&app, 4);
            let done = rebalance(&app);
            assert_eq!(count(&done, "above_before"), 20, "{kind}: {done}");
            // As above.
            if count(&done, "above_after") > 2 {
                let again = || (count(&rebalance(&app), "above_after") <= 2).then_some(());
                wait::eventually(LIMIT, kind, again);
            }
            is_over.store(true, Ordering::Release);
            let mut shares = BTreeMap::<u32, u32>::new();
            for client in clients {
                *shares.entry(client.join().unwrap()).or_default() += 1;
            }
            shares
        });
        // A tenth of 10, either way.
        let is_even = shares.len() == 4 && shares.values().all(|share| (8..=12).contains(share));
        assert!(is_even, "{kind}: {shares:?}");
    }
}

/// Opens a WebSocket.
fn upgraded(target: &Target, path: &str) -> Kept {
    let mut socket = Kept::open(target);
    socket.send(&format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert!(socket.head().starts_with("http/1.1 101"));
    socket
}

/// A ping without content; its mask is 0.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

#[test]
fn upgraded_connections_stay_and_are_not_waited_for() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().script("websocket.js").workers(1).start_ready();
    let target = app.address();
    let mut sockets: Vec<_> = (0..8).map(|_| upgraded(&target, "/ws")).collect();
    scaled(&app, 2);
    let begun = phalanx_sys::clock::now();
    let done = rebalance(&app);
    assert_eq!(count(&done, "above_after"), 4, "{done}");
    // A rebalance that waits takes 10 s.
    assert!(begun.elapsed() < Duration::from_secs(8), "{done}");
    for socket in &mut sockets {
        socket.send_bytes(&PING);
        let pong =
            socket.until(|bytes| (bytes.len() >= 2).then(|| bytes.drain(..2).collect::<Vec<u8>>()));
        assert_eq!(pong, [0x8a, 0]);
    }
}

#[test]
fn streams_are_ended_by_their_closing_handshake_where_that_is_wished() {
    let packages = fixtures::root().join("target/node-packages/node_modules");
    if node::require().is_none() || !packages.join("ws").exists() {
        return phalanx_testkit::missing!("the npm package ws: just node-packages");
    }
    let builder = app().env("NODE_PATH", &packages).script("ws.js");
    let mut app = builder.workers(1).start_ready();
    let target = app.address();
    let mut sockets: Vec<_> = (0..8).map(|_| upgraded(&target, "/")).collect();
    scaled(&app, 2);
    let reply = app.post("/v1/rebalance", &json!({"streams": true}));
    let done = reply.expect_success().json();
    assert_eq!(count(&done, "open"), 4, "nobody has come back: {done}");
    // Those that stay answer a ping; the others have said 1001 before.
    let is_told_to_go = |socket: &mut Kept| {
        socket.send_bytes(&PING);
        socket.until(|bytes| {
            let goes = find(bytes, &[0x88, 2, 0x03, 0xe9]).is_some();
            (goes || find(bytes, &[0x8a, 0]).is_some()).then_some(goes)
        })
    };
    let told: Vec<bool> = sockets.iter_mut().map(is_told_to_go).collect();
    assert_eq!(told.iter().filter(|goes| **goes).count(), 4, "{told:?}");
    for (mut socket, _) in sockets.into_iter().zip(told).filter(|(_, goes)| *goes) {
        // The client's half of the handshake; its mask is 0.
        socket.send_bytes(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
        socket.expect_end();
    }
}

#[test]
fn streams_of_a_program_with_the_library_end_when_it_is_told() {
    let builder = app().command([cluster::example("polite")]);
    let mut app = builder.workers(1).start_ready();
    let target = app.address();
    let mut sockets: Vec<_> = (0..8).map(|_| upgraded(&target, "/stream")).collect();
    // One that the program has not announced stays.
    sockets.push(upgraded(&target, "/upgrade"));
    scaled(&app, 2);
    let done = rebalance(&app);
    assert_eq!(
        count(&done, "open"),
        9,
        "streams stay unless it is wished: {done}"
    );
    let reply = app.post("/v1/rebalance", &json!({"streams": true}));
    let done = reply.expect_success().json();
    assert_eq!(count(&done, "open"), 5, "nobody has come back: {done}");
    let last = sockets.len() - 1;
    let is_told_to_go = |(number, socket): (usize, &mut Kept)| {
        socket.send("here");
        let goes = socket.until(|bytes| {
            let goes = find(bytes, b"bye").is_some();
            (goes || find(bytes, b"here").is_some()).then_some(goes)
        });
        assert!(!(goes && number == last), "it was not announced");
        goes
    };
    let told = sockets.iter_mut().enumerate().map(is_told_to_go);
    assert_eq!(told.filter(|goes| *goes).count(), 4);
}

#[test]
fn a_larger_app_is_rebalanced_by_itself_where_that_is_wished() {
    if node::require().is_none() {
        return;
    }
    let builder = app().script("http.js").options(["--rebalance", "auto"]);
    let mut app = builder.workers(1).start_ready();
    let load = Load::new(app.address()).mode(Mode::KeepAlive).clients(40);
    let load = load.pause(Duration::from_millis(50)).start();
    load.wait_until_ok(80, LIMIT);
    scaled(&app, 2);
    app.wait_for_line("phalanx: rebalanced: of ", LIMIT);
    // Should clients have taken longer to come back than it waited, it is done again after 30 s.
    wait::eventually(3 * LIMIT, "even shares", || {
        let shares: Vec<usize> = app.worker_pids().iter().map(|&pid| sockets(pid)).collect();
        (shares[0].abs_diff(shares[1]) <= 4).then_some(())
    });
    load.stop().expect_none_lost();
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
