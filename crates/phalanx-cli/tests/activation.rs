//! Programs that are given their listeners as open descriptors, as systemd and einhorn give them.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::time::Duration;

use cluster::{
    app, connect, expect_in_turn, expect_none_lost_in_changes, expect_served_after_a_kill,
    free_port, get_json, try_get, wait_report,
};
use phalanx_testkit::app::{AppBuilder, is_settled, pids};
use phalanx_testkit::{App, LIMIT, Load, Process, Signal, Target, fixtures, procs, require, wait};

/// The fixture with these words behind it, on a port that the kernel chooses.
fn activated(words: &[&str]) -> AppBuilder {
    bare(words).options(["--bind", "127.0.0.1:0"])
}

fn bare(words: &[&str]) -> AppBuilder {
    let script = fixtures::fixture("programs/activated.py");
    let builder = app().workers(2).command(["python3"]).arg(script);
    words.iter().fold(builder, AppBuilder::arg)
}

/// Python is there wherever Node's own build tools are, but it is no part of what phalanx needs.
macro_rules! needs_python {
    () => {
        if require("python3").is_none() {
            return;
        }
    };
}

#[test]
fn a_program_is_given_its_listeners_as_systemd_gives_them() {
    needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let mut app = bare(&["notify"])
        .options(["--bind", "web=127.0.0.1:0", "--bind"])
        .option(format!("unix:{}", path.display()))
        .env("LISTEN_PID", "1")
        .env("EINHORN_SOCK_PATH", "/nowhere")
        .start_ready();
    let addresses = app.addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in &addresses {
        let env = get_json(address, "/env");
        assert_eq!(env["LISTEN_FDS"], "2");
        assert_eq!(env["LISTEN_FDNAMES"], "web:listener");
        assert_eq!(env["EINHORN_FD_COUNT"], "2");
        assert_eq!(env["EINHORN_FD_FAMILY_1"], "AF_UNIX");
        assert!(env["NODE_CHANNEL_FD"].is_null(), "{env}");
        let pid: u32 = env["LISTEN_PID"].as_str().unwrap().parse().unwrap();
        assert!(app.worker_pids().contains(&pid));
    }
    app.wait_for_line("blocking [True, True]", LIMIT);
    let status = app.status();
    assert_eq!(status["workers"][0]["says"], "serves");
    assert!(app.stop().success());
    assert!(!path.exists(), "the socket's file goes with the primary");
}

#[test]
fn a_program_that_knows_einhorn_is_ready_when_it_acknowledges() {
    needs_python!();
    let mut app = activated(&["einhorn", "ack"]).start_ready();
    let target = app.address();
    expect_in_turn_or_shared(&mut app, &target);
    let path = app.directory().join("phalanx/app.ack");
    assert!(path.exists());
    app.stop();
    assert!(!path.exists());
}

/// Each worker answers: in turn where the kernel dispatches, else at least once.
#[test]
fn acknowledgements_that_never_come_take_a_bounded_part_of_the_primary() {
    needs_python!();
    let app = activated(&["einhorn", "ack"]).start_ready();
    let path = app.directory().join("phalanx/app.ack");
    let before = procs::fd_count(app.pid()).unwrap();
    // The kernel's queue is full at some point.
    let silent = |_| {
        let socket = std::os::unix::net::UnixStream::connect(&path).ok()?;
        Some(socket)
    };
    let silent: Vec<_> = (0..120).map_while(silent).collect();
    assert!(silent.len() > 100, "{}", silent.len());
    let some = || (procs::fd_count(app.pid()).unwrap() >= before + 60).then_some(());
    wait::eventually(LIMIT, "some are accepted", some);
    // Whoever comes now waits until their time is over, and is heard then.
    app.verb(["reload"]).expect_success();
    assert!(procs::fd_count(app.pid()).unwrap() <= before + 90);
}

fn expect_in_turn_or_shared(app: &mut App, target: &Target) {
    if app.status()["listeners"][0]["dispatch"] == "kernel" && phalanx_sys::identity::is_root() {
        expect_in_turn(app, target, 5);
    } else {
        Load::new(target.clone())
            .requests(20)
            .run()
            .expect_none_lost();
    }
}

