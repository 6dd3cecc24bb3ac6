//! Addresses that Node servers cannot have, and such as they close and open again.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::net::{SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use cluster::{app, expect_in_turn, free_port, get, has_listeners, ids, pid_in, try_get};
use phalanx_sys::delay::DelayLink;
use phalanx_sys::identity;
use phalanx_testkit::control::Events;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Target, missing, node, require};

#[test]
fn an_address_in_use_reaches_the_script_as_its_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (node, dispatch) in node::with_ways(&["handoff", "shared", "auto"]) {
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

/// The link-local address of the tests' own namespace, and the number of its interface there.
const LINK_LOCAL: &str = "fe80::5";
const LOOPBACK: u32 = 1;

/// This thread and what it starts are in a network namespace with a link-local address from now on.
fn enter_namespace() -> Option<DelayLink> {
    if !identity::is_root() {
        missing!("root, for network namespaces");
        return None;
    }
    require("ip")?;
    let link = match DelayLink::new(Duration::ZERO) {
        Ok(link) => link,
        Err(error) => {
            missing!("network namespaces and /dev/net/tun: {error}");
            return None;
        }
    };
    link.enter_server().unwrap();
    let address = format!("{LINK_LOCAL}/64");
    for words in [
        &["link", "set", "lo", "up"][..],
        &["-6", "addr", "add", &address, "dev", "lo", "nodad"],
    ] {
        let mut ip = Command::new("ip");
        assert!(
            ip.args(words)
                .stdin(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
    }
    Some(link)
}

/// What a socket answers to a datagram.
fn ask_datagram(own: &str, server: SocketAddr) -> String {
    let socket = UdpSocket::bind(own).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut room = [0; 64];
    eventually(LIMIT, "an answer", || {
        // One may be sent before anybody is bound.
        socket.send_to(b"hello", server).ok()?;
        let (count, _) = socket.recv_from(&mut room).ok()?;
        Some(String::from_utf8_lossy(&room[..count]).into_owned())
    })
}

#[test]
fn a_link_local_address_keeps_its_interface() {
    let Some(_link) = enter_namespace() else {
        return;
    };
    let port = free_port();
    let address = |port| SocketAddrV6::new(LINK_LOCAL.parse().unwrap(), port, 0, LOOPBACK);
    for (node, dispatch) in node::with_ways(&["kernel", "handoff", "shared"]) {
        let name = format!("Node {}, {dispatch}", node.major);
        let builder = app().workers(2).options(["--dispatch", dispatch]);
        let builder = builder.node(&node, "scoped.js");
        let words = [format!("{LINK_LOCAL}%lo"), port.to_string()];
        let mut app = builder.args(words).start_ready();
        let pids = app.worker_pids();
        let target = Target::from(SocketAddr::from(address(port)));
        assert_eq!(app.address().to_string(), target.to_string(), "{name}");
        assert!(pids.contains(&pid_in(&get(&target, "/"))), "{name}");
        let told = ask_datagram("[::]:0", address(port).into());
        assert!(pids.contains(&pid_in(&told)), "{name}: {told}");
        assert!(app.stop().success(), "{name}");
    }
}

#[test]
fn two_datagram_sockets_that_may_share_a_port_do_in_one_worker() {
    for node in node::require_versions() {
        let port = free_port();
        let builder = app().workers(1).node(&node, "udp-twice.js");
        let mut app = builder.arg(port.to_string()).start();
        for word in ["first is bound", "second is bound"] {
            app.wait_for_line(word, LIMIT);
        }
        let told = ask_datagram("127.0.0.1:0", ([127, 0, 0, 1], port).into());
        assert_eq!(told, "second hello", "{node:?}");
        assert!(app.stop().success(), "{node:?}");
    }
}

#[test]
fn a_closed_server_refuses_until_it_listens_again() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .options(["--drain-timeout", "1s"])
            .node(&node, "reopen.js")
            .start();
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
        wait_listening(&events, 2);
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
        let mut app = app()
            .workers(2)
            .options(["--drain-timeout", "1s"])
            .node(&node, "reopen.js")
            .start();
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
        let mut app = app()
            .workers(2)
            .options(["--drain-timeout", "1s"])
            .node(&node, "reopen.js")
            .start();
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
            wait_listening(&events, 2);
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

/// Waits until so many workers listen again: a script hears of it before the primary does.
#[track_caller]
fn wait_listening(events: &Events, count: usize) {
    for _ in 0..count {
        events.wait_for(LIMIT, "listening", |event| event["event"] == "listening");
    }
}
