//! `phalanx run` itself: what it prints, what passes through it, and the ways to command it.

#![allow(
    clippy::expect_used,
    reason = "a failed expectation of a test is a panic"
)]

use crate::support;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::thread;

use phalanx_testkit::lines::Stream;
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{LIMIT, Load, Process, Signal, Target, procs};
use serde_json::Value;
use support::{app, changeable, fixture, phalanx};

#[test]
fn the_start_is_told_with_pid_address_and_dispatch() {
    let app = app().workers(2).options(["--dispatch", "handoff"]);
    let mut app = app.script("http.js").start_ready();
    let pid = app.pid();
    app.wait_for_line("phalanx: ready: 2 of 2 workers", LIMIT);
    let stderr = app.lines().text(Stream::Stderr);
    let address = app.address();
    for line in [
        format!("phalanx: app: primary {pid}, 2 workers, round-robin, dispatch handoff\n"),
        format!("phalanx: listening on {address} (handoff)\n"),
    ] {
        assert!(stderr.contains(&line), "{line:?} is not in:\n{stderr}");
    }
    assert!(app.stop().success());
}

#[test]
fn an_app_is_called_after_its_script_unless_it_is_given_a_name() {
    let directory = support::directory();
    let script = changeable(directory.path(), "http.js");
    let words = ["run", "-n", "1", script.to_str().unwrap()];
    for (variable, name) in [(None, "server"), (Some("blue"), "blue")] {
        let mut command = phalanx(directory.path(), &words);
        command.envs(variable.map(|name| ("PHALANX_NAME", name)));
        let mut process = Process::start(command);
        process.wait_for_line(&format!("phalanx: {name}: primary "), LIMIT);
        process.wait_for_line("ready: 1 of 1", LIMIT);
        assert!(directory.path().join(format!("{name}.sock")).exists());
        process.signal(Signal::TERM);
        assert!(process.wait_exit(LIMIT).success());
    }
}

#[test]
fn the_environment_of_node_chooses_the_policy_unless_the_option_does() {
    for (options, policy) in [(&[][..], "none"), (&["--policy", "rr"], "round-robin")] {
        let app = app()
            .workers(1)
            .options(options)
            .env("NODE_CLUSTER_SCHED_POLICY", "none");
        let mut app = app.script("http.js").start_ready();
        assert_eq!(app.status()["policy"], policy);
        assert!(app.stop().success());
    }
}

#[test]
fn the_options_reach_the_workers() {
    let directory = support::directory();
    let print = "console.log(process.env.COLOUR, process.cwd(), process.argv[2]); require('http').createServer().listen(0)";
    fs::write(directory.path().join("print.js"), print).unwrap();
    let app = app()
        .workers(1)
        .options(["--env", "COLOUR=blue", "--cwd"])
        .option(directory.path());
    let mut app = app.command(["print.js", "--name"]).start_ready();
    let here = directory.path().canonicalize().unwrap();
    app.wait_for_line(&format!("blue {} --name", here.display()), LIMIT);
    assert!(!app.lines().text(Stream::Stderr).contains("blue"));
    assert!(app.stop().success());
}

#[test]
fn the_log_is_json_where_that_is_asked_for_and_silent_where_nothing_is_wrong() {
    let mut told = app()
        .workers(1)
        .options(["--log-format", "json", "-v"])
        .script("http.js")
        .start_ready();
    let mut quiet = app()
        .workers(1)
        .option("-q")
        .script("http.js")
        .start_ready();
    assert!(told.stop().success() && quiet.stop().success());
    let stderr = told.lines().text(Stream::Stderr);
    let lines: Vec<Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for line in &lines {
        assert!(
            line["time"].is_u64() && line["level"].is_string() && line["event"].is_string(),
            "{line}"
        );
    }
    for event in ["start", "fork", "listener", "ready", "fleet", "exit"] {
        assert!(
            lines.iter().any(|line| line["event"] == event),
            "{event} is not in:\n{stderr}"
        );
    }
    let stderr = quiet.lines().text(Stream::Stderr);
    // A machine that is overloaded is something wrong.
    let overload = ["the primary was late by", "the primary did not run for"];
    let mut lines = stderr
        .lines()
        .filter(|line| !overload.iter().any(|part| line.contains(part)));
    assert_eq!(lines.next(), None);
}

#[test]
fn crashes_and_respawns_are_told() {
    let mut app = app().workers(1).script("http.js").start_ready();
    let pid = app.worker_pids()[0];
    app.kill_worker(pid);
    app.wait_for_line("phalanx: worker 1 at position 0 crashed: signal 9", LIMIT);
    app.wait_for_line(
        "phalanx: worker 2 at position 0 is starting: respawn",
        LIMIT,
    );
    let status = app.wait_status(LIMIT, |status| status["workers"][0]["id"] == 2);
    assert_eq!(status["workers"][0]["restarts"], 1, "{status:#}");
}

