//! The verbs against running apps of unmodified Node servers: what they change, what they print, and the
//! status they exit with.

use crate::support;

use std::fs;

use phalanx_testkit::{LIMIT, Load, Process};
use serde_json::{Value, json};
use support::{app, changeable, expect_refused, phalanx};

#[test]
fn status_shows_the_app_as_a_table_and_as_json() {
    let app = app().workers(2).options(["--dispatch", "handoff"]);
    let mut app = app.script("http.js").start_ready();
    let table = app.verb(["status"]).expect_success().stdout;
    let head = format!(
        "app: primary {}, round-robin, handoff, adoption channel, generation 1\n",
        app.pid()
    );
    assert!(table.starts_with(&head), "{table}");
    assert!(
        table.contains("2 of 2 workers ready\nlistening on 127.0.0.1:"),
        "{table}"
    );
    assert!(table.contains("POSITION  ID  GEN"), "{table}");
    let json = app.verb(["status", "--json"]).expect_success().stdout;
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["pid"], app.pid());
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
    for worker in status["workers"].as_array().unwrap() {
        for field in [
            "id",
            "position",
            "generation",
            "pid",
            "ready_at",
            "restarts",
            "connections",
        ] {
            assert!(worker[field].is_u64(), "{field} of {worker}");
        }
        assert_eq!(worker["state"], "ready");
    }
    let workers = app
        .control()
        .request("GET", "/v1/workers", None, LIMIT)
        .unwrap();
    assert_eq!(workers.json().as_array().unwrap().len(), 2);
    assert!(app.stop().success());
}

#[test]
fn list_prints_the_status_of_every_app() {
    let app = app().workers(1).script("http.js").start_ready();
    let mut list = std::process::Command::new(support::PHALANX);
    list.args(["list", "--json"])
        .env("XDG_RUNTIME_DIR", app.directory());
    let output = Process::run(list, LIMIT).expect_success();
    let all: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    assert!(
        all.iter().any(|status| status["pid"] == app.pid()),
        "{all:?}"
    );
}

#[test]
fn reload_replaces_every_worker_under_load_and_returns_when_it_is_done() {
    let mut app = app().workers(2).script("http.js").start_ready();
    let before = app.worker_pids();
    let load = Load::new(app.address()).clients(4).start();
    load.wait_until_ok(50, LIMIT);
    let output = app.verb(["reload"]).expect_success();
    assert_eq!(output.stdout, "app reloaded: generation 2\n");
    assert!(
        output.stderr.contains("reload: 2 of 2 replaced"),
        "{}",
        output.stderr
    );
    let after = app.worker_pids();
    assert!(
        after.len() == 2 && after.iter().all(|pid| !before.contains(pid)),
        "{after:?}"
    );
    load.wait_for_more(50, LIMIT);
    load.stop().expect_none_lost();
    assert!(app.stop().success());
}

#[test]
fn a_reload_that_fails_keeps_the_old_workers_and_says_why() {
    let directory = support::directory();
    let script = changeable(directory.path(), "http.js");
    let mut app = app().workers(2).command([&script]).start_ready();
    let before = app.worker_pids();
    fs::copy(
        phalanx_testkit::fixtures::fixture("syntax-error.js"),
        &script,
    )
    .unwrap();
    let output = app.verb(["reload"]);
    let parts = [
        "app was not reloaded: generation 2 failed",
        "exit code 1",
        "last output:",
        "SyntaxError",
    ];
    expect_refused(&output, 1, &parts);
    assert_eq!(output.stdout, "");
    assert_eq!(
        app.wait_ready(LIMIT)["workers"].as_array().unwrap().len(),
        2
    );
    assert_eq!(app.worker_pids(), before);
    assert!(app.stop().success());
}

#[test]
fn scale_returns_when_the_number_is_right() {
    let mut app = app().workers(1).script("http.js").start_ready();
    for (wanted, count) in [("3", 3), ("+1", 4), ("-2", 2), ("1", 1)] {
        let output = app.verb(["scale", wanted]).expect_success();
        assert!(
            output
                .stdout
                .starts_with(&format!("app scaled: {count} worker")),
            "{}",
            output.stdout
        );
        let status = app.status();
        assert_eq!(
            status["workers"].as_array().unwrap().len(),
            count,
            "{status:#}"
        );
    }
    expect_refused(&app.verb(["scale", "-5"]), 64, &["app was not scaled"]);
    assert!(app.stop().success());
}

