//! Workers that run as another user than their primary: as whom, and where they may listen.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use cluster::{app, free_port, get_json, try_get};
use phalanx_testkit::{App, LIMIT, Target, fixtures, node};

const NOBODY: u32 = 65534;

/// The script in a directory of nobody's, running as nobody; `None` where it cannot.
fn as_nobody(place: &Path, options: &[&str]) -> Option<App> {
    if !phalanx_sys::identity::is_root() {
        phalanx_testkit::missing!("root");
        return None;
    }
    node::require()?;
    fs::set_permissions(place, Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(place, Some(NOBODY), Some(NOBODY)).unwrap();
    let script = place.join("asks.js");
    fs::copy(fixtures::fixture("asks.js"), &script).unwrap();
    let app = app()
        .workers(1)
        .cwd(place)
        .env("PORT", free_port().to_string())
        .options(["--user", "65534", "--group", "65534"])
        .options(options)
        .command(["node"])
        .arg(script)
        .start_ready();
    Some(app)
}

fn ask(target: &Target, on: &str) -> String {
    try_get(target, &format!("/listen?on={on}")).unwrap()
}

#[test]
fn workers_run_as_the_user_that_is_wanted() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut app) = as_nobody(place.path(), &[]) else {
        return;
    };
    let told = get_json(&app.address(), "/");
    assert_eq!(
        (&told["uid"], &told["gid"]),
        (&NOBODY.into(), &NOBODY.into())
    );
    assert_eq!(told["groups"], serde_json::json!([NOBODY]), "{told}");
    assert_ne!(told["home"], "/root");
}

#[test]
fn they_may_listen_on_what_the_first_generation_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut app) = as_nobody(place.path(), &[]) else {
        return;
    };
    let target = app.address();
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755)).unwrap();
    let path = outside.path().join("x.sock");
    for on in ["81", &free_port().to_string(), path.to_str().unwrap()] {
        assert_eq!(ask(&target, on), "EACCES", "{on}");
    }
    // A link of his own leads out of the directory that is his.
    std::os::unix::fs::symlink(outside.path(), place.path().join("link")).unwrap();
    let link = place.path().join("link/x.sock");
    assert_eq!(ask(&target, link.to_str().unwrap()), "EACCES");
    assert!(!path.exists());
    assert_eq!(ask(&target, "0"), "listens");
    app.wait_for_line("81 is a privileged port", LIMIT);
    app.wait_for_line("outside of the working directory", LIMIT);
    app.verb(["reload"]).expect_success();
}

#[test]
fn they_may_listen_on_what_is_allowed_and_the_files_are_as_wanted() {
    let place = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755)).unwrap();
    let pattern = format!("unix:{}/*.sock", outside.path().display());
    let options = [
        "--allow-listen",
        "1024-65535",
        "--allow-listen",
        &pattern,
        "--unix-mode",
        "620",
        "--unix-owner",
        "65534",
    ];
    let Some(mut app) = as_nobody(place.path(), &options) else {
        return;
    };
    let target = app.address();
    let path = outside.path().join("x.sock");
    assert_eq!(ask(&target, &free_port().to_string()), "listens");
    assert_eq!(ask(&target, "81"), "EACCES");
    assert_eq!(ask(&target, path.to_str().unwrap()), "listens");
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid()), (0o620, NOBODY));
    assert_eq!(
        ask(&target, place.path().join("x.sock").to_str().unwrap()),
        "EACCES"
    );
    assert!(app.stop().success());
    assert!(!path.exists());
}