#[test]
fn output_of_workers_passes_through_unchanged() {
    let mut app = app().workers(1).script("noisy.js").start_ready();
    let report = Load::new(app.address())
        .path("/?lines=500")
        .clients(1)
        .requests(2)
        .run();
    report.expect_none_failed();
    assert!(app.stop().success());
    for stream in [Stream::Stdout, Stream::Stderr] {
        let text = app.lines().text(stream);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("line "))
            .collect();
        assert_eq!(lines.len(), 1000);
        assert!(lines.iter().all(|line| line.len() == 99), "{stream:?}");
        assert!(lines[500].starts_with("line 0 of pid"), "{}", lines[500]);
    }
}

/// A primary whose standard output is a pipe that nobody reads yet: the pipe, and where the app listens.
fn start_unread(directory: &Path) -> (Process, File, Target) {
    let fifo = directory.join("out");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .is_ok_and(|status| status.success())
    );
    let pipe = File::options().read(true).write(true).open(&fifo);
    let script = r#"exec "$0" run -n 2 "$1" >"$2""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, support::PHALANX, &fixture("noisy.js")]);
    command.arg(&fifo).env("PHALANX_RUNTIME_DIR", directory);
    let run = Process::start(command);
    run.wait_for_line("phalanx: ready: 2 of 2", LIMIT);
    let line = run.wait_for_line("phalanx: listening on ", LIMIT);
    let address = line
        .split(' ')
        .nth(3)
        .and_then(|address| address.parse().ok());
    (run, pipe.expect("a pipe"), address.expect("an address"))
}

#[test]
fn a_reader_that_stands_still_blocks_neither_workers_nor_the_primary() {
    let directory = support::directory();
    let (mut run, mut pipe, address) = start_unread(directory.path());
    let load = Load::new(address)
        .path("/?lines=10000")
        .clients(2)
        .requests(10);
    load.run().expect_none_failed();
    let status = Process::run(phalanx(directory.path(), &["status"]), LIMIT).expect_success();
    assert!(
        status.stdout.contains("2 of 2 workers ready"),
        "{}",
        status.stdout
    );

    // Both outputs are written in turn: all of one is there, so the other has overflowed.
    let all_are_there = || {
        let lines = run.lines().all();
        let printed = lines.iter().filter(|line| line.text.starts_with("line "));
        (printed.count() == 10 * 10_000).then_some(())
    };
    eventually(LIMIT, "all lines of the other output", all_are_there);
    let reader = thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        // The write end that this file is too keeps the end from being seen.
        while !text.ends_with(b"the end\n") {
            let count = pipe.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&text).lines().count()
    });
    run.wait_for_line(
        "lines of worker output: the reader of stdout is too slow",
        LIMIT,
    );
    run.signal(Signal::TERM);
    assert!(run.wait_exit(LIMIT).success());
    fs::write(directory.path().join("out"), "the end\n").unwrap();
    let lines = reader.join().unwrap();
    assert!(lines > 1000, "{lines}");
}

#[test]
fn the_end_does_not_wait_for_a_reader_that_stands_still() {
    let directory = support::directory();
    let (mut run, _unread, address) = start_unread(directory.path());
    let load = Load::new(address)
        .path("/?lines=2000")
        .clients(1)
        .requests(1);
    load.run().expect_none_failed();
    run.signal(Signal::TERM);
    assert_eq!(run.wait_exit(LIMIT).code(), Some(0));
    run.wait_family_gone(LIMIT);
}

#[test]
fn lines_on_standard_input_are_obeyed() {
    let app = app()
        .workers(1)
        .options(["--control", "stdin"])
        .with_stdin();
    let mut app = app.script("http.js").start_ready();
    app.write_line("reload");
    app.wait_for_line("phalanx: reload: done", LIMIT);
    assert_eq!(app.wait_ready(LIMIT)["generation"], 2);
    app.write_line("scale +2");
    app.wait_for_line("phalanx: scale: done", LIMIT);
    assert_eq!(app.worker_pids().len(), 3);
    app.write_line("frobnicate");
    app.wait_for_line("\"frobnicate\" is no command: use one of", LIMIT);
    app.write_line("status");
    app.wait_for_line("phalanx: 3 of 3 workers ready", LIMIT);
    app.write_line("stop");
    assert_eq!(app.wait_exit(LIMIT).code(), Some(0));
    app.wait_family_gone(LIMIT);
}

#[test]
fn the_end_of_standard_input_ends_nothing() {
    let app = app()
        .workers(1)
        .options(["--control", "stdin"])
        .with_stdin();
    let mut app = app.script("http.js").start_ready();
    app.close_stdin();
    app.verb(["reload"]).expect_success();
    assert!(app.stop().success());
}

