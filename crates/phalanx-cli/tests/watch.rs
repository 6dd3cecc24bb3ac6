//! `phalanx run --watch`: a reload when a file changes, and none when nothing of the app did.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::support;

use std::fs;
use std::path::Path;

use phalanx_testkit::{LIMIT, Process, Signal};
use support::{directory, fixture, phalanx};

/// An app in a directory of its own, under watch with these options.
fn start(place: &Path, options: &[&str]) -> Process {
    for name in ["run", "app", "app/node_modules", "app/lib"] {
        fs::create_dir(place.join(name)).unwrap();
    }
    fs::copy(fixture("http.js"), place.join("app/server.js")).unwrap();
    let words = [&["run", "-n", "1", "--watch"], options, &["server.js"]].concat();
    let mut command = phalanx(&place.join("run"), &words);
    command.current_dir(place.join("app")).env("PORT", "0");
    let app = Process::start(command);
    app.wait_for_line("watching 2 directories for changes", LIMIT);
    app.wait_for_line("ready: 1 of 1", LIMIT);
    app
}

fn stop(mut app: Process) {
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
}

#[test]
fn a_change_reloads_and_what_is_passed_over_does_not() {
    let place = directory();
    let app = start(place.path(), &["--watch-ignore", "uploads"]);
    let here = place.path().join("app");
    // None of these is named when the change after them is.
    for name in ["node_modules/x.js", "today.log", ".hidden", "uploads"] {
        fs::write(here.join(name), "1").unwrap();
    }
    fs::read(here.join("server.js")).unwrap();
    fs::write(here.join("lib/db.js"), "1").unwrap();
    app.wait_for_line("lib/db.js changed: reloading", LIMIT);
    app.wait_for_line("reload: done", LIMIT);
    let lines = app.lines().all();
    let reloads = lines
        .iter()
        .filter(|line| line.text.contains("changed: reloading"));
    assert_eq!(reloads.count(), 1, "{lines:?}");
    stop(app);
}

#[test]
fn a_directory_that_is_new_is_watched_and_an_editors_new_file_is_a_change() {
    let place = directory();
    let app = start(place.path(), &[]);
    let here = place.path().join("app");
    fs::create_dir_all(here.join("routes/deep")).unwrap();
    app.wait_for_line("routes changed: reloading", LIMIT);
    app.wait_for_line("reload: done", LIMIT);
    fs::write(here.join("routes/deep/new.js"), "1").unwrap();
    app.wait_for_line("routes/deep/new.js changed: reloading", LIMIT);
    stop(app);
}

#[test]
fn a_release_that_fails_leaves_the_old_one_serving_and_the_next_change_tries_again() {
    let place = directory();
    let app = start(place.path(), &[]);
    let script = place.path().join("app/server.js");
    fs::write(&script, "throw new Error('a slip')").unwrap();
    app.wait_for_line("reload: not done", LIMIT);
    // As editors write: a new file in the place of the old one.
    let new = place.path().join("app/.server.js.new");
    fs::copy(fixture("http.js"), &new).unwrap();
    fs::rename(&new, &script).unwrap();
    app.wait_for_line("reload: done", LIMIT);
    stop(app);
}

#[test]
fn only_what_is_named_is_watched_when_something_is() {
    let place = directory();
    for name in ["run", "app", "app/lib"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    let here = place.path().join("app");
    fs::copy(fixture("http.js"), here.join("server.js")).unwrap();
    fs::write(here.join("config.json"), "{}").unwrap();
    let options = [
        "--watch",
        "--watch-path",
        "config.json",
        "--watch-path",
        "lib",
    ];
    let words = [&["run", "-n", "1"], &options[..], &["server.js"]].concat();
    let mut command = phalanx(&place.path().join("run"), &words);
    command.current_dir(&here).env("PORT", "0");
    let app = Process::start(command);
    app.wait_for_line("watching 2 directories for changes", LIMIT);
    app.wait_for_line("ready: 1 of 1", LIMIT);
    fs::write(here.join("other.json"), "{}").unwrap();
    fs::write(here.join("config.json"), "{ }").unwrap();
    app.wait_for_line("config.json changed: reloading", LIMIT);
    app.wait_for_line("reload: done", LIMIT);
    assert!(!app.lines().shown().contains("other.json"));
    stop(app);
}
