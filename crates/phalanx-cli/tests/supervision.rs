//! The primary's care for its workers: respawn and backoff, signals, rolling restarts that fail,
//! limits, output, and what is left when either side dies.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cluster::{
    app, connect, expect_in_turn, get, ids, pid_in, restarts, try_get, wait_report, wait_state,
};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::control::{Control, Events};
use phalanx_testkit::lines::Stream;
use phalanx_testkit::wait::{eventually, now, try_eventually};
use phalanx_testkit::{App, LIMIT, Load, Process, Signal, Target, fixtures, missing, node, procs};
use serde_json::{Value, json};

/// A release: a script that a test replaces by the next one, in a directory of its own.
struct Release {
    directory: tempfile::TempDir,
}

impl Release {
    fn of(fixture: &str) -> Self {
        let release = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        release.deploy(fixture);
        release
    }

    fn script(&self) -> PathBuf {
        self.directory.path().join("server.js")
    }

    /// Puts the next version in the place of the one that is there, as a rename does it.
    fn deploy(&self, fixture: &str) {
        let next = self.directory.path().join("next");
        fs::copy(fixtures::fixture(fixture), &next).unwrap();
        fs::rename(next, self.script()).unwrap();
    }
}

/// An app whose workers tell what they know of themselves.
fn plain(workers: usize) -> App {
    app().workers(workers).script("http.js").start_ready()
}

#[test]
fn a_crashed_worker_is_replaced_at_once_and_its_successor_has_its_position() {
    let mut app = app().workers(2).script("crash.js").start();
    let target = app.address();
    let before = app.status();
    let events = app.events();
    try_get(&target, "/throw").unwrap_err();
    let scheduled = wait_report(&events, "respawn_scheduled");
    assert_eq!(scheduled["delay_ms"], 0);
    let spawned = wait_state(&events, "starting");
    assert_eq!(spawned["position"], scheduled["position"]);
    wait_state(&events, "ready");
    let after = app.wait_ready(LIMIT);
    assert_eq!(restarts(&after), restarts(&before) + 1);
    expect_in_turn(&mut app, &target, 2);
}

#[test]
fn a_worker_that_crashes_again_and_again_waits_longer_each_time_and_recovers_when_mended() {
    let release = Release::of("http.js");
    let mut app = app().workers(2).command([release.script()]).start();
    let target = app.address();
    let events = app.events();
    // Only what is started from now on is broken.
    release.deploy("exits-at-once.js");
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    let mut delays = Vec::new();
    while delays.len() < 6 {
        let scheduled = wait_report(&events, "respawn_scheduled");
        delays.push(scheduled["delay_ms"].as_u64().unwrap());
    }
    assert_eq!(delays[0], 0, "{delays:?}");
    assert!(
        delays.is_sorted() && delays[5] > 4 * delays[1],
        "{delays:?}"
    );
    // The others serve meanwhile.
    Load::new(target.clone())
        .clients(4)
        .requests(100)
        .run()
        .expect_none_lost();
    app.wait_for_line("cannot find my configuration", LIMIT);
    release.deploy("http.js");
    app.wait_ready(LIMIT);
    expect_in_turn(&mut app, &target, 2);
}

/// A position is in a crash loop when it waits 30 s; so this takes two minutes, and runs where
/// `PHALANX_TEST_LONG` is set, as `.ci/run` does it.
#[test]
fn a_crash_loop_is_reported_once_and_left_when_mended() {
    if !cluster::is_long() {
        return missing!("PHALANX_TEST_LONG=1, for a test of two minutes");
    }
    let limit = Duration::from_mins(3);
    let release = Release::of("http.js");
    let mut app = app().workers(2).command([release.script()]).start_ready();
    let events = app.events();
    release.deploy("exits-at-once.js");
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    events.wait_for(limit, "the crash loop", |event| {
        event["report"] == "crash_loop_entered"
    });
    events.wait_for(limit, "another try", |event| event["event"] == "exit");
    release.deploy("http.js");
    events.wait_for(limit, "the end of the loop", |event| {
        assert_ne!(event["report"], "crash_loop_entered");
        event["report"] == "crash_loop_left"
    });
    assert!(is_settled(&app.status()));
}

