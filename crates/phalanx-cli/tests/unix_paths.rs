//! Unix listeners with a path, where others have a hand in it: workers without privilege, programs that clear
//! their path, primaries that were killed.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use cluster::{app, try_get};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Signal, Target, fixtures, node, require};

const NOBODY: u32 = 65534;

/// A directory that everybody may look into, and a path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    let path = place.path().join("x.sock");
    (place, path)
}

fn expect_served(path: &Path) {
    let answer = try_get(&Target::from(path.to_owned()), "/");
    assert!(answer.is_ok(), "{answer:?}");
}

/// Runs it, kills the primary, and runs it again on the path that is left.
fn expect_taken_over_after_a_kill(start: impl Fn() -> App, path: &Path) {
    let mut killed = start();
    expect_served(path);
    killed.signal(Signal::KILL);
    killed.wait_exit(LIMIT);
    killed.wait_family_gone(LIMIT);
    assert!(path.exists());
    let mut next = start();
    expect_served(path);
    assert!(next.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_worker_that_swaps_its_directory_for_a_link_has_nothing_of_root_removed() {
    if !phalanx_sys::identity::is_root() {
        phalanx_testkit::missing!("root");
        return;
    }
    if node::require().is_none() {
        return;
    }
    let (place, _) = place();
    let precious = place.path().join("root/precious");
    for name in ["root", "nobody", "nobody/inner"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    for name in ["nobody", "nobody/inner"] {
        chown(place.path().join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::write(&precious, "precious").unwrap();
    fs::set_permissions(place.path().join("root"), Permissions::from_mode(0o700)).unwrap();
    let mut app = app()
        .workers(1)
        .env("BASE", place.path())
        .script("swaps-directory.js")
        .start_ready();
    app.wait_for_line("closed", LIMIT);
    let made = place.path().join("nobody/moved/precious");
    eventually(LIMIT, "the file of the socket is removed", || {
        (!made.exists()).then_some(())
    });
    assert!(app.stop().success());
    assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
}

#[test]
fn a_program_that_clears_its_path_is_found_there() {
    if node::require().is_none() {
        return;
    }
    let (_place, path) = place();
    let mut app = app()
        .workers(2)
        .env("SOCKET", &path)
        .script("clears-path.js")
        .start_ready();
    expect_served(&path);
    app.verb(["reload"]).expect_success();
    expect_served(&path);
    assert!(app.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_path_that_a_killed_primary_left_is_taken_over() {
    if node::require().is_none() {
        return;
    }
    let (_place, path) = place();
    let asked_for = || {
        let builder = app().workers(1).env("SOCKET", &path);
        builder.script("unix.js").start_ready()
    };
    expect_taken_over_after_a_kill(asked_for, &path);
    if require("python3").is_some() {
        expect_taken_over_after_a_kill(|| bound(&path).start_ready(), &path);
    }
}

#[test]
fn a_path_that_somebody_serves_or_no_socket_is_left_alone() {
    if require("python3").is_none() {
        return;
    }
    let (_place, path) = place();
    let served = std::os::unix::net::UnixListener::bind(&path).unwrap();
    expect_in_use(bound(&path));
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    drop(served);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    expect_in_use(bound(&path));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

fn expect_in_use(builder: AppBuilder) {
    let output = builder.run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("in use"), "{output:?}");
}

/// A program that is given a listener on this path.
fn bound(path: &Path) -> AppBuilder {
    let script = fixtures::fixture("programs/activated.py");
    let builder = app().workers(1).command(["python3"]).arg(script);
    let builder = builder.option("--bind");
    builder.option(format!("unix:{}", path.display()))
}
