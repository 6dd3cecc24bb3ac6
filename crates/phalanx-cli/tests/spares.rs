//! Warm spares: ready workers without connections, one of which takes the position of a worker that is lost, at once.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use cluster::{app, get_json, wait_report};
use phalanx_testkit::app::{AppBuilder, is_settled, pids};
use phalanx_testkit::load::Failure;
use phalanx_testkit::{App, LIMIT, Load, fixtures, node, require, wait};
use serde_json::{Value, json};

const NOBODY: u32 = 65_534;

/// One of each way to become a worker, and of each dispatch that can leave a spare out.
fn kinds() -> Vec<(&'static str, AppBuilder)> {
    let mut kinds = Vec::new();
    let rust = || {
        let program = cluster::example("loops").to_str().unwrap().to_owned();
        app().command([program])
    };
    kinds.push(("Rust", rust()));
    kinds.push(("Rust by handoff", rust().options(["--dispatch", "handoff"])));
    if node::require().is_some() {
        let node = || app().script("http.js");
        kinds.push(("Node", node()));
        kinds.push(("Node by handoff", node().options(["--dispatch", "handoff"])));
        let least = ["--policy", "least-connections"];
        kinds.push(("Node by load", node().options(least)));
        let unmodified = ["--no-preload", "--dispatch", "handoff"];
        kinds.push(("Node unmodified", node().options(unmodified)));
    }
    if require("python3").is_some() {
        let python = |script: &str| app().command(["python3"]).arg(fixtures::fixture(script));
        let loops = || python("programs/loops.py").arg("0");
        kinds.push(("intercepted", loops()));
        kinds.push(("intercepted, unprivileged", loops().uid(NOBODY)));
        let given = python("programs/activated.py").options(["--bind", "127.0.0.1:0"]);
        kinds.push(("given its listener", given));
    }
    kinds
}

fn with_spares(builder: AppBuilder, options: &[&str]) -> App {
    let mut app = builder
        .workers(2)
        .options(["--spares", "1"])
        .options(options)
        .start();
    app.wait_status(LIMIT, is_settled);
    app
}

/// The spare of a status.
fn spare(status: &Value) -> &Value {
    let mut workers = status["workers"].as_array().unwrap().iter();
    workers.find(|worker| worker["state"] == "spare").unwrap()
}

fn pid_of(worker: &Value) -> u32 {
    u32::try_from(worker["pid"].as_u64().unwrap()).unwrap()
}

/// Loads the app with connections of their own until each worker has had its share, and says who answered.
fn who_answers(app: &mut App) -> Vec<u32> {
    let report = Load::new(app.address()).clients(2).requests(60).run();
    report.expect_none_failed();
    report.pids.into_keys().collect()
}

#[test]
fn a_spare_gets_nothing_until_a_worker_is_killed_and_its_share_at_once() {
    for (kind, builder) in kinds() {
        let mut app = with_spares(builder, &[]);
        let before = app.status();
        let (first, waiting) = (pids(&before)[0], pid_of(spare(&before)));
        let answered = who_answers(&mut app);
        assert!(!answered.contains(&waiting), "{kind}: {before}");
        let events = app.events();
        assert!(app.kill_worker(first), "{kind}");
        let next = events.wait_for(LIMIT, kind, |event| {
            let to = event["to"].as_str();
            to == Some("ready") || to == Some("starting")
        });
        assert_eq!(next["reason"]["why"], "spare_takes_over", "{kind}: {next}");
        assert_eq!(next["position"], 0, "{kind}");
        assert!(who_answers(&mut app).contains(&waiting), "{kind}");
        let after = app.wait_status(LIMIT, is_settled);
        assert_eq!(pids(&after)[0], waiting, "{kind}: {after}");
        assert_ne!(
            pid_of(spare(&after)),
            waiting,
            "{kind}: another one behind it"
        );
    }
}

#[test]
fn kills_under_load_lose_only_what_was_in_service() {
    for (kind, builder) in kinds() {
        let mut app = with_spares(builder, &[]);
        let load = Load::new(app.address()).clients(4).start();
        let mut kills = 0;
        for position in [0, 1, 0] {
            load.wait_for_more(20, LIMIT);
            let status = app.wait_status(LIMIT, is_settled);
            assert!(app.kill_worker(pids(&status)[position]), "{kind}");
            kills += 1;
        }
        app.wait_status(LIMIT, is_settled);
        load.wait_for_more(20, LIMIT);
        let report = load.stop();
        // Four clients: no more can be on a worker that is killed.
        assert!(report.failed() <= 4 * kills, "{kind}: {report}");
        assert_eq!(report.count(Failure::Refused), 0, "{kind}: {report}");
    }
}

