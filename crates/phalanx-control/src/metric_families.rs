//! The figures of a snapshot as families for Prometheus. docs/metrics.md describes each; a test holds the two together.

use phalanx_core::exposition::{Family, Kind, Sample, class_end};

use crate::api::{PositionFigures, Snapshot};

/// A metric, before it has figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: &'static str,
    pub(crate) help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        unit,
        help,
    }
}

/// All there are, in the order of the text.
#[rustfmt::skip]
pub(crate) const METRICS: [Metric; 28] = [
    metric("phalanx_build_info", Kind::Gauge, "", "The version of phalanx. Always 1."),
    metric("phalanx_start_time_seconds", Kind::Gauge, "seconds", "When the app was started, since the Unix epoch."),
    metric("phalanx_ready", Kind::Gauge, "", "Whether a worker serves and the app is not about to stop (/readyz)."),
    metric("phalanx_workers", Kind::Gauge, "", "Live workers by state."),
    metric("phalanx_workers_target", Kind::Gauge, "", "How many workers are wanted."),
    metric("phalanx_generation", Kind::Gauge, "", "The release that new workers get."),
    metric("phalanx_reloading", Kind::Gauge, "", "Whether a rolling restart is going on."),
    metric("phalanx_dispatch_info", Kind::Gauge, "", "How connections of a listener are dispatched, and by which policy. Always 1."),
    metric("phalanx_connections", Kind::Counter, "", "Connections that were given to a position."),
    metric("phalanx_connections_active", Kind::Gauge, "", "Connections that are open at a position, where its workers tell."),
    metric("phalanx_queue_connections", Kind::Gauge, "", "Connections that wait to be accepted: in a position's slot, or in a socket that all share."),
    metric("phalanx_requests", Kind::Counter, "", "Requests that were answered, where workers tell."),
    metric("phalanx_request_errors", Kind::Counter, "", "Requests that were answered with a status of 500 or more."),
    metric("phalanx_request_duration_seconds", Kind::Histogram, "seconds", "How long requests took."),
    metric("phalanx_worker_restarts", Kind::Counter, "", "Workers that were replaced, by reason."),
    metric("phalanx_reloads", Kind::Counter, "", "Reloads and rollbacks that ended, by outcome."),
    metric("phalanx_reload_duration_seconds", Kind::Histogram, "seconds", "How long reloads and rollbacks took."),
    metric("phalanx_worker_loop_lag_seconds", Kind::Gauge, "seconds", "How late the event loop of a position's worker answered when it was asked last."),
    metric("phalanx_worker_cpu_seconds", Kind::Counter, "seconds", "Processor time of a position's workers."),
    metric("phalanx_worker_memory_bytes", Kind::Gauge, "bytes", "Resident memory of a position's live workers."),
    metric("phalanx_worker_open_files", Kind::Gauge, "", "Descriptors that a position's live workers have open."),
    metric("phalanx_primary_cpu_seconds", Kind::Counter, "seconds", "Processor time of the primary."),
    metric("phalanx_primary_memory_bytes", Kind::Gauge, "bytes", "Resident memory of the primary."),
    metric("phalanx_primary_open_files", Kind::Gauge, "", "Descriptors that the primary has open."),
    metric("phalanx_primary_loop_lag_seconds", Kind::Gauge, "seconds", "How late the primary's event loop was in the last minute."),
    metric("phalanx_log_lines_dropped", Kind::Counter, "", "Lines of output that found no room, because their reader was too slow."),
    metric("phalanx_app_metrics_workers", Kind::Gauge, "", "Workers whose own metrics (prom-client, prometheus_client) are merged here."),
    metric("phalanx_app_metrics_late", Kind::Gauge, "", "Those of them that did not answer in time: their last answer stands for them."),
];

/// Collects samples by the metric's name.
struct Book<'a> {
    app: &'a str,
    families: Vec<Family>,
}

impl Book<'_> {
    /// Adds a figure, if there is one. A counter's suffix is added by itself.
    fn add(&mut self, name: &str, labels: &[(&str, &str)], value: Option<f64>) {
        let suffix = match METRICS.iter().find(|metric| metric.name == name) {
            Some(metric) if metric.kind == Kind::Counter => "_total",
            _ => "",
        };
        if let Some(value) = value {
            self.add_part(name, suffix, labels, value);
        }
    }

    fn add_part(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let own = [("app", self.app)];
        let labels = [&own[..], labels].concat();
        let family = self.families.iter_mut().find(|family| family.name == name);
        debug_assert!(family.is_some(), "{name} is among METRICS");
        if let Some(family) = family {
            family.samples.push(Sample::new(suffix, &labels, value));
        }
    }

    /// A histogram: counts up to each end, in all, and the sum.
    fn add_classes(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        classes: impl Iterator<Item = (f64, u64)>,
        (count, sum): (u64, f64),
    ) {
        for (end, below) in classes.chain([(f64::INFINITY, count)]) {
            let end = class_end(end);
            let labels = [labels, &[("le", end.as_str())]].concat();
            self.add_part(name, "_bucket", &labels, float(below));
        }
        self.add_part(name, "_sum", labels, sum);
        self.add_part(name, "_count", labels, float(count));
    }
}

