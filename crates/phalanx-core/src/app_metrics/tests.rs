use serde_json::json;

use super::*;
use crate::exposition::{Format, encode};

fn told(metrics: &Value) -> Told {
    let answer = json!({"type": "prom-client:getMetricsRes", "requestId": "phalanx:1", "metrics": [metrics]});
    Told::parse(&answer.to_string()).unwrap()
}

fn metric(kind: &str, aggregator: &str, value: f64) -> Value {
    json!({
        "name": "x", "help": "X", "type": kind, "aggregator": aggregator,
        "values": [{"value": value, "labels": {"b": "2", "a": 1}}],
    })
}

/// What comes of these values at positions 0, 1, 2…
fn merged(kind: &str, aggregator: &str, values: &[f64]) -> String {
    let mut all = AppMetrics::default();
    for (number, value) in (0..).zip(values) {
        let told = told(&json!([metric(kind, aggregator, *value)]));
        all.tell(WorkerId(9 - number), Position(number), told, true);
    }
    let text = encode(&all.families(), Format::Text);
    let line = text.lines().find(|line| !line.starts_with('#'));
    line.unwrap_or_default().to_owned()
}

#[test]
fn each_metric_is_merged_as_it_asks_for() {
    let values = [4.0, 2.0, 6.0];
    for (aggregator, result) in [
        ("sum", "12"),
        ("first", "4"),
        ("min", "2"),
        ("max", "6"),
        ("average", "4"),
    ] {
        let line = merged("gauge", aggregator, &values);
        assert_eq!(
            line,
            format!("x{{a=\"1\",b=\"2\"}} {result}"),
            "{aggregator}"
        );
    }
    assert_eq!(merged("gauge", "omit", &values), "");
    assert_eq!(merged("gauge", "own", &values), "");
}

#[test]
fn counters_stay_and_gauges_go_with_their_worker() {
    let mut all = AppMetrics::default();
    let both = |count: f64| {
        let mut gauge = metric("gauge", "sum", count);
        gauge["name"] = json!("y");
        told(&json!([metric("counter", "sum", count), gauge]))
    };
    all.tell(WorkerId(1), Position(0), both(5.0), true);
    all.tell(WorkerId(2), Position(1), both(7.0), true);
    let second = BTreeSet::from([WorkerId(2)]);
    all.live(&second, Duration::from_secs(1));
    // Its last answer was on its way.
    all.tell(WorkerId(1), Position(0), both(6.0), false);
    for second_s in [2, 30, 60] {
        all.live(&second, Duration::from_secs(second_s));
        let text = encode(&all.families(), Format::Text);
        assert!(text.contains("x{a=\"1\",b=\"2\"} 13\n"), "{text}");
        assert!(text.contains("y{a=\"1\",b=\"2\"} 7\n"), "{text}");
    }
    all.tell(WorkerId(1), Position(0), both(100.0), false);
    assert!(encode(&all.families(), Format::Text).contains(" 13\n"));
    assert_eq!(all.workers(), 1);
}

#[test]
fn a_histogram_comes_out_in_order_and_a_total_has_its_name() {
    let values: Vec<Value> = [("+Inf", 3.0), ("10", 2.0), ("2.5", 1.0)]
        .iter()
        .map(|(end, count)| {
            // JSON has no number for the last one.
            let end = match end.parse::<f64>() {
                Ok(number) if number.is_finite() => json!(number),
                Ok(_) | Err(_) => json!(end),
            };
            json!({"value": count, "labels": {"le": end}, "metricName": "h_bucket"})
        })
        .chain([
            json!({"value": 20, "labels": {}, "metricName": "h_sum"}),
            json!({"value": 3, "labels": {}, "metricName": "h_count"}),
        ])
        .collect();
    let histogram = json!({"name": "h", "help": "H", "type": "histogram", "values": values});
    let counter = json!({"name": "n_total", "help": "N", "type": "counter", "values": [{"value": 2, "labels": {}}]});
    let mut all = AppMetrics::default();
    all.tell(
        WorkerId(1),
        Position(0),
        told(&json!([histogram, counter])),
        true,
    );
    assert_eq!(
        encode(&all.families(), Format::OpenMetrics),
        "# HELP h H\n# TYPE h histogram\nh_bucket{le=\"2.5\"} 1\nh_bucket{le=\"10.0\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 20\nh_count 3\n\
         # HELP n N\n# TYPE n counter\nn_total 2\n# EOF\n"
    );
}

#[test]
fn what_makes_no_sense_is_left_out() {
    let bad = |field: &str, value: Value| {
        let mut bad = metric("gauge", "sum", 1.0);
        bad[field] = value;
        bad
    };
    let bad_ones = json!([
        bad("name", json!("a b")),
        bad("name", json!("phalanx_requests_total")),
        bad("name", json!(7)),
        bad("values", json!(null)),
        bad("type", json!(1)),
        bad("aggregator", json!("nonsense")),
        "text",
    ]);
    let found = told(&bad_ones);
    assert!(found.is_empty());
    assert_eq!(found.left_out(), 7);
    let label = json!([{"value": 1, "labels": {"a\"": "x"}}, {"value": 1, "labels": {"a": "x".repeat(5000)}}, {"value": "1"}]);
    assert!(
        told(&json!([bad("values", label)])).metrics["x"]
            .series
            .is_empty()
    );
    assert!(Told::parse("{}").is_err() && Told::parse("x").is_err());
    assert_eq!(
        Told::parse(r#"{"error": "collect failed"}"#),
        Err("collect failed".to_owned())
    );
}
