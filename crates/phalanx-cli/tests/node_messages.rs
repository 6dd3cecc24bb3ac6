//! The channel between the primary and unmodified Node workers, under each Node that is supported:
//! messages of every size both ways, workers that leave by their own wish, and bytes that no worker
//! should write.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::{BTreeMap, BTreeSet};

use cluster::{app, connect, expect_in_turn, get, ids, restarts};
use phalanx_testkit::app::pids;
use phalanx_testkit::control::Events;
use phalanx_testkit::{App, LIMIT, Load, node};
use serde_json::{Value, json};

/// The most that one request to the control socket may hold is 1 MiB.
const LONG_TEXT_BYTES: usize = 1_000_000;

/// The messages of the next `count` message events, with the worker's id.
fn messages(events: &Events, count: usize) -> Vec<(u64, Value)> {
    let next = |_| {
        let event = events.wait_for(LIMIT, "a message", |event| event["event"] == "message");
        (event["worker"].as_u64().unwrap(), event["message"].clone())
    };
    (0..count).map(next).collect()
}

#[test]
fn messages_of_every_json_kind_go_both_ways_in_order() {
    let kinds = [
        r#"{"a":{"b":[1,-2.5,true]}}"#,
        r#""grüße, \"日本\"\n""#,
        "null",
        "0",
        "false",
        "[]",
    ];
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "messages.js").start_ready();
        let ids = ids(&app.status());
        let events = app.events();
        for kind in kinds {
            app.verb(["send", kind]).expect_success();
        }
        let mut echoed: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
        for (worker, message) in messages(&events, kinds.len() * ids.len()) {
            assert_eq!(message["id"], worker, "{node:?}");
            echoed
                .entry(worker)
                .or_default()
                .push(message["echo"].clone());
        }
        let sent: Vec<Value> = kinds
            .iter()
            .map(|kind| serde_json::from_str(kind).unwrap())
            .collect();
        for id in ids {
            assert_eq!(echoed[&id], sent, "{node:?}");
        }
    }
}

#[test]
fn a_message_to_one_worker_reaches_that_one_alone() {
    for node in node::require_versions() {
        let mut app = app().workers(3).node(&node, "messages.js").start_ready();
        let ids = ids(&app.status());
        let events = app.events();
        app.verb(["send", "--to", &ids[1].to_string(), r#""alone""#])
            .expect_success();
        app.verb(["send", r#""all""#]).expect_success();
        let mut heard = messages(&events, 4);
        let alone = heard
            .iter()
            .position(|(_, message)| message["echo"] == "alone");
        assert_eq!(heard.remove(alone.unwrap()).0, ids[1], "{node:?}");
        let all: BTreeSet<u64> = heard.iter().map(|(worker, _)| *worker).collect();
        assert_eq!(all, ids.into_iter().collect(), "{node:?}");
        assert_eq!(
            app.verb(["send", "--to", "999", "1"]).status.code(),
            Some(64)
        );
    }
}

#[test]
fn megabytes_of_messages_both_ways_lose_no_connection_in_between() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "messages.js").start();
        let target = app.address();
        let worker = ids(&app.status())[0];
        let events = app.events();
        let load = Load::new(target).clients(8).path("/pid").start();
        load.wait_for_more(20, LIMIT);
        for letter in 'a'..='h' {
            let text = letter.to_string().repeat(LONG_TEXT_BYTES);
            app.post("/v1/messages", &json!({"message": text, "to": worker}))
                .expect_success();
        }
        for (letter, (_, message)) in ('a'..='h').zip(messages(&events, 8)) {
            let text = message["echo"].as_str().unwrap();
            assert_eq!(text.len(), LONG_TEXT_BYTES, "{node:?}");
            assert!(text.starts_with(letter), "{node:?} {letter}");
        }
        load.stop().expect_none_lost();
    }
}

#[test]
fn a_message_of_eight_megabytes_arrives_whole() {
    const BYTES: usize = 8 << 20;
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "messages.js").start();
        let target = app.address();
        let events = app.events();
        let load = Load::new(target.clone()).clients(8).path("/pid").start();
        load.wait_for_more(20, LIMIT);
        get(&target, &format!("/send?bytes={BYTES}"));
        let [(_, message)] = messages(&events, 1).try_into().unwrap();
        assert_eq!(
            message["text"].as_str().map(str::len),
            Some(BYTES),
            "{node:?}"
        );
        load.wait_for_more(20, LIMIT);
        load.stop().expect_none_lost();
    }
}