impl Snapshot {
    /// The figures as families for Prometheus.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let families = METRICS.iter().map(|metric| Family {
            name: metric.name.to_owned(),
            help: metric.help.to_owned(),
            kind: metric.kind,
            unit: metric.unit.to_owned(),
            samples: Vec::new(),
        });
        let mut book = Book {
            app: &self.name,
            families: families.collect(),
        };
        self.add_app(&mut book);
        self.add_listeners(&mut book);
        for position in &self.positions {
            add_position(&mut book, position);
        }
        self.add_primary(&mut book);
        book.families
    }

    fn add_app(&self, book: &mut Book<'_>) {
        let flag = |is: bool| Some(f64::from(u8::from(is)));
        let version = [("version", self.version.as_str())];
        book.add("phalanx_build_info", &version, Some(1.0));
        let start = float(self.at_ms) / 1000.0 - self.up_seconds;
        book.add(
            "phalanx_start_time_seconds",
            &[],
            Some((start * 1000.0).round() / 1000.0),
        );
        book.add("phalanx_ready", &[], flag(self.ready));
        for (state, &count) in &self.workers {
            book.add(
                "phalanx_workers",
                &[("state", state)],
                Some(f64::from(count)),
            );
        }
        book.add("phalanx_workers_target", &[], Some(f64::from(self.target)));
        book.add("phalanx_generation", &[], Some(f64::from(self.generation)));
        book.add("phalanx_reloading", &[], flag(self.reloading));
        for (outcome, &count) in &self.reloads.outcomes {
            book.add(
                "phalanx_reloads",
                &[("outcome", outcome)],
                Some(float(count)),
            );
        }
        let classes = self.reloads.seconds_buckets.iter().copied();
        let whole = (self.reloads.count, self.reloads.seconds_sum);
        book.add_classes("phalanx_reload_duration_seconds", &[], classes, whole);
        let merged = self.app_metrics;
        book.add(
            "phalanx_app_metrics_workers",
            &[],
            merged.map(|one| f64::from(one.workers)),
        );
        book.add(
            "phalanx_app_metrics_late",
            &[],
            merged.map(|one| f64::from(one.late)),
        );
        book.add(
            "phalanx_log_lines_dropped",
            &[],
            Some(float(self.lines_dropped)),
        );
    }

    fn add_listeners(&self, book: &mut Book<'_>) {
        for one in &self.listeners {
            let listener = ("listener", one.address.as_str());
            if let (Some(dispatch), Some(policy)) = (&one.dispatch, &one.policy) {
                let labels = [
                    listener,
                    ("dispatch", dispatch.as_str()),
                    ("policy", policy.as_str()),
                ];
                book.add("phalanx_dispatch_info", &labels, Some(1.0));
            }
            book.add(
                "phalanx_queue_connections",
                &[listener],
                one.queue.map(f64::from),
            );
            for at in &one.positions {
                let position = at.position.to_string();
                let labels = [listener, ("position", position.as_str())];
                book.add(
                    "phalanx_connections",
                    &labels,
                    at.connections_total.map(float),
                );
                book.add(
                    "phalanx_queue_connections",
                    &labels,
                    at.queue.map(f64::from),
                );
            }
        }
    }

    fn add_primary(&self, book: &mut Book<'_>) {
        let primary = &self.primary;
        book.add(
            "phalanx_primary_cpu_seconds",
            &[],
            primary.cpu_seconds_total,
        );
        let memory = float(primary.vitals.memory_bytes);
        book.add("phalanx_primary_memory_bytes", &[], Some(memory));
        book.add(
            "phalanx_primary_open_files",
            &[],
            primary.open_files.map(float),
        );
        for (of, millis) in [
            ("p50", primary.vitals.loop_lag_p50_ms),
            ("p99", primary.vitals.loop_lag_p99_ms),
            ("max", primary.vitals.loop_lag_max_ms),
        ] {
            let seconds = (millis * 10.0).round() / 10_000.0;
            book.add(
                "phalanx_primary_loop_lag_seconds",
                &[("stat", of)],
                Some(seconds),
            );
        }
    }
}

