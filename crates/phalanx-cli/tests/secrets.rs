//! Variables of the environment hold secrets: they appear in no answer, event, log line or figure.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this whole file is a test"
)]

use crate::support;

use std::fs;
use std::net::SocketAddr;

use phalanx_testkit::lines::address_in;
use phalanx_testkit::{App, LIMIT, fixtures, node};
use serde_json::{Value, json};
use support::app;
use support::view::ask;

/// Parts of the values of secret variables: of the primary's environment, and of `--env`.
const SECRETS: [&str; 2] = ["of-primary-7b1c", "of-flag-9d2e"];

#[track_caller]
fn expect_untold(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} tells {secret}: {text}");
    }
}

/// The paths of the API, from its description, and whether each is asked by GET.
fn routes() -> Vec<(String, bool)> {
    let text = fs::read_to_string(fixtures::root().join("docs/openapi.json")).unwrap();
    let api: Value = serde_json::from_str(&text).unwrap();
    let paths = api["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, methods)| (path.clone(), methods.get("get").is_some()))
        .collect()
}

/// Asks every route but those that end or never end: of the web view, and of the control socket.
fn ask_all(app: &App, web: SocketAddr) {
    let (host, own) = (format!("Host: {web}"), format!("Origin: http://{web}"));
    for (path, is_read) in routes() {
        if path == "/v1/stop" || path == "/v1/events" {
            continue;
        }
        let method = if is_read { "GET" } else { "POST" };
        let answer = ask(web, &format!("{method} {path}"), &[&host, &own], "");
        expect_untold(&path, &answer);
        let body =
            (!is_read).then(|| json!({"to": 1, "message": "x", "workers": 1, "policy": "random"}));
        let control = app.control();
        let reply = control.request(method, &path, body.as_ref(), LIMIT);
        expect_untold(&path, &reply.unwrap().body);
    }
    for path in ["/", "/main.js", "/nothing"] {
        expect_untold(path, &ask(web, &format!("GET {path}"), &[&host], ""));
    }
}

#[test]
fn variables_of_the_environment_appear_nowhere() {
    if node::require().is_none() {
        return;
    }
    let directory = support::directory();
    let log = directory.path().join("app.log");
    let app = app()
        .workers(1)
        .options(["--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .options(["--env", &format!("DATABASE_PASSWORD={}", SECRETS[1])])
        .options(["--log-file", log.to_str().unwrap()])
        .env("API_KEY", SECRETS[0])
        .script("http.js");
    let mut app = app.start_ready();
    let web = address_in(&app.wait_for_line("web view on http://", LIMIT));
    let metrics = address_in(&app.wait_for_line("metrics: http://", LIMIT));
    let events = app.events();
    ask_all(&app, web);
    let host = format!("Host: {metrics}");
    for path in ["/metrics", "/livez", "/readyz", "/startupz", "/nothing"] {
        expect_untold(path, &ask(metrics, &format!("GET {path}"), &[&host], ""));
    }
    // A crash is described at length, and so is a failed start.
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    app.wait_ready(LIMIT);
    for words in [
        &["status", "--json"][..],
        &["status"],
        &["list"],
        &["logs"],
        &["metrics"],
        &["reload"],
        &["diff"],
    ] {
        let output = app.verb(words);
        expect_untold(&words.join(" "), &output.stdout);
        expect_untold(&words.join(" "), &output.stderr);
    }
    let told = events.so_far();
    assert!(
        told.iter()
            .any(|event| event["report"] == "rollout_finished")
    );
    for event in told {
        expect_untold("an event", &event.to_string());
    }
    assert!(app.stop().success());
    expect_untold("the output", &app.lines().shown());
    expect_untold("the log file", &fs::read_to_string(&log).unwrap());
}
