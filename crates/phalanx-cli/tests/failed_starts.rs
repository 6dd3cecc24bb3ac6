//! Apps that cannot start, or whose workers cannot: told with the status that `docs/exit-codes.md` names and
//! with words that say why.

use crate::support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use phalanx_testkit::{LIMIT, Process, Signal, fixtures};
use support::{app, expect_refused, fixture, phalanx, run_alone};

#[test]
fn an_address_in_use_is_told_before_any_worker_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run_alone(&["run", "--bind", &address, "--", "cat"]);
    expect_refused(&output, 1, &["cannot listen on", &address, "in use"]);
}

#[test]
fn a_program_that_exits_at_once_fails_the_start() {
    let output = run_alone(&["run", "-n", "2", &fixture("exits-at-once.js"), "3"]);
    let parts = [
        "cannot find my configuration",
        "no worker became ready",
        "exit code 3",
    ];
    expect_refused(&output, 1, &parts);
}

#[test]
fn a_script_with_a_syntax_error_fails_the_start() {
    let output = run_alone(&["run", "-n", "1", &fixture("syntax-error.js")]);
    expect_refused(&output, 1, &["SyntaxError", "no worker became ready"]);
}

#[test]
fn a_worker_that_never_becomes_ready_fails_the_start() {
    let script = fixture("never-ready.js");
    // Long enough for Node to begin, on a busy machine too.
    let output = run_alone(&["run", "-n", "2", "--ready-timeout", "5s", &script]);
    expect_refused(
        &output,
        1,
        &["no worker became ready", "not ready within 5s"],
    );
    assert!(output.stdout.contains("thinking"), "{}", output.stdout);
}

#[test]
fn a_port_in_use_reaches_the_script_and_fails_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run_alone(&["run", "-n", "1", &fixture("in-use.js"), &port]);
    expect_refused(&output, 1, &["no worker became ready", "exit code 7"]);
    assert!(
        output.stdout.contains("error code = EADDRINUSE"),
        "{}",
        output.stdout
    );
}

#[test]
fn the_last_lines_are_part_of_a_failure_in_json() {
    let script = fixture("exits-at-once.js");
    let output = run_alone(&["run", "-n", "1", "--log-format", "json", &script]);
    // What the worker printed is between the lines of the log, as it was.
    let mut told = output
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let failed = told.find(|line: &serde_json::Value| line["event"] == "failed");
    let failed = failed.unwrap_or_else(|| panic!("{}", output.stderr));
    assert_eq!(
        failed["last_lines"],
        serde_json::json!(["cannot find my configuration"])
    );
}

#[test]
fn a_directory_that_cannot_be_used_for_the_socket_is_told() {
    let parent = support::directory();
    let start = |directory: &std::path::Path| {
        Process::run(phalanx(directory, &["run", &fixture("http.js")]), LIMIT)
    };
    let output = start(&parent.path().join("not/there"));
    expect_refused(&output, 73, &["cannot use", "not/there", "No such file"]);

    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    expect_refused(&start(&file), 73, &["it is no directory"]);

    let open = parent.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    expect_refused(&start(&open), 73, &["others may write to it (mode 0777)"]);

    let long = parent.path().join("d".repeat(100));
    expect_refused(&start(&long), 73, &["too long", "--name"]);
}

#[test]
fn an_unreadable_directory_for_the_socket_is_told() {
    if !phalanx_sys::identity::is_root() {
        // Only root can start the command as a user who may not read a directory of ours.
        return;
    }
    let private = support::directory();
    // Elsewhere than the target directory, which others may not be able to reach either.
    let binary = tempfile::Builder::new()
        .prefix("px")
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(binary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = binary.path().join("phalanx");
    fixtures::copy_program(support::PHALANX.as_ref(), &copy);
    let mut command = std::process::Command::new(copy);
    command
        .args(["run", "cat"])
        .env("PHALANX_RUNTIME_DIR", private.path().join("sockets"));
    command.uid(65534).gid(65534).current_dir("/");
    expect_refused(
        &Process::run(command, LIMIT),
        73,
        &["cannot use", "Permission denied"],
    );
}

#[test]
fn a_second_app_of_the_same_name_is_refused_with_the_pid_of_the_first() {
    let mut first = app().workers(1).script("http.js").start_ready();
    let second = Process::run(
        {
            let mut command = std::process::Command::new(support::PHALANX);
            command.args(["run", "--name", "app", &fixture("http.js")]);
            command.env("XDG_RUNTIME_DIR", first.directory());
            command
        },
        LIMIT,
    );
    let holder = format!("(pid {})", first.pid());
    expect_refused(
        &second,
        75,
        &["an app named app is already running", &holder],
    );
    assert_eq!(
        first.wait_ready(LIMIT)["workers"].as_array().unwrap().len(),
        1
    );
    assert!(first.stop().success());
    let left: Vec<_> = fs::read_dir(first.directory().join("phalanx"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_killed_primary_left_behind_is_replaced() {
    let directory = support::directory();
    let words = ["run", "-n", "1", &fixture("http.js")];
    let mut killed = Process::start(phalanx(directory.path(), &words));
    killed.wait_for_line("ready: 1 of 1", LIMIT);
    killed.signal(Signal::KILL);
    killed.wait_exit(LIMIT);
    killed.wait_family_gone(LIMIT);
    assert!(directory.path().join("http.sock").exists());
    let mut next = Process::start(phalanx(directory.path(), &words));
    next.wait_for_line("ready: 1 of 1", LIMIT);
    next.signal(Signal::TERM);
    assert_eq!(next.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_pid_file_of_a_living_process_is_respected() {
    let directory = support::directory();
    let file = directory.path().join("app.pid");
    fs::write(&file, "1\n").unwrap();
    let output = run_alone(&[
        "run",
        "--pid-file",
        file.to_str().unwrap(),
        &fixture("http.js"),
    ]);
    expect_refused(&output, 75, &["names a living process, 1"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
}

#[test]
fn boot_failures_can_be_retried() {
    let script = fixture("exits-at-once.js");
    let words = ["run", "-n", "1", "--on-boot-failure", "retry", &script];
    let directory = support::directory();
    let mut process = Process::start(phalanx(directory.path(), &words));
    process.wait_for_line("after 2 failures", LIMIT);
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(LIMIT).code(), Some(0));
    process.wait_family_gone(Duration::from_secs(10));
}
