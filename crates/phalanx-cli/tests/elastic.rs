//! The number of workers follows their load, and nothing is lost meanwhile. When it shrinks is simulated in
//! phalanx-core; here a minute of idleness would be too long.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::time::Duration;

use cluster::{app, is_long};
use phalanx_testkit::app::is_settled;
use phalanx_testkit::{LIMIT, Load, node};

/// Ten seconds of load, and the start of workers.
const GROWS_WITHIN: Duration = Duration::from_mins(1);
/// A minute without load, for each worker less.
const SHRINKS_WITHIN: Duration = Duration::from_secs(200);

#[test]
fn a_fleet_under_load_grows_and_says_why() {
    if node::require().is_none() {
        return;
    }
    let mut app = app()
        .options(["-n", "1..3"])
        .script("blocks.js")
        .start_ready();
    assert_eq!(app.status()["target"], 1);
    let events = app.events();
    // More than one worker can do, so that some always wait for it.
    let load = Load::new(app.address()).clients(6).start();
    let resizes = |event: &serde_json::Value| event["report"] == "resizes";
    let event = events.wait_for(GROWS_WITHIN, "growing", resizes);
    assert_eq!(event["from"], 1, "{event}");
    assert!(event["busy"].as_u64().unwrap() > 800, "{event}");
    assert!(event["text"].as_str().unwrap().contains("busy"), "{event}");
    let status = app.wait_status(LIMIT, is_settled);
    assert!(status["target"].as_u64().unwrap() > 1, "{status}");
    let report = load.stop();
    assert_eq!(report.failures.len(), 0, "{report:?}");
    if is_long() {
        let is_small = |status: &serde_json::Value| is_settled(status) && status["target"] == 1;
        app.wait_status(SHRINKS_WITHIN, is_small);
    }
}
