//! The log file, what becomes of lines that cannot be written, and the journal.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{app, get, pid_in};
use phalanx_testkit::app::is_settled;
use phalanx_testkit::control::Control;
use phalanx_testkit::lines::Stream;
use phalanx_testkit::{App, LIMIT, Process, Signal, Target, fixtures, missing, wait};
use serde_json::Value;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/tmp").unwrap()
}

/// An app that prints into a log file, with these options.
fn with_log_file(path: &Path, workers: usize, options: &[&str]) -> App {
    app()
        .workers(workers)
        .option(format!("--log-file={}", path.display()))
        .options(options)
        .script("noisy.js")
        .start_ready()
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// How often each line of the workers is in these files. Panics if one is broken.
fn counted(paths: &[PathBuf]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for path in paths {
        for line in content(path).lines() {
            if line.starts_with("line ") {
                assert_eq!(line.len(), 99, "{line}");
                *counts.entry(line.to_owned()).or_default() += 1;
            } else {
                assert!(
                    line.contains("Z phalanx: ") || line.starts_with("listening on "),
                    "{line}"
                );
            }
        }
    }
    counts
}

#[test]
fn output_and_log_go_to_the_file_and_usr1_opens_it_anew() {
    let directory = directory();
    let path = directory.path().join("app.log");
    let mut app = with_log_file(&path, 1, &[]);
    let target = app.address();
    let pid = pid_in(&get(&target, "/?lines=2"));
    let has = |path: &Path, part: &str| content(path).contains(part).then_some(());
    let last = format!("line 1 of pid {pid} ");
    wait::eventually(LIMIT, "the lines are there", || has(&path, &last));
    assert!(content(&path).contains("phalanx: ready: 1 of 1 worker"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o137, 0);
    let moved = directory.path().join("app.log.old");
    fs::rename(&path, &moved).unwrap();
    app.signal(Signal::USR1);
    wait::eventually(LIMIT, "the file is made anew", || {
        path.exists().then_some(())
    });
    let before = content(&moved);
    get(&target, "/?lines=3");
    wait::eventually(LIMIT, "new lines are in the new file", || {
        has(&path, &format!("line 2 of pid {pid} "))
    });
    assert_eq!(content(&moved), before);
    assert!(app.stop().success());
    let all = counted(&[path, moved]);
    // Two streams, two requests.
    assert_eq!(all[&format!("{last:.<99}")], 4, "{all:?}");
    assert_eq!(app.lines().text(Stream::Stdout), "");
    assert!(app.lines().text(Stream::Stderr).contains("phalanx: ready"));
}

#[test]
fn a_file_is_turned_over_under_load_and_no_line_is_lost_or_broken() {
    let directory = directory();
    let path = directory.path().join("app.log");
    let options = ["--log-file-size=64K", "--log-file-keep=100"];
    let mut app = with_log_file(&path, 2, &options);
    let target = app.address();
    for _ in 0..10 {
        get(&target, "/?lines=1000");
    }
    assert!(app.stop().success());
    let files: Vec<PathBuf> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // 2 MB.
    assert!(files.len() >= 30, "{files:?}");
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 64 << 10, "{file:?}");
    }
    let all = counted(&files);
    assert_eq!(all.values().sum::<usize>(), 10 * 2 * 1000);
    let oldest = directory
        .path()
        .join(format!("app.log.{}", files.len() - 1));
    assert!(content(&oldest).contains("listening on"));
}

#[test]
fn only_so_many_files_are_kept() {
    let directory = directory();
    let path = directory.path().join("app.log");
    let mut app = with_log_file(&path, 1, &["--log-file-size=16K", "--log-file-keep=2"]);
    get(&app.address(), "/?lines=1000");
    assert!(app.stop().success());
    let names = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["app.log", "app.log.1", "app.log.2"]);
}

#[test]
fn a_log_file_that_cannot_be_written_is_refused_before_anything_starts() {
    let directory = directory();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
    for (file, code, part) in [
        (
            directory.path().join("link"),
            73,
            "cannot write the log file",
        ),
        (directory.path().to_owned(), 73, "cannot write the log file"),
        (
            directory.path().join("no/log"),
            73,
            "cannot write the log file",
        ),
    ] {
        let option = format!("--log-file={}", file.display());
        let output = app().option(option).script("http.js").run_to_end(LIMIT);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stderr.contains(part), "{output:?}");
    }
    let output = app()
        .option("--log-file-size=1M")
        .script("http.js")
        .run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}

/// `phalanx run` of the noisy server behind a shell, and the socket of the app.
fn behind_a_shell(directory: &Path, shell: &mut Command, before: &str) -> (Process, Control) {
    let script = fixtures::fixture("noisy.js");
    let run = format!(
        "{before} {} run --name app -n 1 $OPTIONS {}",
        cluster::PHALANX,
        script.display()
    );
    shell.arg(run).env("XDG_RUNTIME_DIR", directory);
    let process = Process::start_with(std::mem::replace(shell, Command::new("true")));
    (process, Control::new(directory.join("phalanx/app.sock")))
}

fn status(control: &Control) -> Option<Value> {
    let reply = control.request("GET", "/v1/status", None, LIMIT).ok()?;
    Some(reply.json()).filter(is_settled)
}

