//! Which places the commands trust: nobody else's, and none that somebody else can move.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use cluster::{PHALANX, app};
use phalanx_testkit::process::Output;
use phalanx_testkit::{LIMIT, Process, fixtures, node};

const STRANGER: u32 = 65534;
const USER: u32 = 61234;

fn is_root() -> bool {
    let is_root = phalanx_sys::identity::is_root();
    if !is_root {
        phalanx_testkit::missing!("root");
    }
    is_root
}

/// A copy of the binary that everybody can run, in a directory in which everybody can make one.
fn open_place() -> tempfile::TempDir {
    let place = tempfile::Builder::new()
        .prefix("px")
        .tempdir_in("/tmp")
        .unwrap();
    // By another process: what a test beside this one forks must not hold the file open for writing (ETXTBSY).
    let copied = Command::new("cp").arg(PHALANX).arg(place.path()).status();
    assert!(copied.unwrap().success());
    fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
    place
}

/// A verb of a user whose only place for sockets is in the temporary directory.
fn verb_of_user(place: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(place.join("phalanx"));
    command.args(words).current_dir("/").env("TMPDIR", place);
    for variable in [
        "XDG_RUNTIME_DIR",
        "PHALANX_RUNTIME_DIR",
        "RUNTIME_DIRECTORY",
    ] {
        command.env_remove(variable);
    }
    command.uid(USER).gid(USER);
    Process::run(command, LIMIT)
}

fn expect_refused(output: &Output, part: &str) {
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(output.stderr.contains(part), "{output:?}");
}

#[test]
fn a_stranger_who_has_made_the_directory_first_hears_nothing() {
    if !is_root() {
        return;
    }
    let place = open_place();
    let directory = place.path().join(format!("phalanx-{USER}"));
    fs::create_dir(&directory).unwrap();
    let listener = UnixListener::bind(directory.join("shop.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::set_permissions(directory.join("shop.sock"), Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    chown(&directory, Some(STRANGER), Some(STRANGER)).unwrap();
    for words in [
        &["status"][..],
        &["send", "{\"password\":\"hunter2\"}"],
        &["stop", "--name", "shop"],
    ] {
        let output = verb_of_user(place.path(), words);
        expect_refused(&output, "belongs to the user with id 65534");
        assert!(listener.accept().is_err(), "{words:?}");
    }
    // His own, and somebody else answers there.
    chown(&directory, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    let output = verb_of_user(place.path(), &["status"]);
    expect_refused(&output, "others can move");
}

#[test]
fn a_place_that_is_taken_is_left_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o700)).unwrap();
    let socket = place.path().join("x.sock");
    let start = || {
        let mut command = Command::new(PHALANX);
        command
            .args(["run", "--name", "x", "-n", "1"])
            .arg(fixtures::fixture("http.js"));
        command.env("PHALANX_RUNTIME_DIR", place.path());
        let output = Process::run(command, LIMIT);
        assert_eq!(output.status.code(), Some(73), "{output:?}");
        assert!(output.stderr.contains("in use"), "{output:?}");
        let entries = fs::read_dir(place.path()).unwrap();
        assert_eq!(entries.count(), 1, "nothing is left of the failed start");
    };
    fs::write(&socket, "precious").unwrap();
    start();
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &socket).unwrap();
    start();
    assert!(socket.is_symlink());
    fs::remove_file(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    start();
    assert!(socket.is_dir());
}

#[test]
fn an_app_of_a_service_user_is_found_by_root() {
    if !is_root() || node::require().is_none() {
        return;
    }
    let service = tempfile::Builder::new()
        .prefix("px-service-")
        .tempdir_in("/run")
        .unwrap();
    chown(service.path(), Some(STRANGER), Some(STRANGER)).unwrap();
    let name = service
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let mut app = app()
        .uid(STRANGER)
        .name(&name)
        .workers(1)
        .env("RUNTIME_DIRECTORY", service.path())
        .script("http.js")
        .start();
    app.wait_for_line("ready: 1 of 1", LIMIT);
    assert!(service.path().join("phalanx").is_dir());
    let verb = |word: &str| {
        let mut command = Command::new(PHALANX);
        command.args([word, "--name", &name]);
        for variable in [
            "XDG_RUNTIME_DIR",
            "PHALANX_RUNTIME_DIR",
            "RUNTIME_DIRECTORY",
        ] {
            command.env_remove(variable);
        }
        Process::run(command, LIMIT).expect_success()
    };
    assert!(verb("status").stdout.contains(&name));
    verb("stop");
    assert!(app.wait_exit(LIMIT).success());
}
