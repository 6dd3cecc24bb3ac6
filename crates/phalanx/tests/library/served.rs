//! The limits of `serve`, and what it tells when it is over.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use phalanx_testkit::{LIMIT, Process, Signal, fixtures};

struct Server {
    process: Process,
    address: String,
}

fn server(variable: &str, value: &str) -> Server {
    let mut command = Command::new(fixtures::example("served"));
    command.env(variable, value);
    let process = Process::start(command);
    let line = process.wait_for_line("listens on ", LIMIT);
    let address = line.rsplit(' ').next().unwrap().to_owned();
    Server { process, address }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }
}

fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

/// The number in the body of an answer.
fn number(stream: &mut TcpStream) -> u32 {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap().parse().unwrap()
}

/// The connection ends without an answer.
fn expect_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => assert_eq!(rest, b""),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn a_client_that_does_not_finish_its_head_is_closed() {
    let server = server("HEADER_TIMEOUT_MS", "1500");
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: ").unwrap();
    expect_closed(&mut silent);
    expect_closed(&mut slow);
    let mut quick = server.connect();
    ask(&mut quick, "/");
    assert_eq!(number(&mut quick), 1);
}

#[test]
fn no_more_connections_are_served_at_once_than_may_be() {
    let server = server("MAX_CONNECTIONS", "1");
    let mut first = server.connect();
    ask(&mut first, "/");
    assert_eq!(number(&mut first), 1);
    let mut second = server.connect();
    ask(&mut second, "/");
    for expected in 2..=50 {
        ask(&mut first, "/");
        assert_eq!(number(&mut first), expected, "the second was served too");
    }
    drop(first);
    assert_eq!(number(&mut second), 51);
}

#[test]
fn serve_tells_how_many_connections_it_had_and_cut_off() {
    let server = server("NOTHING", "");
    let mut answered = server.connect();
    ask(&mut answered, "/");
    number(&mut answered);
    drop(answered);
    let mut open = server.connect();
    ask(&mut open, "/never");
    let mut last = server.connect();
    ask(&mut last, "/");
    assert_eq!(number(&mut last), 2);
    drop(last);
    server.process.signal(Signal::TERM);
    server.process.wait_for_line("hook ran", LIMIT);
    server.process.wait_for_line("served 3, cut off 1", LIMIT);
    server.process.finish(LIMIT).expect_success();
}