#[test]
fn workers_go_with_a_killed_primary_even_busy_ones() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "slow.js").start();
        let target = app.address();
        let mut busy = connect(&target).unwrap();
        cluster::ask(busy.as_mut(), "/busy?ms=600000").unwrap();
        get(&target, "/?ms=0");
        app.signal(Signal::KILL);
        app.wait_exit(LIMIT);
        app.wait_family_gone(LIMIT);
    }
}

#[test]
fn term_lets_workers_finish_and_a_second_term_changes_nothing() {
    let mut app = app().workers(2).script("slow.js").start();
    let target = app.address();
    let mut connection = connect(&target).unwrap();
    cluster::ask(connection.as_mut(), "/?ms=800&tag=last").unwrap();
    app.wait_for_line("in service last", LIMIT);
    let events = app.events();
    app.signal(Signal::TERM);
    wait_report(&events, "stop_started");
    app.signal(Signal::TERM);
    assert!(cluster::answer(connection.as_mut()).is_ok());
    assert!(app.wait_exit(LIMIT).success());
    app.wait_family_gone(LIMIT);
}

#[test]
fn int_is_graceful_and_twice_it_is_fast() {
    for (signals, is_answered) in [(1, true), (2, false)] {
        let mut app = app().workers(1).script("slow.js").start();
        let target = app.address();
        let mut connection = connect(&target).unwrap();
        let time = if is_answered { 800 } else { 60_000 };
        cluster::ask(connection.as_mut(), &format!("/?ms={time}&tag=last")).unwrap();
        app.wait_for_line("in service last", LIMIT);
        let events = app.events();
        app.signal(Signal::INT);
        wait_report(&events, "stop_started");
        for _ in 1..signals {
            app.signal(Signal::INT);
        }
        assert_eq!(cluster::answer(connection.as_mut()).is_ok(), is_answered);
        assert!(app.wait_exit(LIMIT).success());
        app.wait_family_gone(LIMIT);
    }
}

#[test]
fn quit_is_fast() {
    let mut app = app().workers(2).script("slow.js").start();
    let target = app.address();
    let mut connection = connect(&target).unwrap();
    cluster::ask(connection.as_mut(), "/?ms=60000&tag=last").unwrap();
    app.wait_for_line("in service last", LIMIT);
    app.signal(Signal::QUIT);
    assert!(app.wait_exit(LIMIT).success());
    app.wait_family_gone(LIMIT);
    assert!(cluster::answer(connection.as_mut()).is_err());
}

#[test]
fn the_verb_stop_waits_for_the_end_and_no_longer() {
    let mut app = plain(2);
    let began = now();
    app.verb(["stop"]).expect_success();
    // The primary gives a client two seconds to take its answer: this one has to take it.
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(app.try_exit().is_some_and(|status| status.success()));
}

#[test]
fn hup_and_usr2_reload() {
    let mut app = plain(2);
    for (number, signal) in [(2, Signal::HUP), (3, Signal::USR2)] {
        let before = app.worker_pids();
        let primary = app.pid();
        app.signal(signal);
        let status = app.wait_status(LIMIT, |status| {
            is_settled(status) && status["generation"] == number
        });
        assert!(
            pids(&status).iter().all(|pid| !before.contains(pid)),
            "{status}"
        );
        assert_eq!(status["pid"], primary);
    }
}

#[test]
fn ttin_adds_a_worker_and_ttou_removes_one() {
    let mut app = plain(2);
    let kept = app.worker_pids();
    app.signal(Signal::TTIN);
    app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 3);
    app.signal(Signal::TTOU);
    let status = app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 2);
    assert_eq!(pids(&status), kept);
}

#[test]
fn a_signal_during_the_start_is_obeyed() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut app = app().workers(4).script("http.js").start();
        app.status();
        app.signal(signal);
        app.wait_exit(LIMIT);
        app.wait_family_gone(LIMIT);
    }
    for signal in [Signal::HUP, Signal::USR2] {
        let mut app = app().workers(2).script("http.js").start();
        app.status();
        app.signal(signal);
        app.wait_status(LIMIT, |status| {
            is_settled(status) && status["generation"] == 2
        });
    }
}

