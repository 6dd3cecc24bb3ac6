//! What a worker writes to its channel can harm nobody but itself.

use phalanx_testkit::{LIMIT, Signal, procs, wait};
use serde_json::{Value, json};

use crate::probe::{Probe, get};

/// A cluster of one good worker that serves and one that says what it is told.
fn good_and_rogue() -> (Probe, u32, String, u32) {
    let mut probe = Probe::start();
    let (good, _) = probe.fork();
    let address = probe.serve(good, "127.0.0.1:0");
    let (rogue, _) = probe.fork_with(json!({"PROBE_ROGUE": "1"}));
    (probe, good, address, rogue)
}

fn say(probe: &mut Probe, rogue: u32, raw: &str) {
    let order = json!({"raw": format!("{raw}\n")});
    probe.done(json!({"do": "send", "worker": rogue, "message": order}));
}

/// Waits until the primary has read everything that the rogue wrote so far.
fn settle(probe: &mut Probe, rogue: u32, mark: &str) {
    say(probe, rogue, &json!({"mark": mark}).to_string());
    let message = |line: &Value| line["worker"] == rogue && line["message"]["mark"] == mark;
    probe.wait("what comes after", message);
}

#[test]
fn a_message_that_makes_no_sense_is_an_error_event_and_nothing_else() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    let senseless = [
        "garbage",
        "",
        "{\"cmd\":\"NODE_CLUSTER\",",
        "\u{0}\u{1}\u{2}",
        "{\"cmd\":\"NODE_HANDLE_ACK\"}",
        "{\"cmd\":\"NODE_HANDLE_NACK\"}",
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":0,\"accepted\":true,\"seq\":3}",
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":987654321,\"accepted\":false,\"seq\":3}",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"seq\":1}",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"address\":\"x\",\"port\":70000,\"addressType\":4,\"seq\":1}",
    ];
    for (number, raw) in senseless.into_iter().enumerate() {
        let mark = probe.process.lines().count();
        say(&mut probe, rogue, raw);
        let error = |line: &Value| line["event"] == "error" && line["worker"] == rogue;
        probe.wait_after(mark, &format!("an error for {raw:?}"), error);
        settle(&mut probe, rogue, &number.to_string());
        assert_eq!(get(&address).worker, good);
    }
    let errors = probe
        .seen()
        .iter()
        .filter(|line| line["event"] == "error")
        .count();
    assert_eq!(errors, senseless.len());
}

#[test]
fn a_message_that_is_odd_but_harmless_is_passed_over() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    for raw in [
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"close\",\"key\":\"unknown\",\"seq\":4}",
        "{\"cmd\":\"NODE_UNHEARD_OF\"}",
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":-1,\"accepted\":true,\"seq\":3}",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}",
        "{\"cmd\":\"NODE_SOCKET_GET_COUNT\",\"key\":\"k\"}",
    ] {
        say(&mut probe, rogue, raw);
    }
    settle(&mut probe, rogue, "end");
    let history = probe.history(rogue);
    assert_eq!(
        history.iter().filter(|event| *event == "online").count(),
        1,
        "{history:?}"
    );
    assert_eq!(get(&address).worker, good);
}

#[test]
fn an_over_long_message_is_dropped_and_the_next_one_is_read() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    // A text of one byte more than the limit of 12 MiB, then the end of the line.
    let order = json!({"raw": "\""});
    probe.done(json!({"do": "send", "worker": rogue, "message": order}));
    let fill = json!({"fill": (12_u64 << 20) + 1});
    probe.done(json!({"do": "send", "worker": rogue, "message": fill}));
    assert_eq!(get(&address).worker, good);
    say(&mut probe, rogue, "");
    let error = probe.event(rogue, "error");
    assert!(
        error["message"].as_str().unwrap().contains("oversized"),
        "{error}"
    );
    settle(&mut probe, rogue, "after");
    assert_eq!(get(&address).worker, good);
}

#[test]
fn a_worker_that_dies_within_a_message_is_only_gone() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    let order = json!({"raw": "{\"half\": \"of a mess"});
    probe.done(json!({"do": "send", "worker": rogue, "message": order}));
    probe.done(json!({"do": "kill", "worker": rogue, "signal": "KILL"}));
    assert_eq!(probe.event(rogue, "exit")["signal"], 9);
    assert!(!probe.history(rogue).contains(&"message".to_owned()));
    assert_eq!(get(&address).worker, good);
}

#[test]
fn descriptors_that_nobody_asked_for_do_not_pile_up_in_the_primary() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    settle(&mut probe, rogue, "begin");
    let before = procs::fd_count(probe.pid()).unwrap();
    let order = json!({"descriptors": 500});
    probe.done(json!({"do": "send", "worker": rogue, "message": order}));
    settle(&mut probe, rogue, "end");
    let after = procs::fd_count(probe.pid()).unwrap();
    assert!(after <= before + 16, "{before} before, {after} after");
    assert_eq!(get(&address).worker, good);
}

