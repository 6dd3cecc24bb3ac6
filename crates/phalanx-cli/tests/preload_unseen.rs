//! The script that Node workers load before their own: what an application can see of it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use cluster::burst::{burst, can_steer, duplicates};
use cluster::{app, get_json};
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{LIMIT, node};
use serde_json::{Map, Value};

/// What differs, and docs/node-workers.md says so: the source text of a method of the worker's, and of the
/// listener by which Node itself hears from the primary; and that listener's name. With dispatch in the kernel, what is
/// called for a connection is read from an accessor.
const KNOWN: [&str; 3] = [
    "worker.prototype.disconnect",
    "process on internalMessage 0",
    "handle.onconnection",
];

/// What a script sees; without what is known to differ.
fn seen(node: &node::NodeBinary, options: &[&str]) -> Value {
    let mut app = app()
        .workers(1)
        .options(["-v"])
        .options(options.iter().copied())
        .node(node, "visible.js")
        .start();
    let target = app.address();
    // It accepts in batches then, which must not show either.
    if can_steer() {
        burst(&mut app, &target);
        if options.is_empty() && node.major >= 20 {
            let pid = app.worker_pids()[0];
            eventually(LIMIT, "duplicates", || (duplicates(pid) == 4).then_some(()));
        }
    }
    // The first answer may come before everything is compiled; it is the same in both.
    let mut seen = get_json(&target, "/");
    assert!(app.stop().success(), "{node:?}");
    let sources = seen["sources"].as_object_mut().unwrap();
    sources.retain(|path, _| !KNOWN.contains(&path.as_str()));
    assert!(sources.len() > 300, "{node:?}: {}", sources.len());
    let handle = seen["instances"]["handle"].as_object_mut().unwrap();
    assert!(handle.remove("onconnection").is_some(), "{node:?}");
    seen["listeners"]["process"]
        .as_object_mut()
        .unwrap()
        .remove("internalMessage");
    seen
}

/// The paths at which two values differ.
fn differences(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    let none = Value::Null;
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        let mut keys: Map<String, Value> = one.clone();
        keys.extend(other.clone());
        for key in keys.keys() {
            let sides = [one, other].map(|side| side.get(key).unwrap_or(&none));
            differences(&format!("{path}/{key}"), sides[0], sides[1], found);
        }
    } else if one != other {
        found.push(format!("{path}: {one} with it, {other} without"));
    }
}

#[test]
fn an_application_does_not_see_the_preloaded_script() {
    for node in node::require_versions() {
        let with = seen(&node, &[]);
        let without = seen(&node, &["--no-preload"]);
        let mut found = Vec::new();
        differences("", &with, &without, &mut found);
        assert!(found.is_empty(), "{node:?}: {found:#?}");
    }
}

/// So that the test above tells something: it sees a script that hides nothing.
#[test]
fn a_script_that_hides_nothing_is_seen() {
    let node = node::require_versions().remove(0);
    let loud = std::env::temp_dir().join(format!("phalanx-loud-{}.cjs", std::process::id()));
    std::fs::write(&loud, "require('http').Server.prototype.loud = () => {};").unwrap();
    let mut app = app()
        .workers(1)
        .options(["--no-preload"])
        .env("NODE_OPTIONS", format!("--require {}", loud.display()))
        .node(&node, "visible.js")
        .start();
    let loudly = get_json(&app.address(), "/");
    assert!(app.stop().success());
    std::fs::remove_file(loud).unwrap();
    let mut found = Vec::new();
    differences("", &loudly, &seen(&node, &["--no-preload"]), &mut found);
    let prototype = "/objects/http.Server.prototype/loud: ";
    assert!(
        found.iter().any(|each| each.starts_with(prototype)),
        "{found:#?}"
    );
}