#[test]
fn a_reload_during_a_reload_ends_with_the_newest_generation_everywhere() {
    let mut app = app().workers(3).script("http.js").start();
    let target = app.address();
    let load = Load::new(target.clone()).clients(4).start();
    let events = app.events();
    let first = app.start_verb(["reload"]);
    wait_report(&events, "rollout_started");
    let second = app.start_verb(["reload"]);
    second.finish(LIMIT).expect_success();
    // The first is either taken over by the second or told that it was.
    let first = first.finish(LIMIT);
    assert!(matches!(first.status.code(), Some(0 | 1)), "{first:?}");
    let status = app.wait_ready(LIMIT);
    let generations: Vec<&Value> = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| &worker["generation"])
        .collect();
    assert_eq!(generations, [&json!(3); 3], "{status}");
    load.stop().expect_none_lost();
}

#[test]
fn a_release_with_a_syntax_error_is_refused_and_the_old_one_serves_on() {
    for node in node::require_versions() {
        let release = Release::of("http.js");
        let mut app = app()
            .workers(2)
            .command([node.path.clone(), release.script()])
            .start();
        let target = app.address();
        let before = app.worker_pids();
        let load = Load::new(target.clone()).clients(8).start();
        release.deploy("syntax-error.js");
        let refused = app.verb(["reload"]);
        assert_eq!(refused.status.code(), Some(1), "{node:?} {refused:?}");
        assert!(
            refused.stderr.contains("SyntaxError"),
            "{node:?} {}",
            refused.stderr
        );
        let status = app.wait_ready(LIMIT);
        assert_eq!(pids(&status), before, "{node:?}");
        release.deploy("http.js");
        app.verb(["reload"]).expect_success();
        load.stop().expect_none_lost();
        expect_in_turn(&mut app, &target, 2);
    }
}