#[test]
fn connections_of_a_worker_that_answers_none_are_served_when_it_goes() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    let port = address.rsplit(':').next().unwrap();
    // Under the very key of the others, it says that it listens, and then only holds what it gets.
    let query = |act: &str, seq: u32, port: &str| {
        format!(
            "{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"{act}\",\"index\":0,\"data\":null,\"address\":\"127.0.0.1\",\"port\":{port},\"addressType\":4,\"backlog\":0,\"seq\":{seq}}}"
        )
    };
    say(&mut probe, rogue, &query("queryServer", 0, "0"));
    say(&mut probe, rogue, &query("listening", 1, port));
    settle(&mut probe, rogue, "listens");
    probe.event(rogue, "listening");
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = crate::probe::Client::connect(&address);
        client.request();
        clients.push(client);
    }
    // It never acknowledged a handle; now it claims to have returned one that it was not offered.
    say(
        &mut probe,
        rogue,
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":5000,\"accepted\":false,\"seq\":9}",
    );
    probe.event(rogue, "error");
    probe.done(json!({"do": "kill", "worker": rogue, "signal": "KILL"}));
    for client in &mut clients {
        assert_eq!(client.answer().worker, good);
    }
}

#[test]
fn a_connection_returned_after_its_listener_was_closed_holds_nobody_up() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    let query = |act: &str, seq: u32| {
        format!(
            "{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"{act}\",\"index\":0,\"data\":null,\"address\":\"127.0.0.3\",\"port\":0,\"addressType\":4,\"backlog\":0,\"seq\":{seq}}}"
        )
    };
    say(&mut probe, rogue, &query("queryServer", 0));
    say(&mut probe, rogue, &query("listening", 1));
    let place = probe.event(rogue, "listening")["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let client = crate::probe::Client::connect(&place);
    let given = probe.wait("it is given the connection", |line| {
        line["got"]["msg"]["act"] == "newconn"
    });
    let key = given["got"]["msg"]["key"].clone();
    let seq = given["got"]["msg"]["seq"].clone();
    say(
        &mut probe,
        rogue,
        &json!({"cmd": "NODE_CLUSTER", "act": "close", "key": key, "seq": 2}).to_string(),
    );
    say(
        &mut probe,
        rogue,
        &json!({"cmd": "NODE_CLUSTER", "ack": seq, "accepted": false, "seq": 3}).to_string(),
    );
    settle(&mut probe, rogue, "returned");
    assert_eq!(get(&address).worker, good);
    drop(client);
    // Neither does one whose worker dies after it closed the listener.
    let pid = probe.pid();
    let before = procs::fd_count(pid).unwrap();
    say(&mut probe, rogue, &query("queryServer", 4));
    let mark = probe.process.lines().count();
    say(&mut probe, rogue, &query("listening", 5));
    let listening = |line: &Value| line["event"] == "listening" && line["worker"] == rogue;
    let place = probe.wait_after(mark, "it listens again", listening);
    let client = crate::probe::Client::connect(place["address"].as_str().unwrap());
    let newconn = |line: &Value| line["got"]["msg"]["act"] == "newconn";
    probe.wait_after(mark, "it is given the connection", newconn);
    say(
        &mut probe,
        rogue,
        &json!({"cmd": "NODE_CLUSTER", "act": "close", "key": key, "seq": 6}).to_string(),
    );
    settle(&mut probe, rogue, "closed");
    probe.done(json!({"do": "kill", "worker": rogue, "signal": "KILL"}));
    probe.event(rogue, "exit");
    assert_eq!(get(&address).worker, good);
    // The rogue's channel and pidfd are closed too.
    let freed = || (procs::fd_count(pid).unwrap() < before).then_some(());
    wait::eventually(LIMIT, "its descriptors are closed", freed);
    drop(client);
}

#[test]
fn a_worker_that_does_not_read_fills_its_own_channel_only() {
    let (mut probe, good, address, rogue) = good_and_rogue();
    let (deaf, pid) = probe.fork();
    probe.event(deaf, "online");
    probe.signal(pid, Signal::STOP);
    let text = "x".repeat(4 << 20);
    let mut refused = Value::Null;
    for _ in 0..8 {
        let answer = probe
            .tell(json!({"do": "send", "worker": deaf, "message": {"do": "about", "text": text}}));
        if answer.get("error").is_some() {
            refused = answer["error"].clone();
            break;
        }
    }
    assert!(
        refused
            .as_str()
            .is_some_and(|error| error.contains("has not taken")),
        "{refused}"
    );
    assert_eq!(get(&address).worker, good);
    settle(&mut probe, rogue, "alive");
    // A broadcast reaches the others, and says whom it missed.
    let reached = probe.done(
        json!({"do": "broadcast", "message": {"do": "about", "raw": "\"heard\"\n", "text": text}}),
    );
    assert_eq!(reached["reached"], 2);
    assert!(
        probe.event(deaf, "error")["message"]
            .as_str()
            .unwrap()
            .contains("broadcast")
    );
    // What waited arrives once it reads.
    probe.signal(pid, Signal::CONT);
    probe.ask(deaf, json!({"do": "about"}));
}
