//! What Prometheus and orchestrators see: the metrics port, its probes, the application's own metrics.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::app;
use cluster::scrape::{count, get, get_with, series, shop, started, watch_counters};
use phalanx_testkit::app::is_settled;
use phalanx_testkit::{LIMIT, Load, fixtures, node, wait};
use rustix::process::Signal;

#[test]
fn one_load_is_told_by_all_and_no_counter_ever_falls() {
    for aggregator in ["0", "1"] {
        let Some(builder) = shop(aggregator) else {
            return;
        };
        let (mut app, address) = started(builder);
        let stop = Arc::new(AtomicBool::new(false));
        let watch = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || watch_counters(address, &stop))
        };
        let load = Load::new(app.address()).clients(3).start();
        let reloads = if cluster::is_long() { 20 } else { 3 };
        for number in 0..reloads {
            app.verb(["reload"]).expect_success();
            let workers = ["3", "1", "2"][number % 3];
            app.verb(["scale", workers]).expect_success();
        }
        let report = load.stop();
        assert_eq!(report.failures.len(), 0, "{report:?}");
        app.wait_status(LIMIT, is_settled);
        let sent = report.ok;
        let names = [
            "phalanx_requests_total",
            "shop_requests_total",
            "shop_request_seconds_count",
        ];
        let text = wait::eventually(LIMIT, "all requests to be counted", || {
            let (_, text) = get(address, "/metrics");
            let sums = names.map(|name| count(&text, name));
            assert!(sums.iter().all(|sum| *sum <= sent), "{sums:?} of {sent}");
            (sums == [sent; 3]).then_some(text)
        });
        assert_eq!(
            count(&text, "shop_workers"),
            count(&text, "phalanx_workers_target")
        );
        assert_eq!(
            count(&text, "phalanx_app_metrics_workers"),
            count(&text, "shop_workers")
        );
        let connections = report.connections;
        assert_eq!(
            count(&text, "phalanx_connections_total"),
            connections,
            "{text}"
        );
        stop.store(true, Ordering::Release);
        assert!(watch.join().unwrap() > 3);
        let seen = app.lines().shown();
        assert!(
            !seen.contains("message: "),
            "the application saw a message: {seen}"
        );
    }
}

#[test]
fn what_a_killed_worker_had_told_stays_counted() {
    let Some(builder) = shop("0") else { return };
    let (mut app, address) = started(builder);
    let report = Load::new(app.address()).requests(50).run();
    assert_eq!(report.ok, 50);
    let counted = || {
        let (_, text) = get(address, "/metrics");
        (
            count(&text, "phalanx_requests_total"),
            count(&text, "shop_requests_total"),
        )
    };
    wait::eventually(LIMIT, "all to be told", || {
        (counted() == (50, 50)).then_some(())
    });
    for pid in app.worker_pids() {
        app.kill_worker(pid);
    }
    app.wait_status(LIMIT, |status| {
        is_settled(status) && status["workers"][0]["restarts"] == 1
    });
    assert_eq!(counted(), (50, 50));
}

