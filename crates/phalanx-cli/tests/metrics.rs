//! The app's figures: what is counted stays counted, whoever has counted it.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use cluster::app;
use phalanx_testkit::app::is_settled;
use phalanx_testkit::{App, LIMIT, Load, node, wait};
use serde_json::{Value, json};

/// What `GET /v1/metrics.json` says.
fn snapshot(app: &App) -> Value {
    let reply = app
        .control()
        .request("GET", "/v1/metrics.json", None, LIMIT);
    reply.unwrap().expect_success().json()
}

fn sum(snapshot: &Value, field: &str) -> u64 {
    let positions = snapshot["positions"].as_array().unwrap();
    positions.iter().filter_map(|one| one[field].as_u64()).sum()
}

#[test]
fn requests_and_connections_stay_counted_through_reloads_and_scaling() {
    if node::require().is_none() {
        return;
    }
    for dispatch in ["handoff", "auto"] {
        let app = app().workers(2).script("http.js");
        let mut app = app.options(["--dispatch", dispatch]).start_ready();
        snapshot(&app);
        // The workers that are there have been asked to count; those that come are asked before they listen.
        app.verb(["reload"]);
        let before = snapshot(&app);
        let since = |field, now: &Value| sum(now, field) - sum(&before, field);
        let load = Load::new(app.address()).clients(4).start();
        for workers in ["3", "1", "2"] {
            assert!(app.verb(["reload"]).status.success());
            assert!(app.verb(["scale", workers]).status.success());
        }
        let report = load.stop();
        assert_eq!(report.failures.len(), 0, "{report:?}");
        app.wait_status(LIMIT, is_settled);
        let sent = report.ok;
        wait::eventually(LIMIT, "all requests to be counted", || {
            let counted = since("requests_total", &snapshot(&app));
            assert!(counted <= sent, "{counted} of {sent}");
            (counted == sent).then_some(())
        });
        let last = snapshot(&app);
        let connections = since("connections_total", &last);
        assert_eq!(connections, report.connections, "{last:#}");
        assert_eq!(last["reloads"]["outcomes"]["succeeded"], 4, "{last:#}");
        assert_eq!(last["restarts"]["crash"], 0, "{last:#}");
    }
}

#[test]
fn figures_tell_of_every_position_and_of_crashes() {
    if node::require().is_none() {
        return;
    }
    let mut app = app().workers(2).script("http.js").start_ready();
    let pid = app.worker_pids()[0];
    assert!(app.kill_worker(pid));
    app.wait_status(LIMIT, |status| {
        is_settled(status) && status["workers"][0]["pid"] != pid
    });
    // A view can be a moment ahead of what is told of it.
    let found = wait::eventually(LIMIT, "the crash to be counted", || {
        Some(snapshot(&app)).filter(|found| found["restarts"]["crash"] == 1)
    });
    let first = &found["positions"][0];
    assert_eq!(first["restarts"], json!({"crash": 1}), "{found:#}");
    assert_eq!(first["state"], "ready", "{found:#}");
    for field in ["memory_bytes", "open_files"] {
        assert!(first[field].as_u64().unwrap() > 0, "{field}: {found:#}");
    }
    assert!(first["cpu_seconds_total"].is_number(), "{found:#}");
    assert!(found["primary"]["open_files"].as_u64().unwrap() > 3);
    assert_eq!(found["workers"]["ready"], 2, "{found:#}");
}
