//! The control socket as programs use it: HTTP, JSON, errors, and clients that misbehave.

#![allow(
    clippy::expect_used,
    reason = "a failed expectation of a test is a panic"
)]

use crate::support;

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use phalanx_testkit::{App, LIMIT, Process, Signal, procs};
use serde_json::{Value, json};
use support::{app, expect_refused};

/// The error of an answer: its status, kind and reason.
fn error(app: &App, method: &str, path: &str, body: Option<&Value>) -> (u16, Value, Value) {
    let reply = app.control().request(method, path, body, LIMIT);
    let reply = reply.expect("the socket answers");
    let error = &reply.json()["error"];
    (reply.status, error["kind"].clone(), error["reason"].clone())
}

#[test]
fn errors_are_json_with_a_kind_and_a_reason() {
    let app = app().workers(1).script("http.js").start_ready();
    for (method, path, body, status, kind) in [
        ("GET", "/v1/nothing", None, 404, "no_such_path"),
        ("POST", "/v1/status", Some(json!({})), 405, "no_such_method"),
        ("POST", "/v1/scale", Some(json!({})), 400, "invalid"),
        (
            "POST",
            "/v1/scale",
            Some(json!({"workers": "many"})),
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/scale",
            Some(json!({"workers": 1, "more": 1})),
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/scale",
            Some(json!({"workers": 100_000})),
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/stop",
            Some(json!({"fast": "yes"})),
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/messages",
            Some(json!({"message": 1, "to": 99})),
            404,
            "no_such_worker",
        ),
    ] {
        let answer = error(&app, method, path, body.as_ref());
        assert_eq!(
            (answer.0, &answer.1),
            (status, &json!(kind)),
            "{method} {path}: {answer:?}"
        );
        assert!(
            answer.2.as_str().is_some_and(|reason| !reason.is_empty()),
            "{answer:?}"
        );
    }
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let app = app().workers(1).script("http.js").start_ready();
    let body = json!({"message": "x".repeat(1 << 20)});
    let answer = error(&app, "POST", "/v1/messages", Some(&body));
    assert_eq!((answer.0, answer.1), (413, json!("too_large")));
}

#[test]
fn scale_takes_numbers_and_texts() {
    let app = app().workers(1).script("http.js").start_ready();
    for (wanted, count) in [
        (json!(2), 2),
        (json!("3"), 3),
        (json!("-2"), 1),
        (json!("+1"), 2),
    ] {
        let reply = app
            .post("/v1/scale", &json!({"workers": wanted}))
            .expect_success();
        assert_eq!(reply.json()["workers"], count, "{reply:?}");
    }
}

#[test]
fn a_command_goes_on_when_its_client_goes_away() {
    let mut app = app().workers(2).script("http.js").start_ready();
    let events = app.events();
    let mut client = UnixStream::connect(app.control().path()).unwrap();
    client
        .write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    events.wait_for(LIMIT, "the beginning", |event| {
        event["report"] == "rollout_started"
    });
    drop(client);
    events.wait_for(LIMIT, "the end", |event| {
        event["report"] == "rollout_finished"
    });
    assert_eq!(app.wait_ready(LIMIT)["generation"], 2);
}

#[test]
fn the_socket_is_private_and_is_removed_at_the_end() {
    let mut app = app().workers(1).script("http.js").start_ready();
    let socket = app.control().path().to_owned();
    let found = socket.metadata().unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert!(app.stop().success());
    assert!(!socket.exists());
}

#[test]
fn another_user_is_not_even_heard() {
    if !phalanx_sys::identity::is_root() {
        // Only root can become another user.
        return;
    }
    let app = app().workers(1).script("http.js").start_ready();
    // As if somebody had opened everything: the peer's credentials still decide.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(app.directory(), 0o755);
    open(&app.directory().join("phalanx"), 0o755);
    open(app.control().path(), 0o666);
    let mut client = std::process::Command::new("curl");
    client
        .args(["-sS", "--unix-socket"])
        .arg(app.control().path())
        .arg("http://localhost/v1/status");
    client.uid(65534).gid(65534);
    let output = Process::run(client, LIMIT);
    assert!(!output.status.success(), "{output:?}");
    app.wait_for_line("refused another user's connection", LIMIT);
}

#[test]
fn clients_that_say_nothing_do_not_hold_up_the_end() {
    let mut app = app().workers(1).script("http.js").start_ready();
    let mut silent = UnixStream::connect(app.control().path()).unwrap();
    let mut partial = UnixStream::connect(app.control().path()).unwrap();
    partial
        .write_all(b"POST /v1/messages HTTP/1.1\r\nContent-Length: 99\r\nHost: x\r\n\r\n{")
        .unwrap();
    let events = app.events();
    assert!(app.stop().success());
    // The stream ends with the app.
    assert!(events.into_iter().all(|event| event.is_object()));
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

/// `phalanx list` of the apps that this one's user would see.
fn list(app: &App, words: &[&str]) -> Process {
    let mut command = std::process::Command::new(support::PHALANX);
    command.arg("list").args(words);
    command.env("XDG_RUNTIME_DIR", app.directory());
    Process::start(command)
}

#[test]
fn a_stopped_primary_holds_nobody_up() {
    let mut stuck = app().workers(1).script("http.js").start_ready();
    let pid = stuck.status()["pid"].clone();
    procs::suspend(u32::try_from(pid.as_u64().unwrap()).unwrap());
    // All at once: each waits for its own limit.
    let words: [&[&str]; 5] = [
        &["status"],
        &["reload"],
        &["scale", "2"],
        &["events"],
        &["stop"],
    ];
    let verbs = words.map(|words| stuck.start_verb(words));
    let lists = [&[][..], &["--json"]].map(|words| list(&stuck, words));
    let parts = [
        "the primary of app",
        "has not answered for 5s",
        "kill -CONT",
    ];
    for verb in verbs {
        expect_refused(&verb.finish(LIMIT), 1, &parts);
    }
    let [table, json] = lists.map(|list| list.finish(LIMIT).expect_success().stdout);
    let number = pid.to_string();
    let is_told = |line: &str| line.contains(&number) && line.ends_with("not answering");
    assert!(table.lines().any(is_told), "{table}");
    let all: Vec<Value> = serde_json::from_str(&json).expect("an array");
    let found = all.iter().find(|one| one["pid"] == pid);
    assert_eq!(found.expect("the stopped app")["not_answering"], true);
    stuck.signal(Signal::CONT);
    stuck.verb(["status"]).expect_success();
}
