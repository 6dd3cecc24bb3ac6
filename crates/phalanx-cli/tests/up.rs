//! `phalanx up` and `down`: several apps in one tree.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use phalanx_testkit::{LIMIT, Process, Signal, missing};
use serde_json::Value;
use support::{PHALANX, directory, expect_refused, fixture, phalanx};

fn with_two(more: &str) -> tempfile::TempDir {
    let place = directory();
    let script = fixture("http.js");
    let text = format!(
        "[app.api]\nscript = {script:?}\nworkers = 1\n[app.api.env]\nPORT = 0\n[app.web]\nscript = {script:?}\nworkers = 2\n{more}\n"
    );
    fs::write(place.path().join("phalanx.toml"), text).unwrap();
    place
}

fn verb(place: &Path, words: &[&str]) -> Command {
    let mut command = phalanx(place, words);
    command.current_dir(place).env_remove("PHALANX_PROFILE");
    command
}

fn ask(place: &Path, words: &[&str]) -> phalanx_testkit::process::Output {
    Process::run(verb(place, words), LIMIT)
}

fn listed(place: &Path) -> Vec<Value> {
    let output = ask(place, &["list", "--json"]).expect_success();
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn all_apps_come_up_with_one_log_and_go_down_together() {
    let place = with_two("");
    let up = Process::start(verb(place.path(), &["up"]));
    up.wait_for_line("phalanx: up: api, web", LIMIT);
    up.wait_for_line("web | phalanx: ready: 2 of 2", LIMIT);
    assert_eq!(listed(place.path()).len(), 2);
    let differs = ask(place.path(), &["diff"]).expect_success().stdout;
    assert_eq!(differs, "api: nothing differs\nweb: nothing differs\n");
    up.signal(Signal::HUP);
    let generations = || {
        let all = listed(place.path());
        let is_done = |app: &Value| app["generation"] == 2 && app["reloading"] == false;
        all.iter().all(is_done).then_some(())
    };
    phalanx_testkit::wait::eventually(LIMIT, "both apps are reloaded", generations);
    // One that was stopped by its name stays down, and the other one goes on.
    ask(place.path(), &["stop", "--name", "web"]).expect_success();
    assert_eq!(listed(place.path()).len(), 1);
    ask(place.path(), &["down"]).expect_success();
    assert!(up.finish(LIMIT).status.success());
    expect_refused(&ask(place.path(), &["down"]), 69, &["no app of"]);
}

#[test]
fn lines_of_workers_have_the_time_where_it_was_asked_for() {
    let place = with_two("");
    let up = Process::start(verb(place.path(), &["up", "--log-time", "always"]));
    let line = up.wait_for_line("Z listening on ", LIMIT);
    assert!(line.contains(" | 20"), "{line}");
    up.signal(Signal::TERM);
    assert!(up.finish(LIMIT).status.success());
    let up = Process::start(verb(place.path(), &["up"]));
    up.wait_for_line(" | listening on ", LIMIT);
    up.signal(Signal::TERM);
    assert!(up.finish(LIMIT).status.success());
}

#[test]
fn an_app_whose_primary_was_killed_is_started_again() {
    let place = with_two("");
    let up = Process::start(verb(place.path(), &["up"]));
    up.wait_for_line("phalanx: up: ", LIMIT);
    let find = |name: &str| {
        listed(place.path())
            .into_iter()
            .find(|app| app["name"] == name)
    };
    let first = find("api").unwrap()["pid"].as_u64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    up.wait_for_line("api was ended by signal", LIMIT);
    let is_back = || {
        find("api")
            .filter(|app| app["pid"].as_u64() != Some(first))
            .map(drop)
    };
    phalanx_testkit::wait::eventually(LIMIT, "the app is back", is_back);
    up.signal(Signal::TERM);
    assert!(up.finish(LIMIT).status.success());
    assert!(listed(place.path()).is_empty());
}

#[test]
fn apps_end_when_what_runs_them_is_killed() {
    let place = with_two("");
    let mut up = Process::start(verb(place.path(), &["up"]));
    up.wait_for_line("phalanx: up: ", LIMIT);
    up.signal(Signal::KILL);
    up.wait_exit(LIMIT);
    let all_gone = || listed(place.path()).is_empty().then_some(());
    phalanx_testkit::wait::eventually(LIMIT, "the apps have ended", all_gone);
    up.wait_family_gone(LIMIT);
}

#[test]
fn what_cannot_come_up_together_does_not_come_up() {
    let crash = fixture("exits-at-once.js");
    let place = with_two(&format!("[app.bad]\nscript = {crash:?}\n"));
    let refused = ask(place.path(), &["up"]);
    expect_refused(
        &refused,
        1,
        &[
            "bad ended with status 1: all apps end",
            "no worker became ready",
        ],
    );
    assert!(listed(place.path()).is_empty());
    let some = Process::start(verb(place.path(), &["up", "api"]));
    some.wait_for_line("phalanx: up: api", LIMIT);
    some.signal(Signal::INT);
    assert!(some.finish(LIMIT).status.success());
    expect_refused(
        &ask(place.path(), &["up", "nobody"]),
        78,
        &["has no app nobody", "api, bad, web"],
    );
}

#[test]
fn under_systemd_the_lines_of_each_app_go_to_the_journal_with_its_fields() {
    if !phalanx_sys::identity::is_root() {
        return missing!("root, for a journal of the test's own");
    }
    let place = with_two("");
    let journal = place.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let socket = UnixDatagram::bind(journal.join("socket")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && \
         export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && exec {PHALANX} up 1>&2",
        journal.display()
    );
    let mut unshared = Command::new("unshare");
    unshared.args(["--mount", "sh", "-c", &script]);
    unshared
        .current_dir(place.path())
        .env("PHALANX_RUNTIME_DIR", place.path())
        .env_remove("PHALANX_NAME")
        .env_remove("PHALANX_PROFILE");
    let up = Process::start(unshared);
    let mut unseen = BTreeSet::from(["api", "web"]);
    let mut buffer = vec![0; 64 << 10];
    while !unseen.is_empty() {
        let count = socket.recv(&mut buffer).unwrap();
        let message = String::from_utf8_lossy(&buffer[..count]);
        let has = |field: &str| message.lines().any(|line| line == field);
        assert!(
            has("PHALANX_GENERATION=1") && has("PHALANX_STREAM=stdout"),
            "{message}"
        );
        assert!(message.contains("MESSAGE=listening on "), "{message}");
        unseen.retain(|app| !has(&format!("PHALANX_APP={app}")));
    }
    // The log of each app is where it was.
    up.wait_for_line("web | phalanx: ready: 2 of 2", LIMIT);
    up.signal(Signal::TERM);
    assert!(up.finish(LIMIT).status.success());
}