#[test]
fn stop_returns_when_the_primary_is_gone_and_its_name_is_free() {
    let directory = support::directory();
    let script = support::fixture("http.js");
    for fast in [&["stop"][..], &["stop", "--fast"]] {
        let mut run = Process::start(phalanx(directory.path(), &["run", "-n", "2", &script]));
        run.wait_for_line("ready: 2 of 2 workers", LIMIT);
        let output = Process::run(phalanx(directory.path(), fast), LIMIT).expect_success();
        assert_eq!(output.stdout, "http stopped\n");
        let status = run
            .try_exit()
            .expect("the primary is gone when stop returns");
        assert_eq!(status.code(), Some(0));
        run.wait_family_gone(LIMIT);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn send_reaches_all_workers_or_one() {
    let mut app = app().workers(3).script("messages.js").start_ready();
    let events = app.events();
    let echo =
        |id: u64| move |event: &Value| event["event"] == "message" && event["message"]["id"] == id;
    let output = app.verb(["send", r#"{"greet":"all"}"#]).expect_success();
    assert_eq!(output.stdout, "sent to 3 workers\n");
    let mut echoed = Vec::new();
    for _ in 0..3 {
        let event = events.wait_for(LIMIT, "an echo", |event| event["event"] == "message");
        assert_eq!(event["message"]["echo"], json!({"greet": "all"}));
        echoed.push(event["worker"].as_u64().unwrap());
    }
    echoed.sort_unstable();
    assert_eq!(echoed, [1, 2, 3]);
    let output = app.verb(["send", "-1", "--to", "2"]).expect_success();
    assert_eq!(output.stdout, "sent to 1 worker\n");
    assert_eq!(
        events.wait_for(LIMIT, "an echo of 2", echo(2))["message"]["echo"],
        -1
    );
    expect_refused(
        &app.verb(["send", "1", "--to", "99"]),
        64,
        &["not sent to app: no worker has the id 99"],
    );
}

#[test]
fn events_are_one_json_object_a_line_with_time_and_words() {
    let app = app().workers(1).script("http.js").start_ready();
    let stream = app.start_verb(["events"]);
    // The stream is open once it tells of something; so things are made to happen until it does.
    let first = phalanx_testkit::wait::eventually(LIMIT, "an event", || {
        app.verb(["reload"]).expect_success();
        stream.lines().all().into_iter().next()
    });
    let event: Value = serde_json::from_str(&first.text).unwrap();
    assert!(
        event["event"].is_string() && event["text"].is_string(),
        "{event}"
    );
    assert!(
        event["time"]
            .as_u64()
            .is_some_and(|time| time > 1_600_000_000_000),
        "{event}"
    );
    stream.wait_for_line("\"rollout_finished\"", LIMIT);
    for line in stream.lines().all() {
        serde_json::from_str::<Value>(&line.text).unwrap();
    }
}

#[test]
fn events_end_with_the_app_and_quietly_with_their_reader() {
    let mut app = app().workers(1).script("http.js").start_ready();
    let mut until_the_end = app.start_verb(["events"]);
    let mut pipeline = std::process::Command::new("sh");
    pipeline.args([
        "-c",
        r#""$0" events --name app | head -n 1; echo "first line read""#,
        support::PHALANX,
    ]);
    pipeline.env("XDG_RUNTIME_DIR", app.directory());
    let mut pipeline = Process::start(pipeline);
    let read = phalanx_testkit::wait::try_eventually(LIMIT, || {
        app.verb(["reload"]).expect_success();
        pipeline.try_exit()
    });
    assert!(read.is_some_and(|status| status.success()));
    assert!(
        !pipeline.lines().shown().contains("phalanx:"),
        "{}",
        pipeline.lines().shown()
    );
    assert!(app.stop().success());
    assert!(until_the_end.wait_exit(LIMIT).success());
}

#[test]
fn completions_and_man_pages_come_from_the_definitions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = support::run_alone(&["generate", "completions", shell])
            .expect_success()
            .stdout;
        assert!(script.contains("max-surge"), "{shell}");
    }
    let directory = support::directory();
    let pages = directory.path().join("man1");
    support::run_alone(&["generate", "man", pages.to_str().unwrap()]).expect_success();
    let run = fs::read_to_string(pages.join("phalanx-run.1")).unwrap();
    assert!(run.contains("max\\-surge"), "{run}");
    assert!(pages.join("phalanx.1").exists());
}