/// The output of this name in the status.
fn output(control: &Control, name: &str) -> Option<Value> {
    let status = status(control)?;
    let outputs = status["outputs"].as_array().unwrap().clone();
    outputs.into_iter().find(|one| one["name"] == name)
}

fn target(control: &Control) -> Target {
    let status = wait::eventually(LIMIT, "the app is up", || status(control));
    status["listeners"][0]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn end(mut process: Process, control: &Control) {
    let stop = control.request("POST", "/v1/stop", None, LIMIT).unwrap();
    assert_eq!(stop.status, 200, "{stop:?}");
    process.wait_exit(LIMIT);
    process.wait_family_gone(LIMIT);
}

#[test]
fn lines_that_a_gone_reader_misses_are_counted_and_told() {
    let directory = directory();
    let mut shell = Command::new("sh");
    shell.arg("-c").env("OPTIONS", "");
    let script = fixtures::fixture("noisy.js");
    let run = format!(
        "{} run --name app -n 1 {} | head -n 1",
        cluster::PHALANX,
        script.display()
    );
    shell.arg(run).env("XDG_RUNTIME_DIR", directory.path());
    let process = Process::start(shell);
    let control = Control::new(directory.path().join("phalanx/app.sock"));
    let target = target(&control);
    wait::eventually(LIMIT, "the loss is counted", || {
        get(&target, "/?lines=10");
        let stdout = output(&control, "stdout")?;
        (stdout["dropped_lines"].as_u64()? >= 10).then_some(())
    });
    let stdout = output(&control, "stdout").unwrap();
    assert_eq!(stdout["because"], "its reader is gone");
    assert_eq!(output(&control, "stderr").unwrap()["dropped_lines"], 0);
    process.wait_for_line("phalanx: stdout cannot be written to any more", LIMIT);
    let mut shown = Command::new(cluster::PHALANX);
    shown.arg("status").env("XDG_RUNTIME_DIR", directory.path());
    let shown = Process::run(shown, LIMIT).expect_success().stdout;
    assert!(
        shown.contains("lines of output to stdout, the last because: its reader is gone"),
        "{shown}"
    );
    end(process, &control);
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_writing_goes_on_when_there_is_room() {
    if !phalanx_sys::identity::is_root() {
        return missing!("root, for a small disk");
    }
    let directory = directory();
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c"]);
    shell.env("OPTIONS", format!("--log-file={}/app.log", disk.display()));
    let disk = disk.display();
    let before = format!(
        "mount -t tmpfs -o size=256k none {disk} && head -c 150000 /dev/zero > {disk}/filler && exec"
    );
    let (process, control) = behind_a_shell(directory.path(), &mut shell, &before);
    let target = target(&control);
    let name = format!("file:{disk}/app.log");
    wait::eventually(LIMIT, "the disk is full", || {
        get(&target, "/?lines=300");
        let file = output(&control, &name)?;
        (file["dropped_lines"].as_u64()? > 0).then_some(())
    });
    let because = output(&control, &name).unwrap()["because"].clone();
    assert!(
        because.as_str().unwrap().contains("No space left"),
        "{because}"
    );
    // The disk, as the primary sees it.
    let there = PathBuf::from(format!("/proc/{}/root{disk}", process.pid()));
    fs::remove_file(there.join("filler")).unwrap();
    process.wait_for_line(
        "phalanx: could not write to the log file for a while",
        LIMIT,
    );
    let log = there.join("app.log");
    assert!(content(&log).contains("phalanx: ready"));
    let all = counted(&[log]);
    assert!(!all.is_empty());
    end(process, &control);
}

#[test]
fn under_systemd_lines_go_to_the_journal_with_the_fields_of_their_worker() {
    if !phalanx_sys::identity::is_root() {
        return missing!("root, for a journal of the test's own");
    }
    let directory = directory();
    let journal = directory.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let socket = UnixDatagram::bind(journal.join("socket")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c"]);
    shell.env("OPTIONS", "");
    // Standard error leads to the journal, standard output elsewhere.
    let before = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && \
         export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && exec",
        journal.display()
    );
    let (process, control) = behind_a_shell(directory.path(), &mut shell, &before);
    let pid = pid_in(&get(&target(&control), "/?lines=1"));
    let mut buffer = vec![0; 64 << 10];
    let count = socket.recv(&mut buffer).unwrap();
    let message = String::from_utf8(buffer[..count].to_vec()).unwrap();
    for field in [
        "SYSLOG_IDENTIFIER=app",
        "PHALANX_APP=app",
        "PHALANX_POSITION=0",
        "PHALANX_GENERATION=1",
        "PHALANX_STREAM=stderr",
        "PRIORITY=6",
    ] {
        assert!(
            message.lines().any(|line| line == field),
            "{field}: {message}"
        );
    }
    assert!(
        message.contains(&format!("MESSAGE=line 0 of pid {pid} ")),
        "{message}"
    );
    // The log, and what is not for the journal, are where they were.
    process.wait_for_line("phalanx: ready: 1 of 1 worker", LIMIT);
    process.wait_for_line(&format!("line 0 of pid {pid} "), LIMIT);
    let names: Vec<Value> = status(&control).unwrap()["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, ["stderr", "stdout", "journal"]);
    end(process, &control);
}
