//! Clusters of Node and of Rust under load, while workers are replaced, added, removed, stopped and
//! killed. What may be lost is nothing, save for what a killed worker had in service.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::process::Command;
use std::time::Duration;

use cluster::{app, connect, expect_in_turn, get, pid_in};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::load::Failure;
use phalanx_testkit::wait::{eventually, try_eventually};
use phalanx_testkit::{
    App, LIMIT, Load, Mode, Process, Report, Signal, Target, node, procs, require,
};

/// How many connections may be in service or on their way to one worker: one a client.
const CLIENTS: usize = 8;
/// More clients than the primary passes to one worker that does not answer.
const MANY_CLIENTS: usize = 40;

/// Node servers of these majors, and the Rust example.
fn servers(majors: &[u32]) -> Vec<(String, AppBuilder)> {
    let of_node = node::require_versions()
        .into_iter()
        .filter(|node| majors.contains(&node.major));
    let mut servers: Vec<_> = of_node
        .map(|node| (format!("Node {}", node.major), app().node(&node, "http.js")))
        .collect();
    servers.push(("Rust".to_owned(), app().command(rust_server())));
    servers
}

/// The Rust example, with hardly any work for a request.
fn rust_server() -> [String; 3] {
    let program = cluster::example("http_server").to_str().unwrap().to_owned();
    [program, "10".to_owned(), "127.0.0.1:0".to_owned()]
}

fn load(target: &Target) -> Load {
    Load::new(target.clone())
        .clients(CLIENTS)
        .request_limit(LIMIT)
}

/// Lets this much time pass: for what has to happen at a certain rate.
fn rest(time: Duration) {
    try_eventually(time, || None::<()>);
}

#[test]
fn five_reloads_lose_nothing() {
    let by = |dispatch: &'static str| {
        let servers = servers(&[20, 26]).into_iter();
        servers.map(move |(server, app)| {
            (
                format!("{server}, {dispatch}"),
                app.options(["--dispatch", dispatch]),
            )
        })
    };
    for (server, builder) in by("auto").chain(by("handoff")) {
        let mut app = builder.workers(2).start();
        let target = app.address();
        let load = load(&target).start();
        for _ in 0..5 {
            load.wait_for_more(50, LIMIT);
            app.verb(["reload"]).expect_success();
        }
        load.wait_for_more(50, LIMIT);
        expect_none_lost(&server, &load.stop());
        assert_eq!(app.status()["generation"], 6, "{server}");
        assert!(app.stop().success(), "{server}");
    }
}

#[track_caller]
fn expect_none_lost(server: &str, report: &Report) {
    assert!(
        report.ok > 0 && report.disturbed() == 0,
        "{server}: {report}"
    );
}

/// Five reloads each, and twenty where `PHALANX_TEST_LONG` is set, as `.ci/run` does it.
#[test]
fn many_reloads_lose_nothing_of_wrk() {
    if require("wrk").is_none() {
        return;
    }
    let reloads = if cluster::is_long() { 20 } else { 5 };
    for (server, builder) in servers(&[20]) {
        let mut app = builder.workers(2).start();
        let target = app.address();
        let mut wrk = Command::new("wrk");
        wrk.args([
            "-c50",
            "-t2",
            "-d10m",
            "--timeout",
            "30s",
            "-H",
            "Connection: close",
        ]);
        wrk.arg(format!("http://{target}/"));
        let wrk = Process::start(wrk);
        for _ in 0..reloads {
            app.verb(["reload"]).expect_success();
        }
        // Interrupted, it reports what it has so far.
        wrk.signal(Signal::INT);
        let output = wrk.finish(LIMIT).expect_success().stdout;
        let requests = output
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "));
        let count = requests.and_then(|(count, _)| count.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 100), "{server}: {output}");
        assert!(
            !output.contains("Socket errors") && !output.contains("Non-2xx"),
            "{server}: {output}"
        );
    }
}

#[test]
fn reloads_lose_nothing_where_the_system_dispatches() {
    // Node 26 resets connections that it has accepted and not read from when it closes a server, and
    // nobody but the worker knows of them.
    for (server, builder) in servers(&[18, 20, 24]) {
        let mut app = builder.workers(2).options(["--dispatch", "shared"]).start();
        let target = app.address();
        let load = load(&target).start();
        for _ in 0..3 {
            load.wait_for_more(50, LIMIT);
            app.verb(["reload"]).expect_success();
        }
        expect_none_lost(&server, &load.stop());
    }
}

