//! A program of the library that runs its own primary: the verbs work on it, and it says on the terminal what happens.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;
use crate::support;

use std::process::Command;

use phalanx_testkit::process::Output;
use phalanx_testkit::{LIMIT, Process};
use serde_json::Value;
use support::{directory, phalanx};

#[test]
fn a_library_app_has_a_control_socket_and_tells_what_happens() {
    let place = directory();
    let verb = |words: &[&str]| -> Output {
        let words = [words, &["--name", "http_server"]].concat();
        Process::run(phalanx(place.path(), &words), LIMIT).expect_success()
    };
    let mut program = Command::new(cluster::example("http_server"));
    program
        .args(["10", "127.0.0.1:0"])
        .env("PHALANX_WORKERS", "2")
        .env("PHALANX_RUNTIME_DIR", place.path());
    let mut app = Process::start(program);
    app.wait_for_line("primary ", LIMIT);
    let ready = || {
        let output = Process::run(
            phalanx(place.path(), &["status", "--json", "--name", "http_server"]),
            LIMIT,
        );
        let status: Value = serde_json::from_str(&output.stdout).ok()?;
        phalanx_testkit::app::is_settled(&status).then_some(status)
    };
    let status = phalanx_testkit::wait::eventually(LIMIT, "two ready workers", ready);
    assert_eq!(status["pid"], app.pid());
    assert_eq!(
        verb(&["reload"]).stdout,
        "http_server reloaded: generation 2\n"
    );
    app.wait_for_line("reload: generation 2 serves", LIMIT);
    let status: Value = serde_json::from_str(&verb(&["status", "--json"]).stdout).unwrap();
    let worker = status["workers"][0]["pid"].to_string();
    let killed = Command::new("kill").args(["-KILL", &worker]).status();
    assert!(killed.unwrap().success());
    app.wait_for_line("crashed: ", LIMIT);
    app.wait_for_line("is starting: ", LIMIT);
    assert_eq!(verb(&["stop"]).stdout, "http_server stopped\n");
    assert!(app.wait_exit(LIMIT).success());
}
