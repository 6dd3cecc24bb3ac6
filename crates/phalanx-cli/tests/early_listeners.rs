//! Programs that listen, or say that they are ready, before they have loaded: a release of theirs that never accepts a connection
//! is refused by a reload, and nobody outside notices.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::path::Path;

use cluster::{app, free_port};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::{LIMIT, Load, fixtures, require};
use tempfile::TempDir;

const GOOD: &str = "def app(environ, start_response):
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

/// Two workers of it serve. Breaks it and reloads under load: that is refused, and no request is lost.
#[track_caller]
fn expect_refused(builder: AppBuilder, place: &TempDir, file: &str, content: &str) {
    let mut app = builder.workers(2).cwd(place.path()).start_ready();
    let before = app.worker_pids();
    let load = Load::new(app.address()).clients(4).start();
    load.wait_until_ok(50, LIMIT);
    fs::write(place.path().join(file), content).unwrap();
    let refused = app.start_verb(["reload"]).finish(LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    load.wait_for_more(50, LIMIT);
    load.stop().expect_none_lost();
    assert_eq!(app.worker_pids(), before);
}

/// gunicorn with one worker, after these options.
fn gunicorn(place: &Path, options: &[&str]) -> Option<AppBuilder> {
    let gunicorn = require("gunicorn")?;
    fs::write(place.join("served.py"), GOOD).unwrap();
    let builder = app().command([gunicorn]);
    let words = options.iter().chain(&["-w", "1", "served:app"]);
    Some(words.fold(builder, AppBuilder::arg))
}

const CANNOT_BE_IMPORTED: &str = "raise ImportError('no such module')\n";

#[test]
fn gunicorn_that_is_given_its_listener_and_cannot_import_the_app() {
    let place = tempfile::tempdir().unwrap();
    if let Some(builder) = gunicorn(place.path(), &[]) {
        let builder = builder.options(["--bind", "127.0.0.1:0"]);
        expect_refused(builder, &place, "served.py", CANNOT_BE_IMPORTED);
    }
}

#[test]
fn gunicorn_that_is_intercepted_and_cannot_import_the_app() {
    let place = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    if let Some(builder) = gunicorn(place.path(), &["--bind", &address]) {
        expect_refused(builder, &place, "served.py", CANNOT_BE_IMPORTED);
    }
}

fn python(script: &str, words: &[&str]) -> Option<AppBuilder> {
    require("python3")?;
    let builder = app().command(["python3"]).arg(fixtures::fixture(script));
    let builder = builder.options(["--ready-timeout", "10s"]);
    Some(words.iter().fold(builder, AppBuilder::arg))
}

#[test]
fn a_program_that_says_that_it_is_ready_and_accepts_nothing() {
    for dispatch in ["auto", "shared"] {
        let place = tempfile::tempdir().unwrap();
        if let Some(builder) = python("programs/activated.py", &["early"]) {
            let builder = builder.options(["--bind", "127.0.0.1:0", "--dispatch", dispatch]);
            expect_refused(builder, &place, "broken", "");
        }
    }
}

#[test]
fn a_program_that_listens_by_itself_and_accepts_nothing() {
    for dispatch in ["auto", "shared"] {
        let place = tempfile::tempdir().unwrap();
        let port = free_port().to_string();
        if let Some(builder) = python("programs/binds.py", &["stalls", &port]) {
            let builder = builder.options(["--dispatch", dispatch]);
            expect_refused(builder, &place, "broken", "");
        }
    }
}
