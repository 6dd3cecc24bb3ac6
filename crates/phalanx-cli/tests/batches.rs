//! A Node worker under a burst accepts in batches, by duplicates of its slot: when it has them, and when it gives them
//! up. Needs dispatch in the kernel.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use cluster::burst::{burst, can_steer, duplicates};
use cluster::{app, get, pid_in};
use phalanx_testkit::node::{self, NodeBinary};
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Target};
use serde_json::Value;

/// The slot and three duplicates; libuv of Node 18 takes all that waits by one descriptor.
fn wanted(node: &NodeBinary) -> usize {
    if node.major < 20 { 1 } else { 4 }
}

fn start(node: &NodeBinary, script: &str, options: &[&str]) -> (App, Target) {
    let app = app().workers(1).options(["-v"]);
    let mut app = app.options(options).node(node, script).start_ready();
    let target = app.address();
    assert_eq!(duplicates(app.worker_pids()[0]), 1);
    burst(&mut app, &target);
    (app, target)
}

fn wait_duplicates(app: &mut App, count: usize) {
    let pid = app.worker_pids()[0];
    eventually(LIMIT, &format!("{count} descriptors of the slot"), || {
        (duplicates(pid) == count).then_some(())
    });
}

#[test]
fn a_worker_in_a_burst_accepts_in_batches_and_loses_nothing() {
    if !can_steer() {
        return;
    }
    for node in node::require_versions() {
        let (mut app, target) = start(&node, "http.js", &[]);
        wait_duplicates(&mut app, wanted(&node));
        let load = Load::new(target).clients(16).request_limit(LIMIT).start();
        for words in [
            &["reload"][..],
            &["scale", "3"],
            &["scale", "1"],
            &["reload"],
        ] {
            load.wait_for_more(200, LIMIT);
            app.verb(words).expect_success();
        }
        load.stop().expect_none_lost();
        assert!(app.stop().success(), "{node:?}");
    }
}

#[test]
fn it_gives_the_duplicates_up_when_connections_come_singly() {
    if !can_steer() {
        return;
    }
    let node = node::require_versions().pop().unwrap();
    let (mut app, target) = start(&node, "http.js", &[]);
    wait_duplicates(&mut app, 4);
    let pid = app.worker_pids()[0];
    // Five seconds with connections, by the primary's reckoning.
    eventually(2 * LIMIT, "an end of the burst", || {
        assert_eq!(pid_in(&get(&target, "/")), pid);
        (duplicates(pid) == 1).then_some(())
    });
    // And has them again in the next burst.
    burst(&mut app, &target);
    wait_duplicates(&mut app, 4);
    assert!(app.stop().success());
}

#[test]
fn a_server_that_closes_takes_its_duplicates_along() {
    if !can_steer() {
        return;
    }
    for node in node::require_versions() {
        let (mut app, _) = start(&node, "reopen.js", &["--drain-timeout", "1s"]);
        let pid = app.worker_pids()[0];
        let events = app.events();
        let said = |word: &str| {
            events.wait_for(LIMIT, word, |event| event["message"] == word);
        };
        wait_duplicates(&mut app, wanted(&node));
        // The other server may be the one in a burst.
        app.verb(["send", "\"close\""]).expect_success();
        said("closed");
        app.verb(["send", "\"listen\""]).expect_success();
        said("listening");
        let first = |one: &Target| get(one, "/").starts_with("first");
        let target = app.addresses().into_iter().find(first).unwrap();
        assert_eq!(pid_in(&get(&target, "/")), pid);
        burst(&mut app, &target);
        wait_duplicates(&mut app, wanted(&node));
        app.verb(["send", "\"close\""]).expect_success();
        said("closed");
        wait_status_without(&mut app, &target);
        assert!(cluster::try_get(&target, "/").is_err(), "{node:?}");
        assert!(app.stop().success(), "{node:?}");
    }
}

fn wait_status_without(app: &mut App, target: &Target) {
    let text = target.to_string();
    app.wait_status(LIMIT, |status| {
        let listeners = status["listeners"].as_array().into_iter().flatten();
        let addresses: Vec<&Value> = listeners.map(|one| &one["address"]).collect();
        !addresses.contains(&&Value::from(text.as_str()))
    });
}

#[test]
fn without_the_preloaded_script_nobody_asks() {
    if !can_steer() {
        return;
    }
    let node = node::require_versions().pop().unwrap();
    let (mut app, target) = start(&node, "http.js", &["--no-preload"]);
    let pid = app.worker_pids()[0];
    // Its answer comes after whatever it did about what it was told.
    assert_eq!(pid_in(&get(&target, "/")), pid);
    assert_eq!(duplicates(pid), 1);
    assert!(app.stop().success());
}
