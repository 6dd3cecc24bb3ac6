//! The metrics that Python applications keep with `prometheus_client`, merged over processes that come and go.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::scrape::{cafe, count, get, python, started, watch_counters, with_packages};
use phalanx_testkit::app::{AppBuilder, is_settled};
use phalanx_testkit::{LIMIT, Load, Process, Report, fixtures, missing, wait};

/// The café under gunicorn, with two processes of its own in each worker, which it replaces after some requests.
fn cafe_in_gunicorn() -> Option<AppBuilder> {
    let place = fixtures::fixture("programs/counted.py");
    let place = place.parent().unwrap().to_str().unwrap().to_owned();
    let words = [
        "-m",
        "gunicorn",
        "-w",
        "2",
        "-b",
        "127.0.0.1:0",
        "--chdir",
        &place,
    ];
    let rest = [
        "--max-requests",
        "60",
        "--worker-tmp-dir",
        "/dev/shm",
        "counted:app",
    ];
    Some(python(&words)?.args(rest).workers(2))
}

/// What all that counts requests says: a counter, a histogram, a summary.
fn counted_by_all(address: SocketAddr) -> [u64; 3] {
    let (_, text) = get(address, "/metrics");
    let names = [
        "cafe_requests_total",
        "cafe_request_seconds_count",
        "cafe_response_bytes_count",
    ];
    names.map(|name| count(&text, name))
}

/// Waits until all count what was answered, and at most what was sent.
#[track_caller]
fn expect_counted(address: SocketAddr, report: &Report) {
    let (least, most) = (report.ok, report.ok + report.disturbed());
    let counted = wait::eventually(LIMIT, "all requests to be counted", || {
        let sums = counted_by_all(address);
        assert!(sums.iter().all(|sum| *sum <= most), "{sums:?} of {report}");
        sums.iter().all(|sum| *sum >= least).then_some(sums)
    });
    assert!(
        counted.iter().all(|sum| *sum == counted[0]) || most > least,
        "{counted:?}"
    );
}

/// Reloads, scales and kills under load, and looks that no counter falls meanwhile.
fn expect_all_counted(builder: AppBuilder) {
    let (mut app, address) = started(builder);
    let stop = Arc::new(AtomicBool::new(false));
    let watch = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || watch_counters(address, &stop))
    };
    // Who is never idle is not seen to wait for connections, nor who ends too soon.
    let load = Load::new(app.address()).clients(3).request_limit(LIMIT);
    let load = load.pause(Duration::from_millis(30)).start();
    load.wait_until_ok(100, LIMIT);
    for workers in ["3", "1", "2"] {
        app.verb(["reload"]).expect_success();
        app.verb(["scale", workers]).expect_success();
        load.wait_for_more(50, LIMIT);
        let victim = app.worker_pids()[0];
        app.kill_worker(victim);
        app.wait_status(LIMIT, |status| {
            is_settled(status) && !phalanx_testkit::app::pids(status).contains(&victim)
        });
        load.wait_for_more(50, LIMIT);
    }
    let report = load.stop();
    expect_counted(address, &report);
    stop.store(true, Ordering::Release);
    assert!(watch.join().unwrap() > 3);
}

#[test]
fn what_python_workers_count_outlives_reloads_and_kills() {
    let Some(builder) = cafe(2) else { return };
    expect_all_counted(builder);
}

#[test]
fn processes_that_gunicorn_replaces_are_counted_too() {
    let Some(builder) = cafe_in_gunicorn() else {
        return;
    };
    expect_all_counted(builder);
}