#[test]
fn clients_that_keep_their_connections_can_repeat_what_a_reload_cut() {
    for (server, builder) in servers(&[20, 26]) {
        let mut app = builder
            .workers(2)
            // Idle connections wait for their next request; nobody pauses so long.
            .options(["--drain-timeout", "5s"])
            .start();
        let target = app.address();
        let load = load(&target).mode(Mode::KeepAlive).start();
        for _ in 0..2 {
            load.wait_for_more(50, LIMIT);
            app.verb(["reload"]).expect_success();
        }
        load.wait_for_more(50, LIMIT);
        let report = load.stop();
        assert!(report.ok > 0 && report.failed() == 0, "{server}: {report}");
    }
}

#[test]
fn scaling_up_and_down_loses_nothing() {
    for (server, builder) in servers(&[20, 26]) {
        let mut app = builder.workers(2).start();
        let target = app.address();
        let load = load(&target).start();
        for change in ["+2", "1", "3", "-1"] {
            load.wait_for_more(50, LIMIT);
            app.verb(["scale", change]).expect_success();
        }
        load.wait_for_more(50, LIMIT);
        expect_none_lost(&server, &load.stop());
        expect_in_turn(&mut app, &target, 3);
    }
}

#[test]
fn killed_workers_fail_only_what_they_had_in_service() {
    const KILLS: u64 = 15;
    for (server, builder) in servers(&[20, 26]) {
        let mut app = builder.workers(4).start();
        let target = app.address();
        let load = load(&target).start();
        load.wait_for_more(50, LIMIT);
        let (mut tried, mut killed) = (0, 0);
        eventually(2 * LIMIT, "workers to be killed", || {
            let pids = app.worker_pids();
            let victim = pids.get(tried % pids.len().max(1));
            killed += victim.map_or(0, |pid| u64::from(app.kill_worker(*pid)));
            tried += 1;
            rest(Duration::from_millis(200));
            (killed == KILLS).then_some(())
        });
        app.wait_ready(LIMIT);
        load.wait_for_more(50, LIMIT);
        let report = load.stop();
        let allowed = [
            Failure::Reset,
            Failure::ClosedBeforeResponse,
            Failure::Truncated,
        ];
        assert!(
            report
                .failures
                .keys()
                .all(|failure| allowed.contains(failure)),
            "{server}: {report}"
        );
        assert!(
            report.failed() <= killed * u64::try_from(CLIENTS).unwrap(),
            "{server}: {report}"
        );
        expect_in_turn(&mut app, &target, 3);
        assert!(app.stop().success(), "{server}");
    }
}

#[test]
fn a_killed_worker_loses_the_connections_in_service_and_no_other() {
    for node in node::require_versions() {
        let mut app = app().workers(2).node(&node, "slow.js").start();
        let target = app.address();
        // In turn: the first and the third are with one worker, the second with the other.
        let mut connections: Vec<_> = (0..3)
            .map(|number| {
                let mut connection = connect(&target).unwrap();
                // Those of the worker that is killed are in service until then.
                let path = if number == 1 { "/?ms=1000&" } else { "/held?" };
                cluster::ask(connection.as_mut(), &format!("{path}tag=n{number}")).unwrap();
                app.wait_for_line(&format!("in service n{number}"), LIMIT);
                connection
            })
            .collect();
        let next = pid_in(&get(&target, "/?ms=0"));
        let killed = app
            .worker_pids()
            .into_iter()
            .find(|pid| *pid != next)
            .unwrap();
        assert!(app.kill_worker(killed));
        let answered: Vec<Option<u32>> = connections
            .iter_mut()
            .map(|connection| {
                cluster::answer(connection.as_mut())
                    .ok()
                    .map(|body| pid_in(&body))
            })
            .collect();
        assert_eq!(
            answered,
            [None, Some(next), None],
            "{node:?} killed {killed}"
        );
    }
}

/// An app of two workers, of which the first is stopped and holds all the connections that the
/// primary passes to it. Returns the load, and the stopped worker's pid.
fn with_a_stopped_worker(builder: AppBuilder) -> (App, phalanx_testkit::RunningLoad, u32) {
    // In the kernel, what waits for it would move: see kernel_dispatch.rs.
    let builder = builder.options(["--dispatch", "handoff"]);
    let mut app = builder.workers(2).start();
    let target = app.address();
    let stopped = app.worker_pids()[0];
    procs::suspend(stopped);
    let load = load(&target)
        .clients(MANY_CLIENTS)
        .request_limit(LIMIT * 2)
        .start();
    // The other one serves on.
    load.wait_for_more(500, LIMIT);
    (app, load, stopped)
}

