//! npm packages whose other half lives in Node's primary, as their documentation shows them: both halves run, with the
//! package `phalanx-cluster` registered by `--import`.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::path::PathBuf;
use std::process::Command;

use cluster::dropin::{LIMIT, Primary, imported};
use phalanx_testkit::fixtures::{fixture, root};
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::{Process, Target, missing, wait};

fn packages() -> PathBuf {
    root().join("target/node-packages/node_modules")
}

/// Every Node that is there; none when the package is not.
fn versions(package: &str) -> Vec<NodeBinary> {
    if !packages().join(package).exists() {
        missing!("the npm package {package}: just node-packages");
        return Vec::new();
    }
    node::require_versions()
}

fn start(node: &NodeBinary, script: &str, variables: &[(&str, &str)]) -> Process {
    let mut command = imported(node, script, variables);
    command.env("NODE_PATH", packages());
    Process::start_with_stdin(command)
}

#[test]
fn socket_io_reaches_the_clients_of_all_workers() {
    if versions("@socket.io/cluster-adapter").is_empty() {
        return;
    }
    // With sticky sessions the primary accepts, and sends the worker a socket with bytes; without, workers listen.
    for (node, sticky) in node::with_ways(&["1", "0"]) {
        let name = format!("Node {}, sticky {sticky}", node.major);
        let primary = start(&node, "dropin/socket-io.js", &[("STICKY", sticky)]);
        let address = primary.wait_for_line("listening", LIMIT);
        let address = address.split(' ').nth(2).unwrap().to_owned();
        wait::eventually(LIMIT, "both workers", || {
            let lines = primary.lines().all();
            let started = lines.iter().filter(|line| line.text.starts_with("started"));
            (started.count() == 2).then_some(())
        });
        let mut clients: Command = node.command();
        clients
            .arg(fixture("dropin/socket-io-client.js"))
            .arg(address);
        clients.envs([("STICKY", sticky), ("CLIENTS", "6")]);
        clients.env("NODE_PATH", packages());
        let said = Process::run(clients, LIMIT).expect_success().stdout;
        assert_eq!(said, "6 clients of 2 workers heard 1-2-255\n", "{name}");
    }
}

#[test]
fn rate_limiter_flexible_counts_for_all_workers() {
    for node in versions("rate-limiter-flexible") {
        let primary = Primary::of(start(&node, "dropin/rate-limiter.js", &[]));
        let answers = primary.answers(12);
        let count = |verdict: &str| -> (usize, usize) {
            let of_it: Vec<_> = answers
                .iter()
                .filter(|(answer, _)| answer.starts_with(verdict))
                .collect();
            (of_it.len(), of_it.iter().map(|(_, count)| **count).sum())
        };
        // Of two workers each.
        assert_eq!(count("served "), (2, 4), "Node {}: {answers:?}", node.major);
        assert_eq!(
            count("limited "),
            (2, 8),
            "Node {}: {answers:?}",
            node.major
        );
    }
}

#[test]
fn prom_client_adds_up_what_all_workers_counted() {
    for node in versions("prom-client") {
        let primary = Primary::of(start(&node, "dropin/prom-client.js", &[]));
        assert_eq!(primary.answers(12).len(), 2);
        let line = primary.process.wait_for_line("metrics", LIMIT);
        let metrics = Target::Tcp(line.split(' ').nth(2).unwrap().parse().unwrap());
        let text = cluster::get(&metrics, "/");
        let counted = text
            .lines()
            .find(|line| line.starts_with("requests_served "));
        assert_eq!(
            counted,
            Some("requests_served 12"),
            "Node {}: {text}",
            node.major
        );
    }
}