#[test]
fn gauges_of_the_dead_go_and_others_stay() {
    let Some(builder) = cafe(2) else { return };
    let (mut app, address) = started(builder);
    let load = Load::new(app.address())
        .path("/a/longer/path")
        .requests(20)
        .run();
    assert_eq!(load.ok, 20);
    let text = get(address, "/metrics").1;
    assert_eq!(count(&text, "cafe_serving"), 2, "{text}");
    let pids: u64 = app.worker_pids().into_iter().map(u64::from).sum();
    assert_eq!(count(&text, "cafe_pid"), pids, "{text}");
    for position in ["0", "1"] {
        assert!(
            text.contains(&format!("cafe_pid{{position=\"{position}\"}}")),
            "{text}"
        );
    }
    assert_eq!(count(&text, "phalanx_app_metrics_workers"), 2, "{text}");
    for victim in app.worker_pids() {
        app.kill_worker(victim);
    }
    app.wait_status(LIMIT, |status| {
        is_settled(status) && status["workers"][1]["restarts"] == 1
    });
    let load = Load::new(app.address()).path("/").requests(20).run();
    assert_eq!(load.ok, 20);
    let text = get(address, "/metrics").1;
    assert_eq!(count(&text, "cafe_serving"), 2, "{text}");
    assert_eq!(count(&text, "cafe_longest_path"), 14, "{text}");
    assert_eq!(count(&text, "cafe_requests_total"), 40, "{text}");
    let pids: u64 = app.worker_pids().into_iter().map(u64::from).sum();
    assert_eq!(count(&text, "cafe_pid"), pids, "{text}");
}

/// Where the café keeps its metrics, as it says itself.
fn told(line: &str) -> String {
    line.rsplit_once("metrics in ").unwrap().1.trim().to_owned()
}

#[test]
fn a_worker_of_another_user_keeps_them_where_it_alone_may_look() {
    const NOBODY: u32 = 65_534;
    if !phalanx_sys::identity::is_root() {
        return missing!("root, for a worker of another user");
    }
    let Some(python) = fixtures::on_path_for_all("python3") else {
        return missing!("a Python that every user may execute");
    };
    let script = fixtures::fixture("programs/counted.py");
    let Some(builder) = with_packages(&python, &[script.to_str().unwrap()]) else {
        return;
    };
    let user = ["--user", "65534", "--group", "65534"];
    let (mut app, address) = started(builder.workers(1).cwd("/").options(user));
    let directory = told(&app.wait_for_line("metrics in ", LIMIT));
    let data = fs::metadata(&directory).unwrap();
    assert_eq!(
        (data.uid(), data.gid(), data.mode() & 0o777),
        (NOBODY, NOBODY, 0o700)
    );
    let mut stranger = Command::new("ls");
    stranger.arg(&directory).uid(NOBODY - 1).gid(NOBODY - 1);
    assert!(!Process::run(stranger, LIMIT).status.success());
    let load = Load::new(app.address()).requests(20).run();
    assert_eq!(load.ok, 20);
    let counted = || count(&get(address, "/metrics").1, "cafe_requests_total");
    assert_eq!(counted(), 20);
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    app.wait_status(LIMIT, |status| {
        is_settled(status) && status["workers"][0]["restarts"] == 1
    });
    assert_eq!(counted(), 20, "what the dead one had counted was read");
    assert!(app.stop().success());
}

#[test]
fn nothing_is_left_of_the_directory() {
    let Some(builder) = cafe(1) else { return };
    let (mut app, _) = started(builder);
    let directory = told(&app.wait_for_line("metrics in ", LIMIT));
    assert!(
        std::path::Path::new(&directory)
            .join("counter_1.db")
            .parent()
            .unwrap()
            .is_dir()
    );
    assert!(app.stop().success());
    assert!(!std::path::Path::new(&directory).exists(), "{directory}");
}

#[test]
fn who_sets_the_variable_keeps_it_and_nobody_else_has_one_without_a_reader() {
    let Some(builder) = cafe(1) else { return };
    let own = tempfile::tempdir().unwrap();
    let (app, address) = started(builder.env("PROMETHEUS_MULTIPROC_DIR", own.path()));
    assert_eq!(
        told(&app.wait_for_line("metrics in ", LIMIT)),
        own.path().to_str().unwrap()
    );
    assert_eq!(
        count(&get(address, "/metrics").1, "phalanx_app_metrics_workers"),
        0
    );
    drop(app);
    let Some(builder) = cafe(1) else { return };
    let app = builder.start_ready();
    assert_eq!(told(&app.wait_for_line("metrics in ", LIMIT)), "None");
}