#[test]
fn what_was_offered_to_a_stopped_worker_is_served_when_it_goes_on() {
    for (server, builder) in servers(&[18, 20, 22, 24, 26]) {
        let (mut app, load, stopped) = with_a_stopped_worker(builder);
        assert!(procs::signal(stopped, Signal::CONT));
        // By then it may count as stuck, so that others have what it was offered and it is tried first.
        let target = app.address();
        eventually(LIMIT, "it serves", || {
            (pid_in(&get(&target, "/")) == stopped).then_some(())
        });
        load.wait_for_more(100, LIMIT);
        let report = load.stop();
        expect_none_lost(&server, &report);
        assert!(report.pids.contains_key(&stopped), "{server}: {report}");
    }
}

#[test]
fn what_was_offered_to_a_killed_worker_is_served_by_another() {
    for (server, builder) in servers(&[18, 20, 22, 24, 26]) {
        let (mut app, load, stopped) = with_a_stopped_worker(builder);
        assert!(app.kill_worker(stopped));
        load.wait_for_more(100, LIMIT);
        let report = load.stop();
        expect_none_lost(&server, &report);
        assert!(!report.pids.contains_key(&stopped), "{server}: {report}");
        app.wait_ready(LIMIT);
    }
}

#[test]
fn what_was_offered_to_a_worker_that_is_killed_in_its_drain_is_served_by_another() {
    for (server, builder) in servers(&[20, 26]) {
        let mut app = builder.workers(2).start();
        let target = app.address();
        // Who is to leave is continued: on a busy machine it may have left before it is killed.
        eventually(LIMIT * 2, "a worker is killed in its drain", || {
            let stopped = app.worker_pids()[1];
            procs::suspend(stopped);
            let load = load(&target)
                .clients(MANY_CLIENTS)
                .request_limit(LIMIT * 2)
                .start();
            load.wait_for_more(100, LIMIT);
            let events = app.events();
            let scaling = app.start_verb(["scale", "1"]);
            cluster::wait_state(&events, "draining");
            load.wait_for_more(100, LIMIT);
            let was_there = app.kill_worker(stopped);
            scaling.finish(LIMIT).expect_success();
            load.wait_for_more(100, LIMIT);
            expect_none_lost(&server, &load.stop());
            if !was_there {
                app.verb(["scale", "2"]).expect_success();
            }
            was_there.then_some(())
        });
    }
}

#[test]
fn what_was_offered_to_a_busy_worker_is_served_by_another_when_it_is_killed() {
    let Some(node) = node::require() else { return };
    let mut app = app().workers(2).node(&node, "slow.js").start();
    let target = app.address();
    let mut busy = connect(&target).unwrap();
    // It takes nothing of the load beside: what it had in service would be lost with it.
    cluster::ask(busy.as_mut(), "/busy?ms=300000&tag=one").unwrap();
    app.wait_for_line("busy one", LIMIT);
    // In turn: the next connection goes to the other one.
    let free = pid_in(&get(&target, "/?ms=0"));
    let load = load(&target).clients(MANY_CLIENTS).path("/?ms=1").start();
    load.wait_for_more(300, LIMIT);
    let worker = app
        .worker_pids()
        .into_iter()
        .find(|pid| *pid != free)
        .unwrap();
    app.kill_worker(worker);
    load.wait_for_more(100, LIMIT);
    expect_none_lost("slow.js", &load.stop());
    assert!(cluster::answer(busy.as_mut()).is_err());
}

#[test]
fn the_primary_stays_small_and_keeps_no_descriptors() {
    const LIMIT_BYTES: u64 = 10 << 20;
    let Some(node) = node::require() else { return };
    let mut app = app().workers(2).node(&node, "crash.js").start();
    let target = app.address();
    get(&target, "/");
    let primary = app.pid();
    app.try_status().unwrap();
    let descriptors = procs::fd_count(primary).unwrap();
    let load = load(&target).clients(50).start();
    load.wait_for_more(1_000, LIMIT);
    let under_load = memory_bytes(primary);
    load.stop().expect_none_lost();
    assert!(under_load < LIMIT_BYTES, "{under_load} bytes");
    for _ in 0..10 {
        cluster::try_get(&target, "/crash").unwrap_err();
        app.wait_ready(LIMIT);
    }
    let counted = try_eventually(LIMIT, || {
        (procs::fd_count(primary)? == descriptors).then_some(())
    });
    assert!(
        counted.is_some(),
        "{descriptors} before, now {:#?}",
        procs::fd_targets(primary)
    );
    let afterwards = memory_bytes(primary);
    assert!(afterwards < LIMIT_BYTES, "{afterwards} bytes");
}

/// The resident memory, without the program's own file where that is blown up by a debug build.
fn memory_bytes(pid: u32) -> u64 {
    let bytes = if cfg!(debug_assertions) {
        procs::anonymous_bytes(pid)
    } else {
        procs::rss_bytes(pid)
    };
    bytes.unwrap()
}