#[test]
fn a_program_that_is_to_speak_and_does_not_is_never_ready() {
    needs_python!();
    let output = activated(&["mute"])
        .options(["--ready-timeout", "1s", "--ready", "notify"])
        .run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
}

#[test]
fn a_program_that_says_nothing_is_ready_when_it_waits_for_connections_or_at_once() {
    needs_python!();
    for ready in ["auto", "listen", "exec"] {
        let mut app = activated(&["mute"])
            .options(["--ready", ready])
            .start_ready();
        let target = app.address();
        if ready != "exec" {
            wait_for_both(&app, "given");
        }
        try_get(&target, "/").unwrap();
    }
}

#[test]
fn a_program_that_speaks_is_ready_when_it_says_so_and_not_before() {
    needs_python!();
    let mut app = activated(&["late"]).start_ready();
    wait_for_both(&app, "saying so");
    assert!(app.stop().success());
}

#[test]
fn a_program_is_ready_when_it_answers_well_itself_and_not_when_others_do() {
    needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let mut app = activated(&["mute"])
        // Both the time in which Python starts, on a busy machine too, and that after which the sick are given up.
        .options(["--ready", "http:/health", "--ready-timeout", "10s"])
        .cwd(directory.path())
        .start_ready();
    let target = app.address();
    let load = Load::new(target).clients(2).request_limit(LIMIT).start();
    load.wait_until_ok(20, LIMIT);
    app.verb(["reload"]).expect_success();
    // Those that serve answer 503 as well, and are asked no more.
    std::fs::write(directory.path().join("sick"), "").unwrap();
    let output = app.verb(["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    std::fs::remove_file(directory.path().join("sick")).unwrap();
    app.wait_ready(LIMIT);
    let victim = app.worker_pids()[0];
    load.wait_for_more(20, LIMIT);
    load.stop().expect_none_lost();
    app.kill_worker(victim);
    app.wait_status(LIMIT, |status| {
        is_settled(status) && !pids(status).contains(&victim)
    });
}

/// Both workers have written it, before they were ready; what they write arrives here in its own time.
fn wait_for_both(app: &App, part: &str) {
    let both = || (count(app, part) == 2).then_some(());
    phalanx_testkit::wait::eventually(LIMIT, "a line of both workers", both);
}

fn count(app: &App, part: &str) -> usize {
    let lines = app.lines().all();
    lines.iter().filter(|line| line.text.contains(part)).count()
}

#[test]
fn reloads_and_scaling_lose_nothing() {
    needs_python!();
    let mut app = activated(&["notify"]).start_ready();
    expect_none_lost_in_changes(&mut app);
    app.wait_for_line("finished", LIMIT);
}

#[test]
fn a_program_that_drops_everything_at_its_stop_signal_has_nothing_left_to_drop() {
    needs_python!();
    let mut app = activated(&["notify", "rude"]).start_ready();
    let target = app.address();
    let load = Load::new(target)
        .path("/slow")
        .clients(6)
        .request_limit(LIMIT)
        .start();
    load.wait_until_ok(10, LIMIT);
    for words in [&["reload"][..], &["scale", "3"], &["scale", "1"]] {
        app.verb(words).expect_success();
        load.wait_for_more(10, LIMIT);
    }
    load.stop().expect_none_lost();
}

#[test]
fn a_kept_connection_holds_up_a_worker_only_for_so_long() {
    needs_python!();
    let mut app = activated(&["notify", "rude"])
        // Requests that are under way when it begins are answered by then, on a busy machine too.
        .options(["--settle-timeout", "5s"])
        .start_ready();
    let target = app.address();
    // It sends nothing, so it would be waited for as long as that is allowed.
    let _held: Vec<_> = (0..4).map(|_| connect(&target).unwrap()).collect();
    let load = Load::new(target).request_limit(LIMIT).start();
    load.wait_until_ok(10, LIMIT);
    app.verb(["scale", "1"]).expect_success();
    load.stop().expect_none_lost();
}

#[test]
fn a_killed_worker_is_replaced_and_what_waited_for_it_is_served() {
    needs_python!();
    expect_served_after_a_kill(&mut activated(&["notify"]).start_ready());
}

#[test]
fn a_worker_that_asks_for_patience_may_start_slowly() {
    needs_python!();
    let mut app = activated(&["slow", "notify"])
        .options(["--ready-timeout", "5s"])
        .start_ready();
    assert!(app.stop().success());
}

#[test]
fn a_worker_that_stops_to_ping_its_watchdog_is_replaced() {
    needs_python!();
    let mut app = activated(&["notify", "pings"])
        // One that does ping is not late by so much, on a busy machine either.
        .options(["--watchdog", "6s"])
        .start_ready();
    let target = app.address();
    let env = get_json(&target, "/env");
    assert_eq!(env["WATCHDOG_USEC"], "6000000");
    assert_eq!(env["WATCHDOG_PID"], env["LISTEN_PID"]);
    let events = app.events();
    try_get(&target, "/hang").unwrap();
    let error = events.wait_for(LIMIT, "an error", |event| event["event"] == "error");
    assert!(
        error["message"].as_str().unwrap().contains("watchdog"),
        "{error}"
    );
    wait_report(&events, "respawn_scheduled");
    app.wait_ready(LIMIT);
}

#[test]
fn a_worker_cannot_speak_for_another() {
    needs_python!();
    let mut app = activated(&["notify"]).start_ready();
    let env = get_json(&app.address(), "/env");
    let path = env["NOTIFY_SOCKET"].as_str().unwrap();
    let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
    stranger
        .send_to(b"STATUS=stolen\nSTOPPING=1", path)
        .unwrap();
    app.wait_for_line("a stranger tried to speak for a worker", LIMIT);
    let status = app.wait_ready(Duration::from_secs(5));
    assert!(
        status["workers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["says"] == "serves")
    );
    assert!(app.worker_pids().into_iter().all(procs::is_alive));
}

#[test]
fn who_is_gone_when_he_is_heard_has_said_nothing() {
    needs_python!();
    let mut app = activated(&["notify"]).start_ready();
    let worker = app.worker_pids()[0];
    let env = get_json(&app.address(), "/env");
    let path = env["NOTIFY_SOCKET"].as_str().unwrap();
    // He sends while the primary stands still, and is gone before it goes on.
    app.signal(Signal::STOP);
    let code = "import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
                s.sendto(b'STATUS=stolen\\nSTOPPING=1',sys.argv[1])";
    let mut forger = std::process::Command::new("python3");
    forger.args(["-c", code, path]);
    Process::run(forger, LIMIT).expect_success();
    app.signal(Signal::CONT);
    app.wait_for_line("a stranger tried to speak for a worker", LIMIT);
    let status = app.wait_ready(LIMIT);
    assert_eq!(status["workers"][0]["says"], "serves", "{status}");
    assert!(app.worker_pids().contains(&worker));
}

#[test]
fn a_node_script_gets_the_bound_listener_that_it_listens_on() {
    let port = free_port();
    let mut app = app()
        .workers(2)
        .option("--bind")
        .option(format!("127.0.0.1:{port}"))
        .env("PORT", port.to_string())
        .script("http.js")
        .start_ready();
    let target = app.address();
    expect_in_turn(&mut app, &target, 3);
    assert_eq!(app.status()["listeners"].as_array().unwrap().len(), 1);
    app.verb(["reload"]).expect_success();
    expect_in_turn(&mut app, &target, 3);
}

#[test]
fn a_shell_between_a_worker_and_its_server_is_told_of() {
    needs_python!();
    let mut app = app()
        .workers(1)
        .options(["--bind", "127.0.0.1:0", "--ready", "notify"])
        .command([
            "sh",
            "-c",
            "python3 -c 'import signal; signal.pause()'; true",
        ])
        .start();
    app.wait_for_line("LISTEN_PID names the process that was started", LIMIT);
    app.stop();
}