#[test]
fn deletion_of_the_pid_file_reloads_and_brings_it_back() {
    let directory = support::directory();
    let file = directory.path().join("app.pid");
    let app = app()
        .workers(2)
        .options(["--control", "pid-file", "--pid-file"])
        .option(&file);
    let mut app = app.script("http.js").start_ready();
    for generation in [2, 3] {
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("{}\n", app.pid())
        );
        fs::remove_file(&file).unwrap();
        app.wait_status(LIMIT, |status| {
            status["generation"] == generation && status["reloading"] == false
        });
        phalanx_testkit::wait::eventually(LIMIT, "the pid file", || file.exists().then_some(()));
    }
    assert!(app.stop().success());
    assert!(!file.exists());
}

#[test]
fn a_deletion_that_does_not_lead_to_new_workers_is_told() {
    let directory = support::directory();
    let file = directory.path().join("app.pid");
    let script = changeable(directory.path(), "http.js");
    let app = app()
        .workers(1)
        .options(["--control", "pid-file", "--pid-file"])
        .option(&file);
    let mut app = app.command([&script]).start_ready();
    let before = app.worker_pids();
    fs::write(&script, "throw new Error('no good')").unwrap();
    fs::remove_file(&file).unwrap();
    app.wait_for_line("phalanx: reload: not done: generation 2 failed", LIMIT);
    phalanx_testkit::wait::eventually(LIMIT, "the pid file", || file.exists().then_some(()));
    assert_eq!(app.worker_pids(), before);
    assert!(app.stop().success());
}

#[test]
fn signals_reload_scale_and_stop() {
    let mut app = app().workers(1).script("http.js").start_ready();
    app.signal(Signal::USR2);
    app.wait_status(LIMIT, |status| {
        status["generation"] == 2 && status["reloading"] == false
    });
    app.signal(Signal::TTIN);
    app.wait_status(LIMIT, |status| {
        status["workers"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    });
    app.wait_ready(LIMIT);
    app.signal(Signal::TTOU);
    app.wait_status(LIMIT, |status| {
        status["workers"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    });
    app.signal(Signal::INT);
    assert_eq!(app.wait_exit(LIMIT).code(), Some(0));
    app.wait_family_gone(LIMIT);
}

#[test]
fn as_pid_1_it_reaps_the_orphans_of_its_container() {
    if phalanx_testkit::require("unshare").is_none() || !phalanx_sys::identity::is_root() {
        return;
    }
    let directory = support::directory();
    let orphan = "require('child_process').spawn('sh', ['-c', 'true & exec true'], {stdio: 'ignore'}); \
                  require('child_process').execSync('sh -c \"(true &) ; (exec true &)\"'); \
                  require('http').createServer().listen(0)";
    fs::write(directory.path().join("orphans.js"), orphan).unwrap();
    let mut command = in_a_container(directory.path());
    command.arg(directory.path().join("orphans.js"));
    let run = Process::start(command);
    run.wait_for_line("primary 1, 1 worker", LIMIT);
    run.wait_for_line("ready: 1 of 1 worker", LIMIT);
    let primary = procs::children(run.pid())[0];
    let no_zombies = || {
        let all = procs::children(primary);
        let zombies = all.iter().filter(|pid| !procs::is_alive(**pid)).count();
        (zombies == 0).then_some(())
    };
    phalanx_testkit::wait::eventually(LIMIT, "no zombies", no_zombies);
}

/// A primary in another container may share the place of the scripts, and sees no process of this one.
#[test]
fn a_primary_in_a_container_leaves_the_scripts_of_others() {
    if phalanx_testkit::require("unshare").is_none() || !phalanx_sys::identity::is_root() {
        return;
    }
    let mut app = app().workers(1).script("http.js").start_ready();
    let directory = support::directory();
    let script = changeable(directory.path(), "http.js");
    let mut command = in_a_container(directory.path());
    command.arg(script).env("PORT", "0");
    let run = Process::start(command);
    run.wait_for_line("ready: 1 of 1 worker", LIMIT);
    let own = format!("phalanx-{}-", app.pid());
    let scripts = fs::read_dir("/run").unwrap().flatten();
    let mut scripts = scripts.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own));
    assert!(scripts.any(|entry| entry.path().join("worker.cjs").exists()));
    assert!(app.stop().success());
}

/// `phalanx run -n 1` as process 1 of a namespace of pids.
fn in_a_container(runtime: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args([support::PHALANX, "run", "-n", "1"]);
    command.env("PHALANX_RUNTIME_DIR", runtime);
    command
}

#[test]
fn a_listener_that_nobody_uses_is_told() {
    if phalanx_testkit::node::require().is_none() {
        return;
    }
    let bind = format!("127.0.0.1:{}", phalanx_testkit::free_port());
    let app = app()
        .workers(1)
        .options(["--bind", &bind, "--publish", "1:9999"])
        .script("http.js")
        .start_ready();
    app.wait_for_line(&format!("--bind {bind}: no worker uses it yet"), LIMIT);
    app.wait_for_line("--publish 1:9999: no worker uses it yet", LIMIT);
}
