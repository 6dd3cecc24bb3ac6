//! What an OpenTelemetry collector gets: the app's figures, at an interval and at the end. Only with the feature `otlp`.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver};

use cluster::app;
use phalanx_testkit::{Deadline, LIMIT, Load, node};

/// A request that a collector got: its head, its body.
type Got = (String, Vec<u8>);

/// A collector that answers with this status.
fn collector(status: &'static str) -> (SocketAddr, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, got) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            // Before the answer: the app may end as soon as it has that.
            if sender.send((head, body)).is_err() {
                return;
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, got)
}

/// The fields of a protobuf message that have bytes or eight bytes, by number.
fn fields(mut rest: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let length = match key & 7 {
            0 => {
                varint(&mut rest);
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)).unwrap(),
            other => unreachable!("wire type {other}"),
        };
        let (value, after) = rest.split_at(length);
        found.push((key >> 3, value.to_vec()));
        rest = after;
    }
    found
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first().unwrap();
        *rest = after;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    number
}

/// All fields that this path of numbers leads to.
fn at(message: &[u8], path: &[u64]) -> Vec<Vec<u8>> {
    let Some((first, rest)) = path.split_first() else {
        return vec![message.to_vec()];
    };
    let inner = fields(message)
        .into_iter()
        .filter(|(number, _)| number == first);
    inner.flat_map(|(_, value)| at(&value, rest)).collect()
}

/// The sum of all points of a counter.
fn sum(body: &[u8], name: &str) -> f64 {
    let metrics = at(body, &[1, 2, 2]).into_iter();
    let named = metrics.filter(|metric| at(metric, &[1]) == [name.as_bytes()]);
    let values = named.flat_map(|metric| at(&metric, &[7, 1, 4]));
    values
        .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()))
        .sum()
}

#[test]
fn a_collector_gets_the_figures_and_the_last_ones_at_the_end() {
    if node::require().is_none() {
        return;
    }
    let (address, got) = collector("200 OK");
    let url = format!("http://{address}");
    let mut app = app()
        .name("shop")
        .workers(2)
        .options(["--otlp", &url, "--otlp-interval", "200ms"])
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=blue")
        .script("http.js")
        .start_ready();
    Load::new(app.address())
        .requests(30)
        .run()
        .expect_none_lost();
    let deadline = Deadline::after(LIMIT);
    let (head, body) = loop {
        let (head, body) = got.recv_timeout(deadline.remaining()).unwrap();
        if sum(&body, "phalanx_connections") > 29.5 {
            break (head, body);
        }
    };
    assert!(head.starts_with("POST /v1/metrics HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    let resource = at(&body, &[1, 1, 1]);
    let pair = |attribute: &Vec<u8>| {
        let text = |path: &[u64]| String::from_utf8(at(attribute, path).concat()).unwrap();
        (text(&[1]), text(&[2, 1]))
    };
    let pairs: Vec<_> = resource.iter().map(pair).collect();
    let expected = [("service.name", "shop"), ("team", "blue")];
    assert_eq!(
        pairs,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    Load::new(app.address())
        .requests(10)
        .run()
        .expect_none_lost();
    assert!(app.stop().success());
    let last = got.try_iter().last().unwrap();
    assert!(sum(&last.1, "phalanx_connections") > 39.5);
}

#[test]
fn a_collector_that_is_away_or_refuses_is_told_once_and_holds_nobody_up() {
    if node::require().is_none() {
        return;
    }
    let (address, got) = collector("503 Service Unavailable");
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (address, reason) in [(address, "it answers 503"), (gone, "refused")] {
        let url = format!("http://{address}");
        let mut app = app()
            .workers(1)
            .options(["--otlp", &url, "--otlp-interval", "100ms"])
            .script("http.js")
            .start_ready();
        let line = app.wait_for_line("the collector does not take metrics", LIMIT);
        assert!(line.contains(reason), "{line}");
        if reason.contains("503") {
            for _ in 0..3 {
                got.recv_timeout(LIMIT).unwrap();
            }
        }
        assert!(app.stop().success());
        let lines = app.lines().shown();
        assert_eq!(lines.matches("does not take metrics").count(), 1, "{lines}");
    }
}

#[test]
fn what_is_no_collector_is_refused() {
    for wrong in ["localhost:4318", "https://localhost:4318"] {
        let run = app().options(["--otlp", wrong]).command(["true"]);
        let output = run.run_to_end(LIMIT);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(output.stderr.contains("use http://HOST:PORT"), "{output:?}");
    }
}
