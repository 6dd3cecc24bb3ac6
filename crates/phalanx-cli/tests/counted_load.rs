//! One load, told alike by everybody who counts it, while the app is reloaded, scaled, and its workers are killed.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod cluster;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::scrape::{count, get, series, shop, started, watch_counters};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::lines::address_in;
use phalanx_testkit::load::RunningLoad;
use phalanx_testkit::{App, LIMIT, Load, wait};
use serde_json::Value;

/// Requests that the clients may have under way when a worker is killed.
const CLIENTS: usize = 3;

/// How many requests each view counts: the port, the command, the snapshot that `phalanx top` draws, the web view's.
fn told(app: &App, port: SocketAddr, web: SocketAddr) -> [u64; 4] {
    let of = |text: &str| count(text, "phalanx_requests_total");
    let snapshot = app
        .control()
        .request("GET", "/v1/metrics.json", None, LIMIT);
    let page: Value = serde_json::from_str(&get(web, "/v1/metrics.json").1).unwrap();
    let sum = |snapshot: &Value| {
        let positions = snapshot["positions"].as_array().unwrap().iter();
        positions
            .filter_map(|one| one["requests_total"].as_u64())
            .sum()
    };
    [
        of(&get(port, "/metrics").1),
        of(&app.verb(["metrics"]).stdout),
        sum(&snapshot.unwrap().json()),
        sum(&page),
    ]
}

/// How many requests the application itself counts, by two of its metrics.
fn own(port: SocketAddr) -> [u64; 2] {
    let (_, text) = get(port, "/metrics");
    ["shop_requests_total", "shop_request_seconds_count"].map(|name| count(&text, name))
}

/// Kills a worker, and gives how many requests it may have answered and not told: none of those that were told before.
fn kill_one(app: &mut App, load: &RunningLoad, port: SocketAddr, untold: u64) -> u64 {
    let before = load.ok();
    wait::eventually(LIMIT, "all so far to be told", || {
        let requests = count(&get(port, "/metrics").1, "phalanx_requests_total");
        let least = requests.min(own(port)[0]);
        (least + untold >= before).then_some(())
    });
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    let since = load.ok() - before;
    app.wait_status(LIMIT, |status| {
        is_settled(status) && !pids(status).contains(&victim)
    });
    since + u64::try_from(CLIENTS).unwrap()
}

#[test]
fn one_load_is_told_alike_by_all_through_reloads_scaling_and_kills() {
    let Some(builder) = shop("0") else { return };
    let (mut app, port) = started(builder.options(["--admin", "127.0.0.1:0"]));
    let web = address_in(&app.wait_for_line("web view on http://", LIMIT));
    let stop = Arc::new(AtomicBool::new(false));
    let watch = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || watch_counters(port, &stop))
    };
    let load = Load::new(app.address())
        .clients(CLIENTS)
        .request_limit(LIMIT);
    let load = load.pause(Duration::from_millis(5)).start();
    let rounds = if cluster::is_long() { 20 } else { 4 };
    let (mut kills, mut untold) = (0, 0);
    for round in 0..rounds {
        app.verb(["reload"]).expect_success();
        let workers = ["3", "1", "2"][round % 3];
        app.verb(["scale", workers]).expect_success();
        load.wait_for_more(20, LIMIT);
        if round % 2 == 1 {
            untold += kill_one(&mut app, &load, port, untold);
            kills += 1;
        }
    }
    let report = load.stop();
    app.wait_status(LIMIT, is_settled);
    let (least, most) = (report.ok - untold, report.ok + report.disturbed());
    wait::eventually(LIMIT, "all views to agree", || {
        let all = told(&app, port, web);
        let own = own(port);
        let fits = |sum: &u64| (least..=most).contains(sum);
        let agree = all.iter().all(|sum| *sum == all[0]) && own[0] == own[1];
        (agree && fits(&all[0]) && fits(&own[0])).then_some(())
    });
    let (_, text) = get(port, "/metrics");
    let series = series(&text);
    let reloads = series.iter().find(|(key, _)| {
        key.starts_with("phalanx_reloads_total") && key.contains("outcome=\"succeeded\"")
    });
    assert_eq!(
        reloads.map(|(_, count)| count.to_string()),
        Some(rounds.to_string())
    );
    let snapshot: Value = serde_json::from_str(&get(web, "/v1/metrics.json").1).unwrap();
    assert_eq!(snapshot["restarts"]["crash"], kills, "{snapshot}");
    let connections = count(&text, "phalanx_connections_total");
    // A worker is killed with some that were not given to it yet.
    let most = report.connections + kills * u64::try_from(CLIENTS).unwrap();
    assert!(
        (report.ok..=most).contains(&connections),
        "{connections} of {report}"
    );
    stop.store(true, Ordering::Release);
    assert!(watch.join().unwrap() > 3);
}
