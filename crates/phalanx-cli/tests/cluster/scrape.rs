//! Reads the metrics port, and watches that no counter falls.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::lines::address_in;
use phalanx_testkit::{App, LIMIT, fixtures, missing, node, require};

use super::app;

/// An app with a metrics port, and the port's address.
pub(crate) fn started(builder: AppBuilder) -> (App, SocketAddr) {
    let app = builder.options(["--metrics", "127.0.0.1:0"]).start_ready();
    let address = address_in(&app.wait_for_line("metrics: http://", LIMIT));
    (app, address)
}

/// The status, the head and the body of an answer.
pub(crate) fn get_with(address: SocketAddr, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let host = if headers.contains("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = get_with(address, path, "");
    (status, body)
}

/// All series of a text, by name and labels.
pub(crate) fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The sum of all series of that name.
pub(crate) fn sum(text: &str, name: &str) -> f64 {
    let all = series(text);
    let own = all
        .iter()
        .filter(|(series, _)| series.split('{').next() == Some(name));
    own.map(|(_, value)| value).sum()
}

/// A sum of whole numbers. That of none is minus zero.
pub(crate) fn count(text: &str, name: &str) -> u64 {
    format!("{:.0}", sum(text, name).abs()).parse().unwrap()
}

/// Names of the families that only rise.
pub(crate) fn is_counter(name: &str) -> bool {
    let name = name.split('{').next().unwrap();
    ["_total", "_bucket", "_count", "_sum"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Scrapes in a loop until it is told to stop; panics when a counter falls or is gone.
pub(crate) fn watch_counters(address: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    let mut scrapes = 0;
    while !stop.load(Ordering::Acquire) {
        let (status, text) = get(address, "/metrics");
        assert_eq!(status, 200, "{text}");
        let now = series(&text);
        for (name, before) in last.iter().filter(|(name, _)| is_counter(name)) {
            let after = now.get(name).copied().unwrap_or(f64::NAN);
            assert!(after >= *before, "{name}: {before}, then {after}");
        }
        last = now;
        scrapes += 1;
    }
    scrapes
}

/// An app that keeps metrics with prom-client.
pub(crate) fn shop(aggregator: &str) -> Option<AppBuilder> {
    let packages = fixtures::root().join("target/node-packages/node_modules");
    if !packages.join("prom-client").exists() {
        missing!("the npm package prom-client: just node-packages");
        return None;
    }
    node::require()?;
    let app = app().workers(2).env("NODE_PATH", packages);
    Some(app.env("AGGREGATOR", aggregator).script("prom.js"))
}

/// An app whose Python has the packages.
pub(crate) fn python(words: &[&str]) -> Option<AppBuilder> {
    with_packages(&require("python3")?, words)
}

/// The same for this Python.
pub(crate) fn with_packages(python: &Path, words: &[&str]) -> Option<AppBuilder> {
    let packages = fixtures::root().join("target/python-packages");
    if !packages.join("prometheus_client").exists() {
        missing!("prometheus_client: just python-packages");
        return None;
    }
    let app = app().env("PYTHONPATH", packages);
    let app = app.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(app.command([python]).args(words))
}

/// The café, which is its own server.
pub(crate) fn cafe(workers: usize) -> Option<AppBuilder> {
    let script = fixtures::fixture("programs/counted.py");
    Some(python(&[script.to_str().unwrap()])?.workers(workers))
}