#[test]
fn a_release_that_is_never_ready_is_given_up_at_its_limit() {
    let release = Release::of("http.js");
    let mut app = app()
        .workers(2)
        .options(["--ready-timeout", "5s", "--kill-timeout", "500ms"])
        .command([release.script()])
        .start();
    let target = app.address();
    let before = app.worker_pids();
    let load = Load::new(target.clone()).clients(8).start();
    release.deploy("never-ready.js");
    let refused = app.verb(["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("thinking"), "{}", refused.stderr);
    assert_eq!(pids(&app.wait_ready(LIMIT)), before);
    load.stop().expect_none_lost();
}

#[test]
fn a_release_that_fails_at_the_second_position_goes_back_at_the_first() {
    let release = Release::of("http.js");
    let mut app = app()
        .workers(2)
        .options(["--kill-timeout", "500ms"])
        .command([release.script()])
        .start();
    let target = app.address();
    let load = Load::new(target.clone()).clients(8).start();
    let events = app.events();
    release.deploy("in-turn-fails.js");
    let refused = app.verb(["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("not at position 1"),
        "{}",
        refused.stderr
    );
    wait_report(&events, "rollout_failed");
    // What goes back runs the script that is there now: the operator puts the old one back first.
    release.deploy("http.js");
    app.wait_ready(LIMIT);
    load.stop().expect_none_lost();
    expect_in_turn(&mut app, &target, 2);
}

/// The most workers alive and the fewest ready, from the events of a reload.
fn extremes(events: &Events, workers: usize) -> (usize, usize) {
    let (mut alive, mut ready) = (workers, workers);
    let (mut most, mut fewest) = (alive, ready);
    let is_over = |event: &Value| event["report"] == "rollout_finished";
    while let Some(event) = events.next_before(LIMIT) {
        if event["report"] == "changed" {
            let (from, to) = (&event["from"], &event["to"]);
            alive = alive + usize::from(from.is_null()) - usize::from(to == "gone");
            ready =
                ready + usize::from(to == "ready") - usize::from(from == "ready" && to != "ready");
            most = most.max(alive);
            fewest = fewest.min(ready);
        }
        if is_over(&event) {
            break;
        }
    }
    (most, fewest)
}

#[test]
fn a_reload_keeps_within_surge_and_unavailability() {
    for (surge, unavailable, most, fewest) in [
        ("1", "0", 5, 4),
        ("2", "0", 6, 4),
        ("0", "1", 4, 3),
        ("50%", "25%", 6, 3),
    ] {
        let mut app = app()
            .workers(4)
            .options(["--max-surge", surge, "--max-unavailable", unavailable])
            .options(["--max-draining", "0"])
            .script("http.js")
            .start();
        let target = app.address();
        let load = Load::new(target).clients(4).start();
        let events = app.events();
        app.verb(["reload"]).expect_success();
        let (most_alive, fewest_ready) = extremes(&events, 4);
        assert_eq!(most_alive, most, "{surge} {unavailable}");
        assert!(
            fewest_ready >= fewest,
            "{surge} {unavailable}: {fewest_ready}"
        );
        load.stop().expect_none_lost();
    }
}

#[test]
fn five_hundred_idle_workers_start_shrink_to_one_and_stop() {
    const WORKERS: usize = 512;
    let program = cluster::example("http_server");
    let limit = Duration::from_mins(2);
    let mut app = app()
        .workers(1)
        .command([program.to_str().unwrap(), "1", "127.0.0.1:0"])
        .start();
    let target = app.address();
    let one = procs::fd_count(app.pid()).unwrap();
    let began = now();
    app.verb(["scale", "512"]).expect_success();
    let status = app.wait_ready(limit);
    let started = began.elapsed();
    assert_eq!(pids(&status).len(), WORKERS);
    Load::new(target.clone())
        .clients(4)
        .requests(600)
        .run()
        .expect_none_lost();
    app.verb(["scale", "1"]).expect_success();
    let whole = began.elapsed();
    assert_eq!(app.family().len(), 2, "the primary and one worker are left");
    let descriptors = try_eventually(LIMIT, || (procs::fd_count(app.pid())? <= one).then_some(()));
    assert!(
        descriptors.is_some(),
        "{one} before, now {:#?}",
        procs::fd_targets(app.pid())
    );
    get(&target, "/");
    assert!(app.stop().success());
    assert!(
        whole < limit,
        "{started:?} to start, {whole:?} with the shrinking"
    );
}

#[test]
fn what_a_worker_started_goes_with_it_when_it_is_killed() {
    let mut app = app().workers(1).script("has-child.js").start();
    let target = app.address();
    let child = |body: String| {
        body.split_once("child = ")
            .unwrap()
            .1
            .trim()
            .parse::<u32>()
            .unwrap()
    };
    let orphan = child(get(&target, "/"));
    assert!(procs::is_alive(orphan));
    let [worker] = app.worker_pids().try_into().unwrap();
    app.kill_worker(worker);
    assert!(procs::wait_gone(orphan, LIMIT));
    app.wait_ready(LIMIT);
    let last = child(get(&target, "/"));
    assert!(app.stop().success());
    assert!(!procs::is_alive(last));
}

#[test]
fn output_is_passed_on_raw_where_it_is_no_terminal() {
    let mut app = app().workers(2).script("noisy.js").start();
    let target = app.address();
    let [one, two] =
        [get(&target, "/?lines=3"), get(&target, "/?lines=3")].map(|body| pid_in(&body));
    for pid in [one, two] {
        for line in 0..3 {
            app.wait_for_line(&format!("line {line} of pid {pid} "), LIMIT);
        }
    }
    let (stdout, stderr) = (
        app.lines().text(Stream::Stdout),
        app.lines().text(Stream::Stderr),
    );
    assert!(
        stdout
            .lines()
            .all(|line| line.starts_with("line ") || line.starts_with("listening on")),
        "{stdout}"
    );
    assert!(
        stderr
            .lines()
            .all(|line| line.starts_with("line ") || line.starts_with("phalanx: ")),
        "{stderr}"
    );
}

#[test]
fn output_on_a_terminal_is_marked_with_the_position() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let mut command = Command::new("script");
    let run = format!(
        "{} run --name app -n 2 {}",
        cluster::PHALANX,
        fixtures::fixture("http.js").display()
    );
    command
        .args(["-qefc", &run, "/dev/null"])
        .env("XDG_RUNTIME_DIR", directory.path());
    let mut process = Process::start(command);
    process.wait_for_line("[0] listening on ", LIMIT);
    process.wait_for_line("[1] listening on ", LIMIT);
    process.wait_for_line("phalanx: ready: 2 of 2 workers", LIMIT);
    let status = control_of(&directory)
        .request("GET", "/v1/status", None, LIMIT)
        .unwrap()
        .json();
    procs::signal(primary_pid(&status), Signal::TERM);
    assert!(process.wait_exit(LIMIT).success());
    process.wait_family_gone(LIMIT);
}

fn primary_pid(status: &Value) -> u32 {
    u32::try_from(status["pid"].as_u64().unwrap()).unwrap()
}

/// The control socket of the app `app` in this runtime directory.
fn control_of(directory: &tempfile::TempDir) -> Control {
    Control::new(directory.path().join("phalanx/app.sock"))
}

#[test]
fn a_reader_of_the_output_that_stops_does_not_stop_the_workers() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let script = format!(
        "{} run --name app -n 2 {} | sh -c 'echo reader $$ >&2; exec cat >/dev/null'",
        cluster::PHALANX,
        fixtures::fixture("noisy.js").display()
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .env("XDG_RUNTIME_DIR", directory.path());
    let mut process = Process::start(command);
    let line = process.wait_for_line("reader ", LIMIT);
    let reader = line["reader ".len()..].parse().unwrap();
    process.wait_for_line("phalanx: ready: 2 of 2 workers", LIMIT);
    assert!(procs::signal(reader, Signal::STOP));
    let control = control_of(&directory);
    let status = control
        .request("GET", "/v1/status", None, LIMIT)
        .unwrap()
        .json();
    let target: Target = status["listeners"][0]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    // 4 MB on each stream: more than pipes and queues hold.
    let load = Load::new(target)
        .path("/?lines=2000")
        .clients(2)
        .requests(20);
    load.run().expect_none_lost();
    assert!(is_settled(
        &control
            .request("GET", "/v1/status", None, LIMIT)
            .unwrap()
            .json()
    ));
    assert!(procs::signal(reader, Signal::CONT));
    process.wait_for_line(
        "lines of worker output: the reader of stdout is too slow",
        LIMIT,
    );
    procs::signal(primary_pid(&status), Signal::TERM);
    assert!(process.wait_exit(LIMIT).success());
    process.wait_family_gone(LIMIT);
}

#[test]
fn a_worker_that_ignores_being_stopped_is_killed_at_its_limit() {
    let mut app = app()
        .workers(2)
        .options(["--drain-timeout", "200ms", "--kill-timeout", "300ms"])
        .script("stubborn.js")
        .start();
    let target = app.address();
    let mut kept: Vec<_> = (0..2).map(|_| connect(&target).unwrap()).collect();
    for connection in &mut kept {
        connection.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    }
    let before = app.worker_pids();
    get(&target, "/");
    app.verb(["reload"]).expect_success();
    assert!(before.iter().all(|pid| !procs::is_alive(*pid)));
    assert!(app.stop().success());
}

#[test]
fn a_stopped_worker_is_replaced_by_a_reload_and_killed() {
    let mut app = app()
        .workers(2)
        .options(["--drain-timeout", "300ms", "--kill-timeout", "300ms"])
        .script("http.js")
        .start();
    let target = app.address();
    let stopped = app.worker_pids()[0];
    assert!(procs::signal(stopped, Signal::STOP));
    let state = || procs::stat(stopped).filter(|stat| stat.state == 'T');
    eventually(LIMIT, "a stopped process", state);
    let load = Load::new(target.clone())
        .clients(40)
        .request_limit(LIMIT)
        .start();
    load.wait_for_more(100, LIMIT);
    app.verb(["reload"]).expect_success();
    assert!(!procs::is_alive(stopped));
    load.stop().expect_none_lost();
    expect_in_turn(&mut app, &target, 2);
}

#[test]
fn ids_are_never_used_again_and_positions_are() {
    let mut app = app().workers(2).script("crash.js").start();
    let target = app.address();
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..3 {
        let status = app.wait_ready(LIMIT);
        for worker in status["workers"].as_array().unwrap() {
            let (id, pid) = (
                worker["id"].as_u64().unwrap(),
                worker["pid"].as_u64().unwrap(),
            );
            assert_eq!(*seen.entry(id).or_insert(pid), pid, "{status}");
            assert!(worker["position"].as_u64().unwrap() < 2, "{status}");
        }
        let before = ids(&status);
        try_get(&target, "/crash").unwrap_err();
        app.wait_status(LIMIT, |status| is_settled(status) && ids(status) != before);
    }
}
