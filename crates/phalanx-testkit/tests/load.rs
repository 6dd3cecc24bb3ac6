//! The load against servers that misbehave on purpose: each failure gets its own name.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use phalanx_testkit::load::Failure;
use phalanx_testkit::{LIMIT, Load, Mode, Report, Target};
use rustix::net::sockopt::set_socket_linger;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npid = 42";
const OK_CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\npid = 42";

/// What the server does with the n-th request of a connection, and whether it reads another.
type Serve = fn(stream: &mut TcpStream, request: usize) -> bool;

/// Serves connections one after the other until the test ends.
fn server(serve: Serve) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::from(listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut request = 0;
                while read_request(&mut stream) && serve(&mut stream, request) {
                    request += 1;
                }
            });
        }
    });
    target
}

fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
    true
}

fn say(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).is_ok()
}

/// Answers and closes the connection.
fn say_last(stream: &mut TcpStream, text: &str) -> bool {
    say(stream, text);
    false
}

/// Makes the close that follows a reset (socket(7), `SO_LINGER`).
fn reset(stream: &TcpStream) -> bool {
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    false
}

fn one(mode: Mode, serve: Serve) -> Report {
    Load::new(server(serve))
        .mode(mode)
        .requests(1)
        .request_limit(Duration::from_secs(5))
        .run()
}

fn only_failure(report: &Report) -> Failure {
    assert_eq!((report.ok, report.failed()), (0, 1), "{report}");
    *report.failures.keys().next().unwrap()
}

#[test]
fn answers_are_counted_by_pid_and_by_connection() {
    let load = Load::new(server(|stream, _| say(stream, OK)))
        .clients(4)
        .requests(100);
    let fresh = load.clone().run();
    fresh.expect_none_lost();
    assert_eq!(
        (fresh.ok, fresh.connections, fresh.pids[&42]),
        (100, 100, 100)
    );
    let kept = load.mode(Mode::KeepAlive).run();
    kept.expect_none_lost();
    assert_eq!((kept.ok, kept.pids[&42]), (100, 100));
    assert!(kept.connections <= 4, "{kept}");
    assert!(kept.latency(0.5) <= kept.latency(1.0));
}

#[test]
fn a_port_without_listener_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::from(listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(
        only_failure(&Load::new(target).requests(1).run()),
        Failure::Refused
    );
}

#[test]
fn a_reset_after_the_request_is_a_reset() {
    let report = one(Mode::ConnectionPerRequest, |stream, _| reset(stream));
    assert_eq!(only_failure(&report), Failure::Reset);
}

#[test]
fn a_close_without_answer_is_closed_before_response() {
    let report = one(Mode::ConnectionPerRequest, |_, _| false);
    assert_eq!(only_failure(&report), Failure::ClosedBeforeResponse);
}

#[test]
fn an_end_or_a_reset_within_the_answer_is_truncated() {
    let report = one(Mode::KeepAlive, |stream, _| say_last(stream, &OK[..30]));
    assert_eq!(only_failure(&report), Failure::Truncated);
    let report = one(Mode::ConnectionPerRequest, |stream, _| {
        say(stream, &OK[..44]) && reset(stream)
    });
    assert_eq!(only_failure(&report), Failure::Truncated);
}

#[test]
fn a_server_that_never_answers_times_out() {
    let target = server(|_, _| true);
    let report = Load::new(target)
        .requests(1)
        .request_limit(Duration::from_millis(50))
        .run();
    assert_eq!(only_failure(&report), Failure::TimedOut);
}

#[test]
fn an_error_status_and_nonsense_are_told_apart() {
    let report = one(Mode::ConnectionPerRequest, |stream, _| {
        say(stream, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    });
    assert_eq!(only_failure(&report), Failure::BadStatus(503));
    let report = one(Mode::ConnectionPerRequest, |stream, _| {
        say(stream, "hello\r\n\r\n")
    });
    assert_eq!(only_failure(&report), Failure::Malformed);
}

#[test]
fn a_reused_connection_closed_under_a_request_is_retried_and_counted_apart() {
    let target = server(|stream, request| request == 0 && say(stream, OK));
    let report = Load::new(target).mode(Mode::KeepAlive).requests(4).run();
    assert_eq!(
        (report.ok, report.failed(), report.disturbed()),
        (4, 0, 3),
        "{report}"
    );
    assert_eq!(
        report.retryable.keys().collect::<Vec<_>>(),
        [&Failure::ClosedBeforeResponse]
    );
    report.expect_none_failed();
}

#[test]
fn a_fresh_connection_is_never_retried() {
    let report = one(Mode::KeepAlive, |_, _| false);
    assert_eq!(only_failure(&report), Failure::ClosedBeforeResponse);
    assert_eq!(report.disturbed(), 1);
}

#[test]
fn an_announced_close_is_no_disturbance() {
    let target = server(|stream, _| say_last(stream, OK_CLOSE));
    let report = Load::new(target).mode(Mode::KeepAlive).requests(5).run();
    report.expect_none_lost();
    assert_eq!((report.announced_closes, report.connections), (5, 5));
}

#[test]
fn a_close_while_idle_is_noticed_before_the_next_request() {
    let target = server(|stream, _| say_last(stream, OK));
    let load = Load::new(target).mode(Mode::KeepAlive).requests(2);
    let report = load.pause(Duration::from_millis(250)).run();
    report.expect_none_lost();
    assert_eq!((report.idle_closes, report.connections), (1, 2), "{report}");
}

#[test]
fn a_running_load_can_be_awaited_and_stopped() {
    let load = Load::new(server(|stream, _| say(stream, OK)))
        .mode(Mode::KeepAlive)
        .clients(2);
    let running = load.start();
    running.wait_until_ok(50, LIMIT);
    running.wait_for_more(50, LIMIT);
    let report = running.stop();
    report.expect_none_lost();
    assert!(report.ok >= 100);
}

#[test]
fn unix_sockets_are_served_alike() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    Load::new(path).requests(10).run().expect_none_lost();
    let absent = Load::new(directory.path().join("absent")).requests(1).run();
    assert_eq!(only_failure(&absent), Failure::Refused);
}
