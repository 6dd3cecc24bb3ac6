//! The control socket takes a bounded part of the primary, whatever its clients do.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use cluster::{app, ids};
use phalanx_testkit::wait;
use phalanx_testkit::{LIMIT, node, procs};
use serde_json::{Value, json};

const GROWTH_BYTES: u64 = 64 << 20;

#[test]
fn a_paused_reader_of_large_events_is_cut_off() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().workers(2).script("floods.js").start_ready();
    let mut paused = UnixStream::connect(app.control().path()).unwrap();
    paused
        .write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut first = [0; 12];
    paused.read_exact(&mut first).unwrap();
    let before = procs::rss_bytes(app.pid()).unwrap();
    let worker = ids(&app.status())[0];
    // 48 messages of 1 MiB, of which the paused reader takes none.
    let body = json!({"message": {"flood": "large", "size": 48}, "to": worker});
    assert_eq!(app.post("/v1/messages", &body).status, 200);
    app.wait_for_line("flood of large is over", LIMIT);
    app.wait_for_line("behind: it is cut off", LIMIT);
    let after = procs::rss_bytes(app.pid()).unwrap();
    assert!(after < before + GROWTH_BYTES, "{before}, {after}");
    // Others are told as before.
    let events = app.events();
    app.verb(["reload"]).expect_success();
    events.wait_for(LIMIT, "the reload", |event: &Value| {
        event["report"] == "rollout_finished"
    });
}

#[test]
fn connections_that_say_nothing_are_closed_and_hold_up_nobody_for_long() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().workers(1).script("http.js").start_ready();
    let before = procs::fd_count(app.pid()).unwrap();
    let slow: Vec<_> = (0..200)
        .map_while(|_| {
            let mut stream = UnixStream::connect(app.control().path()).ok()?;
            stream.write_all(b"GET /v1/st").ok()?;
            Some(stream)
        })
        .collect();
    assert!(slow.len() >= 130, "{}", slow.len());
    let some = || (procs::fd_count(app.pid()).unwrap() >= before + 100).then_some(());
    wait::eventually(LIMIT, "they are accepted", some);
    assert!(procs::fd_count(app.pid()).unwrap() <= before + 140);
    // Their time runs out, and then there is a place.
    app.status();
    drop(slow);
    let back = || (procs::fd_count(app.pid()).unwrap() <= before + 8).then_some(());
    wait::eventually(LIMIT, "their descriptors come back", back);
}

#[test]
fn a_body_that_does_not_arrive_is_waited_for_only_so_long() {
    if node::require().is_none() {
        return;
    }
    let app = app().workers(1).script("http.js").start_ready();
    let mut slow = UnixStream::connect(app.control().path()).unwrap();
    slow.set_read_timeout(Some(LIMIT)).unwrap();
    slow.write_all(
        b"POST /v1/scale HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"workers\":",
    )
    .unwrap();
    // Its place is free again: it is answered, and the connection ends.
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("too_slow"), "{answer}");
}
