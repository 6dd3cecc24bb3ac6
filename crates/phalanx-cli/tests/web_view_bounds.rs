//! What the web view's address withstands.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this whole file is a test"
)]

use crate::support;

use std::io::{Read, Write};

use support::view::{all_of, ask, connect, generation, status, with_view};

#[test]
fn what_is_too_large_or_too_slow_is_turned_away_and_holds_up_nobody() {
    let Some((mut app, address)) = with_view(&["--admin", "127.0.0.1:0"]) else {
        return;
    };
    let host = format!("Host: {address}");
    let padding = format!("X-Padding: {}", "x".repeat(64 << 10));
    let mut large = connect(address);
    // The other end may have closed before all of it is written.
    drop(large.write_all(format!("GET / HTTP/1.1\r\n{host}\r\n{padding}\r\n\r\n").as_bytes()));
    let answer = all_of(&mut large);
    assert!(
        answer.is_empty() || [400, 431].contains(&status(&answer)),
        "{answer}"
    );
    let own = format!("Origin: http://{address}");
    let mut body = connect(address);
    let head =
        format!("POST /v1/messages HTTP/1.1\r\n{host}\r\n{own}\r\nContent-Length: 2097152\r\n\r\n");
    body.write_all(head.as_bytes()).unwrap();
    drop(body.write_all(&vec![b' '; 64 << 10]));
    let answer = all_of(&mut body);
    assert!(
        answer.is_empty() || [408, 413].contains(&status(&answer)),
        "{answer}"
    );
    // As many as may be connected say half a word each; they are closed, and others are answered.
    let mut slow: Vec<_> = (0..128).map(|_| connect(address)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /v1/st").unwrap();
    }
    assert_eq!(status(&ask(address, "GET /v1/status", &[&host], "")), 200);
    for stream in &mut slow {
        let answer = all_of(stream);
        assert!(
            answer.is_empty() || [400, 408].contains(&status(&answer)),
            "{answer}"
        );
    }
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n",
    ] {
        let mut stream = connect(address);
        stream.write_all(garbage.as_bytes()).unwrap();
        let answer = all_of(&mut stream);
        assert!(answer.is_empty() || status(&answer) >= 400, "{answer}");
    }
    assert_eq!(generation(&mut app), 1);
    assert!(app.stop().success());
}

#[test]
fn an_open_stream_of_events_does_not_hold_up_the_end() {
    let Some((mut app, address)) = with_view(&["--admin", "127.0.0.1:0"]) else {
        return;
    };
    let mut events = connect(address);
    events
        .write_all(format!("GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
        .unwrap();
    let mut first = [0; 15];
    events.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let reload = app.verb(["reload"]).expect_success();
    assert!(reload.stdout.contains("generation 2"));
    assert!(app.stop().success());
    let told = all_of(&mut events);
    assert!(told.contains("\"report\":\"rollout_finished\""), "{told}");
}
