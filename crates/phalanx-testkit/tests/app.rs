//! The kit's [`App`] against a stand-in for the binary.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::path::Path;

use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::{App, LIMIT, Target, node, procs};
use serde_json::json;

fn fake() -> Option<AppBuilder> {
    node::require()?;
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-phalanx.js");
    Some(
        App::builder(binary)
            .name("x")
            .workers(1)
            .command(["server", "--flag"]),
    )
}

#[test]
fn an_app_is_started_asked_changed_and_stopped() {
    let Some(builder) = fake() else { return };
    let mut app = builder.start();
    app.wait_for_line("started --workers 1 -- server --flag", LIMIT);
    assert_eq!(app.status()["workers"][0]["state"], "starting");
    let events = app.events();
    let reply = app
        .post("/v1/scale", &json!({"workers": "+1"}))
        .expect_success();
    assert_eq!(reply.json(), json!({"done": true}));
    let event = events.wait_for(LIMIT, "ready", |event| event["event"] == "ready");
    assert_eq!(event["body"]["workers"], "+1");
    assert_eq!(app.address(), Target::port(4));
    assert_eq!(app.udp_address(), Target::port(5).tcp());
    let [worker] = app.worker_pids().try_into().unwrap();
    assert!(app.family().contains(&worker));
    assert!(app.stop().success());
    assert!(!procs::is_alive(worker));
    assert_eq!(events.next_before(LIMIT), None);
}

#[test]
fn a_verb_finds_its_app_by_name_and_returns_its_status() {
    let Some(builder) = fake() else { return };
    let app = builder.start();
    let output = app.verb(["scale", "+1"]).expect_success();
    assert_eq!(
        output.stdout,
        "{\"verb\":\"scale\",\"name\":\"x\",\"rest\":[\"+1\"]}\n"
    );
    assert_eq!(app.verb(["fail"]).status.code(), Some(1));
}

#[test]
fn a_line_on_standard_input_reaches_the_primary() {
    let Some(builder) = fake() else { return };
    let mut app = builder.with_stdin().start();
    app.write_line("reload");
    app.wait_for_line("heard reload", LIMIT);
}

#[test]
fn an_orphaned_worker_ends_with_the_app() {
    let Some(builder) = fake() else { return };
    let mut app = builder.env("ORPHAN", "1").start();
    let [worker] = app.worker_pids().try_into().unwrap();
    app.signal(phalanx_testkit::Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
    assert!(app.family().contains(&worker));
    drop(app);
    assert!(!procs::is_alive(worker));
}

#[test]
#[should_panic(expected = "the primary ended")]
fn waiting_for_a_primary_that_has_ended_fails_at_once() {
    let mut app = App::builder("false").command(["server"]).start();
    app.status();
}
