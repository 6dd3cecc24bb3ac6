//! Sockets that travel with messages, in both directions. `docs/node-parity.md` names these tests.

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;

use phalanx_testkit::{LIMIT, fixtures, node, wait};
use serde_json::{Value, json};

use crate::probe::{Probe, get};

const SERIALIZATIONS: [&str; 2] = ["json", "advanced"];
/// Those of one worker that are kept at most, and the last, which is not acknowledged.
const UNREAD: usize = 65;

/// A primary whose workers run the script by this Node.
fn node_probe(node: &node::NodeBinary, serialization: &str) -> Probe {
    let mut probe = Probe::start();
    let script = fixtures::fixture("handles.js");
    let setup =
        json!({"do": "setup", "exec": node.path, "args": [script], "serialization": serialization});
    probe.done(setup);
    probe
}

/// What is read from the other end until it is closed.
fn read(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn ask_udp(address: &str) -> String {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.send_to(b"who?", address).unwrap();
    let mut text = [0; 64];
    let (length, _) = client.recv_from(&mut text).unwrap();
    String::from_utf8(text[..length].to_vec()).unwrap()
}

/// The primary sends this worker a socket of each of these kinds; what comes over them is the worker's.
fn expect_sent(probe: &mut Probe, worker: u32, pid: u32, kinds: &[&str], scratch: &Path) {
    let said = format!("from {pid}\n");
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    for (number, kind) in kinds.iter().enumerate() {
        let path = scratch.join(format!("{worker}.sock"));
        let at = match *kind {
            "connection" => json!(target.local_addr().unwrap().to_string()),
            "unix" => json!(path),
            _ => Value::Null,
        };
        let mark = probe.process.lines().count();
        // A Node worker makes a server of a Unix listener, too.
        let word = if *kind == "unix" { "listener" } else { *kind };
        let message = json!({"kind": word, "number": number});
        let order = json!({"do": "send handle", "worker": worker, "kind": kind, "at": at, "message": message});
        let address = probe.done(order)["address"].clone();
        probe.wait_after(mark, &format!("{kind} to arrive"), |line| {
            line["event"] == "message"
                && line["worker"] == worker
                && !line["message"]["got"].is_null()
        });
        let address = address.as_str().unwrap();
        let heard = match *kind {
            "connection" => read(accept(&target)),
            "listener" => read(TcpStream::connect(address).unwrap()),
            "unix" => read(UnixStream::connect(&path).unwrap()),
            _ => ask_udp(address),
        };
        assert_eq!(heard, said, "{kind}");
    }
}

#[test]
fn a_socket_goes_to_a_worker_with_a_message() {
    let scratch = tempfile::tempdir().unwrap();
    let mut probe = Probe::start();
    let (worker, pid) = probe.fork();
    let kinds = ["connection", "listener", "unix", "udp"];
    expect_sent(&mut probe, worker, pid, &kinds, scratch.path());
    assert_eq!(
        probe.ask(worker, json!({"do": "echo"}))["echo"]["do"],
        "echo"
    );
}

#[test]
fn a_socket_goes_to_a_node_worker_with_a_message() {
    let scratch = tempfile::tempdir().unwrap();
    for node in node::require_versions() {
        for serialization in SERIALIZATIONS {
            let mut probe = node_probe(&node, serialization);
            let (worker, pid) = probe.fork();
            probe.event(worker, "online");
            // Node 18 asks its primary for a listener again that was sent to a worker of its cluster.
            let kinds: &[&str] = match node.major {
                18 => &["connection", "udp"],
                _ => &["connection", "listener", "udp"],
            };
            expect_sent(&mut probe, worker, pid, kinds, scratch.path());
        }
    }
}

#[test]
fn messages_behind_a_socket_come_after_it() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = target.local_addr().unwrap().to_string();
    let mut probe = Probe::start();
    if let Some(node) = node::require() {
        probe = node_probe(&node, "json");
    }
    let (worker, _) = probe.fork();
    probe.event(worker, "online");
    for number in 0..20 {
        let message = json!({"kind": "connection", "number": number});
        probe.done(json!({"do": "send handle", "worker": worker, "kind": "connection", "at": at, "message": message}));
        probe.done(
            json!({"do": "send", "worker": worker, "message": {"number": number, "after": true}}),
        );
    }
    let got = || -> Vec<_> {
        let seen = probe.seen();
        let got = seen.iter().filter(|line| line["worker"] == worker);
        got.filter_map(|line| line["message"]["got"].as_object().cloned())
            .map(|got| (got["number"].as_u64(), got.contains_key("after")))
            .collect()
    };
    wait::eventually(LIMIT, "all messages", || (got().len() == 40).then_some(()));
    let expected: Vec<_> = (0..40).map(|one| (Some(one / 2), one % 2 == 1)).collect();
    assert_eq!(got(), expected);
}

/// What the primary took of this worker's sockets.
fn took(probe: &Probe, worker: u32, name: &str) -> Value {
    probe.wait(&format!("a {name}"), |line| {
        line["of"] == worker && line["took"] == name
    })
}

#[test]
fn a_socket_comes_from_a_worker_with_a_message() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = target.local_addr().unwrap().to_string();
    for (kind, name) in [
        ("connection", "TcpStream"),
        ("listener", "TcpListener"),
        ("udp", "UdpSocket"),
    ] {
        let at = if kind == "connection" {
            at.as_str()
        } else {
            "127.0.0.1:0"
        };
        let order = json!({"do": "send handle", "kind": kind, "at": at, "message": {"take": true}});
        assert_eq!(probe.ask(worker, order)["sent"], 1);
        took(&probe, worker, name);
    }
    assert_eq!(read(accept(&target)), "from the primary\n");
}