#[test]
fn a_recycled_worker_gives_way_to_a_spare_and_nothing_is_lost() {
    if node::require().is_none() {
        return;
    }
    for dispatch in ["auto", "handoff"] {
        let mut app = with_spares(app().script("http.js"), &["--dispatch", dispatch]);
        let before = app.status();
        let waiting = pid_of(spare(&before));
        let load = Load::new(app.address()).clients(4).start();
        load.wait_for_more(20, LIMIT);
        let output = app.verb(["recycle", "1"]);
        assert!(output.status.success(), "{output:?}");
        let after = app.wait_status(LIMIT, is_settled);
        assert_eq!(pids(&after)[1], waiting, "{after}");
        load.wait_for_more(20, LIMIT);
        load.stop().expect_none_lost();
    }
}

#[test]
fn a_reload_begins_with_the_spare() {
    if node::require().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("server.js");
    std::fs::copy(fixtures::fixture("http.js"), &script).unwrap();
    let mut app = with_spares(app().command([&script]), &[]);
    let events = app.events();
    let load = Load::new(app.address()).clients(4).start();
    assert!(app.verb(["reload"]).status.success());
    let started = events.wait_for(LIMIT, "a start", |event| event["to"] == "starting");
    assert_eq!(started["reason"]["why"], "new_spare", "{started}");
    let before = app.wait_status(LIMIT, is_settled);
    assert_eq!(spare(&before)["generation"], 2);
    std::fs::write(&script, "process.exit(3);\n").unwrap();
    let events = app.events();
    let output = app.verb(["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("spare-0"), "{output:?}");
    let failed = wait_report(&events, "rollout_failed");
    assert_eq!(failed["generation"], 3);
    let touched = |worker: &Value| worker["state"] != "ready" && worker["state"] != "spare";
    let after = app.status();
    let serving = |status: &Value| pids(status)[..2].to_vec();
    assert_eq!(
        serving(&after),
        serving(&before),
        "no serving worker was touched"
    );
    assert!(
        !after["workers"].as_array().unwrap()[..2]
            .iter()
            .any(touched)
    );
    load.stop().expect_none_lost();
}

#[test]
fn a_spare_is_told_its_position_when_it_has_one() {
    if node::require().is_none() {
        return;
    }
    let mut app = with_spares(app().script("messages.js"), &[]);
    let before = app.status();
    let waiting = pid_of(spare(&before));
    assert!(spare(&before)["position"].as_u64().unwrap() >= 4096);
    assert!(app.kill_worker(pids(&before)[1]));
    app.wait_status(LIMIT, is_settled);
    let target = app.address();
    let about = wait::eventually(LIMIT, "an answer of the spare", || {
        let about = get_json(&target, "/");
        (about["pid"] == waiting).then_some(about)
    });
    assert_eq!(about["instance"], "1", "{about}");
}

#[test]
fn spares_end_with_the_app_and_count_apart() {
    if node::require().is_none() {
        return;
    }
    let mut app = with_spares(
        app().script("http.js"),
        &["--max-surge", "0", "--max-unavailable", "1"],
    );
    let status = app.status();
    assert_eq!(
        (&status["target"], &status["spares"]),
        (&json!(2), &json!(1))
    );
    let text = app.verb(["status"]).stdout;
    assert!(
        text.contains("2 of 2 workers ready, 1 of 1 spare ready"),
        "{text}"
    );
    assert!(text.contains("spare-0"), "{text}");
    let output = app.verb(["scale", "3"]);
    assert!(output.status.success(), "{output:?}");
    let status = app.wait_status(LIMIT, is_settled);
    assert_eq!(pids(&status).len(), 4);
    assert!(app.stop().success());
}

#[test]
fn spares_that_would_serve_are_refused() {
    let script = fixtures::fixture("http.js");
    for (options, why) in [
        (["--dispatch", "shared"], "--dispatch shared"),
        (["--policy", "none"], "--policy none"),
        (["--adopt", "none"], "--adopt none"),
    ] {
        let app = app()
            .command([&script])
            .options(["--spares", "1"])
            .options(options);
        let output = app.run_to_end(LIMIT);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(output.stderr.contains(why), "{output:?}");
    }
}
