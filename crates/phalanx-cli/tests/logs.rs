//! `phalanx logs`: the workers' last output, from the memory of the primary.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use cluster::{app, get, ids, pid_in};
use phalanx_testkit::lines::Stream;
use phalanx_testkit::{App, LIMIT, Process, Signal, procs, wait};
use serde_json::Value;

/// An app whose workers print lines when they are asked to.
fn noisy(workers: usize) -> App {
    app().workers(workers).script("noisy.js").start_ready()
}

/// What `phalanx logs --json` prints with these options.
fn logs(app: &App, options: &[&str]) -> Vec<Value> {
    let words = [&["logs", "--json"], options].concat();
    let printed = app.verb(words).expect_success().stdout;
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_last_output_is_shown_and_says_whose_it_is() {
    let mut app = noisy(2);
    let target = app.address();
    let pids = [get(&target, "/?lines=3"), get(&target, "/?lines=3")].map(|body| pid_in(&body));
    // Two lines about the port, and three on each stream of each worker.
    let all = wait::eventually(LIMIT, "all lines are there", || {
        Some(logs(&app, &[])).filter(|all| all.len() == 14)
    });
    for pid in pids {
        for stream in ["stdout", "stderr"] {
            let of = |one: &&Value| {
                let line = one["line"].as_str().unwrap();
                one["stream"] == stream && line.contains(&format!("of pid {pid} "))
            };
            let found: Vec<_> = all.iter().filter(of).collect();
            assert_eq!(found.len(), 3, "{all:?}");
            assert_eq!(found[0]["app"], "app");
            assert_eq!(found[0]["generation"], 1);
            assert_eq!(found[0]["worker"], found[2]["worker"]);
            assert_eq!(found[0]["position"], found[2]["position"]);
            assert!(found[2]["line"].as_str().unwrap().starts_with("line 2 "));
            assert!(found[0]["time"].is_u64());
        }
    }
    let id = format!("id:{}", ids(&app.status())[1]);
    for worker in ["1", id.as_str()] {
        let some = logs(&app, &["--worker", worker]);
        assert_eq!(some.len(), 7, "{some:?}");
        assert!(some.iter().all(|one| one["position"] == 1), "{some:?}");
    }
    assert_eq!(logs(&app, &["-n", "5"]), all[all.len() - 5..]);
    let found = logs(&app, &["--grep", "^(?i)LINE [01] "]);
    assert_eq!(found.len(), 8, "{found:?}");
    assert_eq!(logs(&app, &["--grep", "line 1", "-n", "2"]).len(), 2);
    assert_eq!(logs(&app, &["--since", "1h"]), all);
    assert!(logs(&app, &["--since", "0ms"]).is_empty());
    let text = app.verb(["logs", "-n", "1"]).expect_success().stdout;
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{text}");
    assert!(
        rest.starts_with("[0] line") || rest.starts_with("[1] line"),
        "{text}"
    );
    let raw = app
        .verb(["logs", "--raw", "-n", "1"])
        .expect_success()
        .stdout;
    assert!(raw.starts_with("line 2 of pid "), "{raw}");
}

#[test]
fn who_follows_gets_what_comes_until_the_app_ends() {
    let mut app = noisy(1);
    let target = app.address();
    let follower = app.start_verb(["logs", "-f", "-n", "1"]);
    follower.wait_for_line("[0] listening on ", LIMIT);
    get(&target, "/?lines=1");
    follower.wait_for_line("[0] line 0 of pid ", LIMIT);
    let before = pid_in(&get(&target, "/?lines=0"));
    app.verb(["reload"]).expect_success();
    let after = pid_in(&get(&target, "/?lines=1"));
    assert_ne!(before, after);
    follower.wait_for_line(&format!("[0] line 0 of pid {after} "), LIMIT);
    assert!(app.stop().success());
    let output = follower.finish(LIMIT).expect_success();
    assert_eq!(
        output.stdout.matches("listening on").count(),
        2,
        "{output:?}"
    );
}

#[test]
fn a_reader_that_stops_holds_up_nobody_and_learns_how_much_it_missed() {
    let mut app = app()
        .workers(1)
        .option("--log-memory=64K")
        .script("noisy.js")
        .start_ready();
    let target = app.address();
    let mut paused = UnixStream::connect(app.control().path()).unwrap();
    paused.set_read_timeout(Some(LIMIT)).unwrap();
    paused
        .write_all(b"GET /v1/logs?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut head = [0; 15];
    paused.read_exact(&mut head).unwrap();
    assert_eq!(head, *b"HTTP/1.1 200 OK");
    let before = procs::rss_bytes(app.pid()).unwrap();
    // 8 MB; others follow meanwhile as they like.
    for _ in 0..20 {
        get(&target, "/?lines=2000");
    }
    let after = procs::rss_bytes(app.pid()).unwrap();
    assert!(after < before + (32 << 20), "{before}, {after}");
    // Two lines of each request on each stream, and the first line.
    let all = 20 * 4_000 + 1;
    let mut reader = BufReader::new(paused);
    let (mut missed, mut lines) = (0, 0);
    while missed + lines < all {
        let mut line = String::new();
        assert!(
            reader.read_line(&mut line).unwrap() > 0,
            "{missed}, {lines}"
        );
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: Value = serde_json::from_str(event).unwrap();
        missed += event["missed"].as_u64().unwrap_or_default();
        lines += u64::from(event["line"].is_string());
    }
    assert_eq!(missed + lines, all);
    assert!(missed > 0 && lines > 0, "{missed}, {lines}");
    // It is told of the end, too.
    assert!(app.stop().success());
}

#[test]
fn a_worker_that_there_is_not_is_refused_whatever_else_is_asked_for() {
    let mut app = noisy(1);
    let former = format!("id:{}", ids(&app.status())[0]);
    app.verb(["reload"]).expect_success();
    let options: [&[&str]; 5] = [
        &[],
        &["--follow"],
        &["--follow", "-n", "0"],
        &["--grep", "no such line"],
        &["--since", "0ms"],
    ];
    for options in options {
        let asked = |whose| app.verb([&["logs", "--worker", whose], options].concat());
        for (whose, word) in [
            ("7", "no worker at position 7"),
            ("id:99", "no worker id:99"),
        ] {
            let refused = asked(whose);
            assert_eq!(refused.status.code(), Some(64), "{options:?}: {refused:?}");
            assert!(refused.stderr.contains(word), "{options:?}: {refused:?}");
        }
        // One that has left is known while something of it is kept.
        if !options.contains(&"--follow") {
            for whose in ["0", &former] {
                asked(whose).expect_success();
            }
        }
    }
}

#[test]
fn all_apps_are_shown_when_none_is_named() {
    let app = noisy(1);
    let mut other = std::process::Command::new(cluster::PHALANX);
    other
        .args(["run", "--name", "other", "-n", "1"])
        .arg(phalanx_testkit::fixtures::fixture("noisy.js"))
        .env("XDG_RUNTIME_DIR", app.directory());
    let mut other = Process::start(other);
    other.wait_for_line("phalanx: ready: 1 of 1 worker", LIMIT);
    let logs = |words: &[&str]| {
        let mut logs = std::process::Command::new(cluster::PHALANX);
        logs.arg("logs").args(words);
        logs.env("XDG_RUNTIME_DIR", app.directory());
        Process::run(logs, LIMIT)
    };
    let text = logs(&[]).expect_success().stdout;
    for name in ["app", "other"] {
        assert!(
            text.contains(&format!("Z {name} [0] listening on ")),
            "{text}"
        );
    }
    let text = logs(&["other"]).expect_success().stdout;
    assert_eq!(text.lines().count(), 1, "{text}");
    let refused = logs(&["nobody"]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    other.signal(Signal::TERM);
    assert!(other.wait_exit(LIMIT).success());
    other.wait_family_gone(LIMIT);
}

#[test]
fn what_is_asked_wrongly_or_not_kept_is_refused_with_the_reason() {
    let app = app()
        .workers(1)
        .option("--log-memory=0")
        .script("noisy.js")
        .start_ready();
    let refused = app.verb(["logs"]);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("none of it is kept"), "{refused:?}");
    for words in [
        ["logs", "--grep", "("],
        ["logs", "--worker", "x"],
        ["logs", "--since", "10"],
    ] {
        let refused = app.verb(words);
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    }
    assert!(app.lines().text(Stream::Stdout).contains("listening on"));
    let app = noisy(1);
    let reply = app
        .control()
        .request("GET", "/v1/logs?n=1", None, LIMIT)
        .unwrap();
    assert_eq!(
        (reply.status, reply.json()["error"]["kind"].as_str()),
        (400, Some("invalid"))
    );
}