#[test]
fn a_worker_that_disconnects_by_itself_is_replaced_and_no_crash() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "leaves.js").start();
        let target = app.address();
        // Node 26 resets connections that it has not read from yet when it closes a server.
        let load = (node.major < 26).then(|| Load::new(target.clone()).clients(8).start());
        for _ in 0..4 {
            let before = ids(&app.status());
            let events = app.events();
            get(&target, "/leave");
            let left = events.wait_for(LIMIT, "the leaving", |event| event["event"] == "leaving");
            assert!(
                before.contains(&left["worker"].as_u64().unwrap()),
                "{node:?} {left}"
            );
            let exit = events.wait_for(LIMIT, "the exit", |event| {
                event["event"] == "exit" && event["worker"] == left["worker"]
            });
            let ended = [&exit["code"], &exit["exited_after_disconnect"]];
            assert_eq!(ended, [&json!(0), &json!(true)], "{node:?} {exit}");
            app.wait_status(LIMIT, |status| {
                phalanx_testkit::app::is_settled(status)
                    && ids(status).iter().any(|id| !before.contains(id))
            });
        }
        assert_eq!(restarts(&app.status()), 0, "{node:?}");
        if let Some(load) = load {
            load.stop().expect_none_lost();
        }
    }
}

#[test]
fn a_worker_that_ends_in_other_ways_is_replaced_at_once() {
    for node in node::require_versions() {
        for way in ["/disconnect", "/exit"] {
            let mut app = app().workers(2).node(&node, "leaves.js").start();
            let target = app.address();
            let before = app.worker_pids();
            let events = app.events();
            get(&target, way);
            let exit = events.wait_for(LIMIT, "the exit", |event| event["event"] == "exit");
            let ended = [&exit["code"], &exit["exited_after_disconnect"]];
            assert_eq!(ended, [&json!(0), &json!(false)], "{node:?} {way}");
            let after = pids(&app.wait_ready(LIMIT));
            assert_eq!(
                after.iter().filter(|pid| before.contains(pid)).count(),
                1,
                "{node:?} {way}"
            );
            expect_in_turn(&mut app, &target, 2);
        }
    }
}

#[test]
fn bytes_that_are_no_messages_are_told_and_nobody_stops_serving() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "raw.js").start();
        let target = app.address();
        let status = app.status();
        let load = Load::new(target.clone()).clients(4).start();
        let events = app.events();
        for what in [
            "malformed",
            "words",
            "empty",
            "binary",
            "incomplete",
            "unasked",
        ] {
            expect_told(&app, &events, &ids(&status)[..1], what);
        }
        load.stop().expect_none_lost();
        expect_in_turn(&mut app, &target, 3);
        assert_eq!(pids(&app.status()), pids(&status), "{node:?}");
        assert!(app.stop().success(), "{node:?}");
    }
}

#[test]
fn an_oversized_message_is_dropped_and_the_next_one_arrives() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "raw.js").start();
        let target = app.address();
        let status = app.status();
        let events = app.events();
        expect_told(&app, &events, &ids(&status)[..1], "oversized");
        expect_in_turn(&mut app, &target, 3);
        assert_eq!(pids(&app.status()), pids(&status), "{node:?}");
    }
}

#[test]
fn an_acknowledgement_without_a_handle_is_told() {
    let Some(node) = node::require() else { return };
    let mut app = app().workers(2).node(&node, "raw.js").start();
    let target = app.address();
    let status = app.status();
    let events = app.events();
    expect_told(&app, &events, &ids(&status)[..1], "unsent");
    expect_in_turn(&mut app, &target, 3);
    assert_eq!(pids(&app.status()), pids(&status));
}

/// Lets these workers write what no worker should, and waits until that was told as an error of
/// theirs, and until the message after it has come.
#[track_caller]
fn expect_told(app: &App, events: &Events, workers: &[u64], what: &str) {
    for worker in workers {
        let message = json!({"message": {"write": what}, "to": worker});
        app.post("/v1/messages", &message).expect_success();
        let told = events.wait_for(LIMIT, what, |event| {
            assert_ne!(event["message"]["wrote"], what, "nothing was told of it");
            event["event"] == "error"
        });
        assert_eq!(told["worker"], *worker, "{told}");
        events.wait_for(LIMIT, what, |event| event["message"]["wrote"] == what);
    }
}

#[test]
fn a_socket_sent_to_the_primary_is_acknowledged_and_holds_nothing_up() {
    for node in node::require_versions() {
        let mut app = app()
            .workers(2)
            .options(["--drain-timeout", "5m"])
            .node(&node, "sends-socket.js")
            .start();
        let target = app.address();
        let events = app.events();
        for _ in 0..4 {
            let mut connection = connect(&target).unwrap();
            let said = messages(&events, 3);
            let has = |key: &str| said.iter().any(|(_, message)| !message[key].is_null());
            assert!(has("socket") && has("after"), "{node:?} {said:?}");
            assert!(
                said.iter().any(|(_, message)| message["sent"] == true),
                "{node:?} {said:?}"
            );
            // Nobody in the primary wants it: it is closed.
            assert_eq!(connection.read(&mut [0; 1]).unwrap_or(0), 0, "{node:?}");
        }
        assert!(app.stop().success(), "{node:?}");
    }
}