#[test]
fn a_socket_comes_from_a_node_worker_with_a_message() {
    for node in node::require_versions() {
        for serialization in SERIALIZATIONS {
            let mut probe = node_probe(&node, serialization);
            let (worker, pid) = probe.fork();
            probe.event(worker, "online");
            let target = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = target.local_addr().unwrap().to_string();
            let kinds = [
                ("connection", "TcpStream"),
                ("listener", "TcpListener"),
                ("udp", "UdpSocket"),
                ("kept", "TcpStream"),
            ];
            for (kind, name) in kinds {
                let message = json!({"do": "send", "kind": kind, "at": at, "message": {"take": true, "kind": kind}});
                probe.done(json!({"do": "send", "worker": worker, "message": message}));
                probe.wait(&format!("{kind} to be sent"), |line| {
                    line["worker"] == worker
                        && line["message"]["sent"] == kind
                        && line["message"]["error"].is_null()
                });
                probe.wait(&format!("a {name}"), |line| {
                    line["of"] == worker && line["took"] == name && line["message"]["kind"] == kind
                });
            }
            assert_eq!(read(accept(&target)), "from the primary\n");
            // With `keepOpen` the worker goes on using it.
            let mut kept = accept(&target);
            let both = ["from the primary\n".to_owned(), format!("from {pid}\n")];
            let mut text = vec![0; both.concat().len()];
            kept.read_exact(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(both.iter().all(|said| text.contains(said)), "{text}");
        }
    }
}

#[test]
fn a_socket_that_nobody_takes_is_closed_and_that_is_told() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = target.local_addr().unwrap().to_string();
    let order = json!({"do": "send handle", "kind": "connection", "at": at, "message": {}});
    probe.ask(worker, order);
    assert_eq!(read(accept(&target)), "");
    let error = probe.event(worker, "error");
    assert!(
        error["message"].as_str().unwrap().contains("took it"),
        "{error}"
    );
}

/// How many sockets of this worker's the primary has been given.
fn received(probe: &Probe, worker: u32) -> usize {
    let seen = probe.seen();
    let is_one = |line: &&Value| line["worker"] == worker && line["message"]["keep"] == true;
    seen.iter().filter(is_one).count()
}

#[test]
fn a_worker_that_floods_the_primary_with_sockets_waits_and_loses_none() {
    const COUNT: usize = 200;
    let mut probe = Probe::start();
    let (good, _) = probe.fork();
    let address = probe.serve(good, "127.0.0.1:0");
    let (flooder, _) = probe.fork();
    let order =
        json!({"do": "send handle", "kind": "udp", "count": COUNT, "message": {"keep": true}});
    probe.start_asking(flooder, order);
    wait::eventually(LIMIT, "as many as are kept", || {
        (received(&probe, flooder) == UNREAD).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(get(&address).worker, good);
    }
    assert_eq!(received(&probe, flooder), UNREAD);
    let mut released = 0;
    wait::eventually(LIMIT, "all of them", || {
        let order = json!({"do": "release"});
        released += probe.done(order)["released"].as_u64().unwrap();
        (released == COUNT as u64).then_some(())
    });
    assert_eq!(received(&probe, flooder), COUNT);
}

#[test]
fn a_worker_that_does_not_wait_for_acknowledgements_fills_nothing() {
    const COUNT: usize = 2000;
    let mut probe = Probe::start();
    let (good, _) = probe.fork();
    let address = probe.serve(good, "127.0.0.1:0");
    let (rogue, _) = probe.fork_with(json!({"PROBE_ROGUE": "1"}));
    let pid = probe.pid();
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    let before = descriptors();
    probe.done(json!({"do": "send", "worker": rogue, "message": {"handles": COUNT}}));
    let raw = json!({"raw": "{\"mark\":1}\n"});
    probe.done(json!({"do": "send", "worker": rogue, "message": raw}));
    probe.wait("what comes after", |line| {
        line["worker"] == rogue && line["message"]["mark"] == 1
    });
    let after = descriptors();
    assert!(after <= before + UNREAD + 8, "{before} {after}");
    assert_eq!(received(&probe, rogue), UNREAD);
    let error = probe.event(rogue, "error");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("without waiting"),
        "{error}"
    );
    assert_eq!(get(&address).worker, good);
}

#[test]
fn a_socket_that_does_not_arrive_is_sent_again_three_times_and_then_given_up() {
    let mut probe = Probe::start();
    let (rogue, pid) = probe.fork_with(json!({"PROBE_ROGUE": "nack"}));
    let order =
        json!({"do": "send handle", "worker": rogue, "kind": "udp", "message": {"number": 1}});
    probe.done(order);
    probe.done(json!({"do": "send", "worker": rogue, "message": {"number": 2}}));
    let got = |probe: &Probe| -> Vec<_> {
        let seen = probe.seen();
        let got = seen.iter().filter(|line| line["rogue"] == pid);
        got.map(|line| line["got"].clone()).collect()
    };
    wait::eventually(LIMIT, "what comes after", || {
        let is_it = |line: &Value| line["number"] == 2;
        got(&probe).iter().any(is_it).then_some(())
    });
    let got = got(&probe);
    assert_eq!(got.len(), 5, "{got:?}");
    assert!(
        got[..4]
            .iter()
            .all(|line| line["msg"]["number"] == 1 && line["type"] == "dgram.Socket"),
        "{got:?}"
    );
    let error = probe.event(rogue, "error");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("did not receive"),
        "{error}"
    );
}
