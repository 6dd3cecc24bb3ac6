//! Workers whose channel speaks V8's own serialization (`--serialization advanced`), under each Node that is supported.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::io::Read;
use std::time::Duration;

use cluster::{app, connect, expect_in_turn, ids};
use phalanx_testkit::control::Events;
use phalanx_testkit::{LIMIT, Load, Mode, Process, node};
use serde_json::{Value, json};

const ADVANCED: [&str; 2] = ["--serialization", "advanced"];

fn message(events: &Events) -> Value {
    events.wait_for(LIMIT, "a message", |event| event["event"] == "message")["message"].clone()
}

#[test]
fn messages_go_both_ways_and_connections_in_turn() {
    let long = "ü".repeat(60_000);
    let kinds = [
        json!({"a": {"b": [1, -2.5, true, null]}, "7": "日本"}),
        json!("text"),
        json!(0),
        json!(long),
    ];
    for (node, dispatch) in node::with_ways(&["handoff", "auto"]) {
        let name = format!("Node {}, {dispatch}", node.major);
        let options = [&ADVANCED[..], &["--dispatch", dispatch]].concat();
        let builder = app().workers(2).options(options);
        let mut app = builder.node(&node, "messages.js").start_ready();
        let target = app.address();
        expect_in_turn(&mut app, &target, 6);
        let events = app.events();
        let count = ids(&app.status()).len();
        for kind in &kinds {
            app.verb(["send", &kind.to_string()]).expect_success();
            for _ in 0..count {
                let message = message(&events);
                assert_eq!(message["echo"], *kind, "{name}: {message}");
            }
        }
        assert!(app.stop().success(), "{name}");
    }
}

#[test]
fn reloads_lose_nothing() {
    for (node, dispatch) in node::with_ways(&["handoff", "auto"]) {
        let options = [&ADVANCED[..], &["--dispatch", dispatch]].concat();
        let mut app = app()
            .workers(2)
            .options(options)
            .node(&node, "http.js")
            .start_ready();
        let load = Load::new(app.address()).mode(Mode::KeepAlive).clients(8);
        let load = load.pause(Duration::from_millis(10)).start();
        load.wait_until_ok(24, LIMIT);
        app.verb(["reload"]).expect_success();
        load.wait_for_more(24, LIMIT);
        let report = load.stop();
        assert_eq!(
            report.disturbed(),
            0,
            "Node {}, {dispatch}: {report}",
            node.major
        );
    }
}

#[test]
fn what_json_cannot_say_is_an_event_of_its_bytes_and_a_handle_is_refused_in_words() {
    for node in node::require_versions() {
        let builder = app().workers(1).options(ADVANCED);
        let mut app = builder.node(&node, "advanced.js").start_ready();
        let events = app.events();
        app.verb(["send", "7"]).expect_success();
        let bytes = message(&events)["$v8"].as_str().unwrap().to_owned();
        let mut read = node.command();
        let script = "const map = v8.deserialize(Buffer.from(process.argv[1], 'hex'));\
                      console.log(map.get('echo'), map.get('big'))";
        read.args(["-e", script, &bytes]);
        let read = Process::run(read, LIMIT).expect_success().stdout;
        assert_eq!(read, "7 12345678901234567890n\n", "Node {}", node.major);

        let mut connection = connect(&app.address()).unwrap();
        assert!(message(&events)["$v8"].is_string(), "Node {}", node.major);
        let told = events.wait_for(LIMIT, "an error", |event| event["event"] == "error");
        assert!(
            told.to_string().contains("sent a handle with a message"),
            "{told}"
        );
        assert_eq!(connection.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(app.stop().success());
    }
}
