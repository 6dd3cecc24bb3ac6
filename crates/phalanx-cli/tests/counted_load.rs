//! One load, told alike by everybody who counts it, while the app is reloaded, scaled, and its workers are killed.
#![cfg(feature = "top")]
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;
use crate::support::{browser, terminal};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::scrape::{cafe, count, get, series, shop, started, watch_counters};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::lines::address_in;
use phalanx_testkit::load::RunningLoad;
use phalanx_testkit::{App, LIMIT, Load, wait};
use serde_json::Value;

/// Requests that the clients may have under way when a worker is killed.
const CLIENTS: usize = 3;

/// How many requests each view counts: the port, the command, the snapshot, the web view's, the status as JSON and as text.
fn told(app: &mut App, port: SocketAddr, web: SocketAddr) -> [u64; 6] {
    let of = |text: &str| count(text, "phalanx_requests_total");
    let snapshot = app
        .control()
        .request("GET", "/v1/metrics.json", None, LIMIT);
    let page: Value = serde_json::from_str(&get(web, "/v1/metrics.json").1).unwrap();
    let sum = |snapshot: &Value, whose: &str| {
        let positions = snapshot["positions"].as_array().unwrap().iter();
        positions.filter_map(|one| one[whose].as_u64()).sum()
    };
    let status = app.status();
    assert_eq!(
        status["totals"]["requests"].as_u64().unwrap_or(0),
        sum(&status, "requests"),
        "{status}"
    );
    [
        of(&get(port, "/metrics").1),
        of(&app.verb(["metrics"]).stdout),
        sum(&snapshot.unwrap().json(), "requests_total"),
        sum(&page, "requests_total"),
        sum(&status, "requests"),
        in_all(&app.verb(["status"]).stdout),
    ]
}

/// The requests in the last row of `phalanx status`.
fn in_all(text: &str) -> u64 {
    let row = text.lines().find_map(|line| line.strip_prefix("in all "));
    let requests = row.and_then(|row| row.split_whitespace().nth(1));
    requests.and_then(|text| text.parse().ok()).unwrap_or(0)
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

/// Lets the load run while the app is reloaded, scaled, and a worker is killed every other time. Returns how many rounds and kills there were.
fn disturb(app: &mut App, load: &RunningLoad, mut kill: impl FnMut(&mut App)) -> (usize, usize) {
    let rounds = if cluster::is_long() { 20 } else { 4 };
    let mut kills = 0;
    for round in 0..rounds {
        app.verb(["reload"]).expect_success();
        let workers = ["3", "1", "2"][round % 3];
        app.verb(["scale", workers]).expect_success();
        load.wait_for_more(20, LIMIT);
        if round % 2 == 1 {
            kill(app);
            kills += 1;
        }
    }
    (rounds, kills)
}

/// A load of few clients, who ask again a moment later.
fn few(app: &mut App) -> RunningLoad {
    let load = Load::new(app.address()).clients(CLIENTS);
    load.request_limit(LIMIT)
        .pause(Duration::from_millis(5))
        .start()
}

/// Scrapes until it is told to stop, and looks that no counter falls.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Watch {
    fn over(port: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || watch_counters(port, &asked));
        Self { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Release);
        assert!(self.thread.join().unwrap() > 3);
    }
}

/// What is seen on a terminal and in a browser.
struct Seen {
    top: Option<terminal::Terminal>,
    page: Option<browser::Browser>,
}

impl Seen {
    fn of(app: &App, web: SocketAddr) -> Self {
        let page = browser::Browser::start(browser::DESKTOP);
        if let Some(page) = &page {
            page.open(&format!("http://{web}/"));
        }
        let top = terminal::Terminal::open(app.directory(), &[], "top app");
        Self { top, page }
    }

    /// Whether both say so now, as far as they are there.
    fn say(&self, requests: u64) -> bool {
        let top = self.top.as_ref();
        let on_top = format!("requests/s  {requests} in all");
        let on_page = format!("{requests} in all");
        let script = "return document.getElementById('rate-all').textContent";
        let mut page = self.page.iter();
        top.is_none_or(|top| top.screen().contains(&on_top))
            && page.all(|page| page.run(script) == on_page.as_str())
    }
}

#[test]
fn one_load_is_told_alike_by_all_through_reloads_scaling_and_kills() {
    let Some(builder) = shop("0") else { return };
    let (mut app, port) = started(builder.options(["--admin", "127.0.0.1:0"]));
    let web = address_in(&app.wait_for_line("web view on http://", LIMIT));
    let watch = Watch::over(port);
    let seen = Seen::of(&app, web);
    let load = few(&mut app);
    let mut untold = 0;
    let (rounds, kills) = disturb(&mut app, &load, |app| {
        untold += kill_one(app, &load, port, untold);
    });
    let report = load.stop();
    app.wait_status(LIMIT, is_settled);
    let (least, most) = (report.ok - untold, report.ok + report.disturbed());
    wait::eventually(LIMIT, "all views to agree", || {
        let all = told(&mut app, port, web);
        let own = own(port);
        let fits = |sum: &u64| (least..=most).contains(sum);
        let agree = all.iter().all(|sum| *sum == all[0]) && own[0] == own[1];
        let is_told = agree && fits(&all[0]) && fits(&own[0]);
        (is_told && seen.say(all[0])).then_some(())
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
    assert_eq!(app.status()["totals"]["connections"], connections);
    // A worker is killed with some that were not given to it yet.
    let most = report.connections + u64::try_from(kills * CLIENTS).unwrap();
    assert!(
        (report.ok..=most).contains(&connections),
        "{connections} of {report}"
    );
    watch.finish();
}

/// What a Python application counts by itself: a counter, a histogram, a summary.
fn own_of_python(text: &str) -> [u64; 3] {
    let names = [
        "cafe_requests_total",
        "cafe_request_seconds_count",
        "cafe_response_bytes_count",
    ];
    names.map(|name| count(text, name))
}

#[test]
fn a_load_on_python_is_told_alike_by_the_port_and_the_command() {
    let Some(builder) = cafe(2) else { return };
    let (mut app, port) = started(builder);
    let watch = Watch::over(port);
    let load = few(&mut app);
    load.wait_until_ok(20, LIMIT);
    disturb(&mut app, &load, |app| {
        let victim = app.worker_pids()[0];
        app.kill_worker(victim);
        app.wait_status(LIMIT, |status| {
            is_settled(status) && !pids(status).contains(&victim)
        });
    });
    let report = load.stop();
    app.wait_status(LIMIT, is_settled);
    let (least, most) = (report.ok, report.ok + report.disturbed());
    wait::eventually(LIMIT, "both views to agree", || {
        let views = [get(port, "/metrics").1, app.verb(["metrics"]).stdout];
        // A worker that is killed between two of its counts leaves them different.
        let [port, command] = views.map(|text| own_of_python(&text));
        assert!(port.iter().all(|sum| *sum <= most), "{port:?} of {report}");
        (port == command && port.iter().all(|sum| *sum >= least)).then_some(())
    });
    watch.finish();
}