fn add_position(book: &mut Book<'_>, one: &PositionFigures) {
    let number = one.position.to_string();
    let at = [("position", number.as_str())];
    book.add(
        "phalanx_connections_active",
        &at,
        one.connections_active.map(f64::from),
    );
    book.add("phalanx_requests", &at, one.requests_total.map(float));
    book.add(
        "phalanx_request_errors",
        &at,
        one.server_errors_total.map(float),
    );
    if let Some(count) = one.requests_total {
        let classes = one.seconds_buckets.iter().copied();
        let whole = (count, one.seconds_sum);
        book.add_classes("phalanx_request_duration_seconds", &at, classes, whole);
    }
    // So that a first crash is seen as a rise.
    let never = (!one.restarts.contains_key("crash")).then_some(("crash", 0));
    let restarts = one
        .restarts
        .iter()
        .map(|(why, &count)| (why.as_str(), count));
    for (why, count) in restarts.chain(never) {
        let labels = [at[0], ("reason", why)];
        book.add("phalanx_worker_restarts", &labels, Some(float(count)));
    }
    let lag = one.loop_lag_us.map(|micros| float(micros) / 1e6);
    book.add("phalanx_worker_loop_lag_seconds", &at, lag);
    book.add("phalanx_worker_cpu_seconds", &at, one.cpu_seconds_total);
    book.add(
        "phalanx_worker_memory_bytes",
        &at,
        one.memory_bytes.map(float),
    );
    book.add("phalanx_worker_open_files", &at, one.open_files.map(float));
}

/// Prometheus has nothing else; beyond 2^53 it is the nearest.
#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are rounded")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use phalanx_core::exposition::{Format, encode};

    use super::*;

    fn file(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// As the text format has it.
    fn shown(metric: &Metric) -> (String, &'static str) {
        match metric.kind {
            Kind::Counter => (format!("{}_total", metric.name), "counter"),
            Kind::Gauge => (metric.name.to_owned(), "gauge"),
            Kind::Histogram => (metric.name.to_owned(), "histogram"),
            Kind::Summary | Kind::Unknown => unreachable!("there are none"),
        }
    }

    #[test]
    fn the_page_tells_every_metric_and_no_other() {
        let page = file("docs/metrics.md");
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `phalanx_")?.split(" | ");
            let name = format!("phalanx_{}", cells.next()?.trim_end_matches('`'));
            Some((name, cells.next()?.to_owned()))
        };
        let told: BTreeSet<_> = page.lines().filter_map(row).collect();
        let all = METRICS.iter().map(shown);
        let all: BTreeSet<_> = all.map(|(name, kind)| (name, kind.to_owned())).collect();
        assert_eq!(told, all);
    }

    #[test]
    fn names_end_in_their_units_and_every_one_has_help() {
        for metric in &METRICS {
            let end = format!("_{}", metric.unit);
            assert!(
                metric.unit.is_empty() || metric.name.ends_with(&end),
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(!metric.name.ends_with("_total"), "{}", metric.name);
        }
    }

    #[test]
    fn dashboard_and_alerts_name_metrics_that_there_are() {
        let mut names: BTreeSet<String> = METRICS.iter().map(|one| shown(one).0).collect();
        for metric in METRICS.iter().filter(|one| one.kind == Kind::Histogram) {
            let parts = ["bucket", "sum", "count"];
            names.extend(parts.map(|part| format!("{}_{part}", metric.name)));
        }
        for path in [
            "contrib/grafana/phalanx.json",
            "contrib/prometheus/phalanx.rules.yml",
        ] {
            let text = file(path);
            let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let words = text.split(|letter| !is_part(letter));
            let used: BTreeSet<&str> = words.filter(|word| word.starts_with("phalanx_")).collect();
            assert!(used.len() > 5, "{path}");
            for word in used {
                assert!(names.contains(word), "{path}: there is no {word}");
            }
        }
    }

    #[test]
    fn figures_become_series_with_the_labels_that_the_page_tells() {
        let mut position = PositionFigures {
            position: 1,
            requests_total: Some(3),
            seconds_buckets: vec![(0.5, 2)],
            seconds_sum: 1.5,
            ..PositionFigures::default()
        };
        position.restarts.insert("hung".to_owned(), 2);
        let snapshot = Snapshot {
            name: "shop".to_owned(),
            positions: vec![position],
            ..Snapshot::default()
        };
        let text = encode(&snapshot.families(), Format::Text);
        for line in [
            "phalanx_requests_total{app=\"shop\",position=\"1\"} 3",
            "phalanx_request_duration_seconds_bucket{app=\"shop\",position=\"1\",le=\"0.5\"} 2",
            "phalanx_request_duration_seconds_bucket{app=\"shop\",position=\"1\",le=\"+Inf\"} 3",
            "phalanx_request_duration_seconds_sum{app=\"shop\",position=\"1\"} 1.5",
            "phalanx_worker_restarts_total{app=\"shop\",position=\"1\",reason=\"hung\"} 2",
            "phalanx_worker_restarts_total{app=\"shop\",position=\"1\",reason=\"crash\"} 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("phalanx_connections_total{"), "{text}");
    }
}