#[test]
fn the_format_is_what_the_client_accepts() {
    if node::require().is_none() {
        return;
    }
    let (app, address) = started(app().workers(1).script("http.js"));
    let (_, head, text) = get_with(address, "/metrics", "");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        text.contains("# TYPE phalanx_connections_total counter\n"),
        "{text}"
    );
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5\r\n";
    let (_, head, open) = get_with(address, "/metrics", accept);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(
        open.contains("# TYPE phalanx_connections counter\n"),
        "{open}"
    );
    assert!(open.ends_with("# EOF\n"), "{open}");
    let verb = app.verb(["metrics", "--format", "openmetrics"]);
    assert!(verb.stdout.ends_with("# EOF\n"), "{verb:?}");
    let json = app.verb(["metrics", "--format", "json"]);
    assert!(json.stdout.contains("\"positions\""), "{json:?}");
    let names = |text: &str| -> Vec<String> { series(text).into_keys().collect() };
    // The worker's loop is measured for the first time at any moment.
    wait::eventually(LIMIT, "the same series on the port and by the verb", || {
        let (_, _, text) = get_with(address, "/metrics", "");
        (names(&text) == names(&app.verb(["metrics"]).stdout)).then_some(())
    });
    if let Some(promtool) = phalanx_testkit::require("promtool") {
        let mut check = std::process::Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        check
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = check.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn readiness_flips_before_the_stop_while_all_is_still_served() {
    if node::require().is_none() {
        return;
    }
    let builder = app().workers(2).script("http.js");
    let (mut app, address) = started(builder.options(["--pre-stop-delay", "1h"]));
    for path in ["/livez", "/readyz", "/startupz"] {
        let (status, body) = get(address, path);
        assert_eq!(status, 200, "{path}: {body}");
    }
    let load = Load::new(app.address()).clients(2).start();
    app.signal(Signal::TERM);
    wait::eventually(LIMIT, "readiness to flip", || {
        let (status, body) = get(address, "/readyz");
        (status == 503 && body.contains("about to stop")).then_some(())
    });
    let status = app.status();
    assert_eq!(status["stopping"], true, "{status}");
    let workers = status["workers"].as_array().unwrap();
    let is_ready = |one: &serde_json::Value| one["state"] == "ready";
    assert!(
        workers.len() == 2 && workers.iter().all(is_ready),
        "{status}"
    );
    assert_eq!(get(address, "/livez").0, 200);
    load.wait_for_more(10, LIMIT);
    let report = load.stop();
    assert_eq!(report.failures.len(), 0, "{report:?}");
    // A fast stop does not wait for the hour.
    app.signal(Signal::QUIT);
    assert!(app.wait_exit(LIMIT).success());
}

#[test]
fn after_the_delay_the_app_stops_by_itself() {
    if node::require().is_none() {
        return;
    }
    let builder = app().workers(1).script("http.js");
    let (mut app, _) = started(builder.options(["--pre-stop-delay", "300ms"]));
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
    assert!(app.lines().shown().contains("not ready from now on"));
}

#[test]
fn nobody_holds_the_port_and_no_page_of_the_web_reads_it() {
    if node::require().is_none() {
        return;
    }
    let (_app, address) = started(app().workers(1).script("http.js"));
    let (status, _, body) = get_with(address, "/metrics", "Host: evil.example\r\n");
    assert_eq!(status, 403, "{body}");
    assert_eq!(get(address, "/elsewhere").0, 404);
    // Clients that say nothing, or only half a head, are closed; meanwhile others wait in the kernel's queue.
    let mut silent: Vec<TcpStream> = (0..70)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: 127")
                .unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            stream
        })
        .collect();
    assert_eq!(get(address, "/livez").0, 200);
    let mut rest = Vec::new();
    let ended = silent[0].read_to_end(&mut rest);
    assert!(
        ended.is_ok()
            || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
}

#[test]
fn an_address_that_is_taken_is_told_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = app()
        .options(["--metrics", &address])
        .command(["sleep", "60"])
        .run_to_end(LIMIT);
    assert_eq!(output.status.code(), Some(73), "{output:?}");
    assert!(
        output.stderr.contains("cannot serve metrics on"),
        "{output:?}"
    );
}

/// Whether promtool finds nothing wrong with a file.
fn check_rules(promtool: &std::path::Path, rules: &std::path::Path) {
    let mut check = std::process::Command::new(promtool);
    let output = check.args(["check", "rules"]).arg(rules).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn alerts_and_the_queries_of_the_dashboard_are_understood_by_prometheus() {
    let Some(promtool) = phalanx_testkit::require("promtool") else {
        return;
    };
    let contrib = fixtures::root().join("contrib");
    check_rules(&promtool, &contrib.join("prometheus/phalanx.rules.yml"));
    let dashboard = std::fs::read_to_string(contrib.join("grafana/phalanx.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| target["expr"].as_str().unwrap());
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in queries.enumerate() {
        let query = query.replace("$__rate_interval", "1m").replace("$app", "a");
        let query = serde_json::json!(query);
        rules.extend(["  - record: query:", &number.to_string(), "\n    expr: "]);
        rules.extend([query.to_string().as_str(), "\n"]);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dashboard.rules.yml");
    std::fs::write(&file, rules).unwrap();
    check_rules(&promtool, &file);
}

#[test]
fn every_position_has_an_instance_for_opentelemetry() {
    let builder = app()
        .workers(2)
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=blue");
    let script = "echo attributes: $OTEL_RESOURCE_ATTRIBUTES; sleep 60";
    let app = builder
        .options(["--adopt", "none"])
        .command(["sh", "-c", script])
        .start();
    for position in ["0", "1"] {
        let line = app.wait_for_line(&format!(":app:{position}"), LIMIT);
        assert!(
            line.contains("attributes: team=blue,service.instance.id="),
            "{line}"
        );
    }
}
