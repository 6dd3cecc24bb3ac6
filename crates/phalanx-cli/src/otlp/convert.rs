//! Families of Prometheus as OTLP's metrics: counters and histograms are cumulative since the app began to be told of.

use std::collections::BTreeMap;

use phalanx_core::exposition::{Family, Kind, Sample};

use super::message::{
    AnyValue, CUMULATIVE, ExportMetricsServiceRequest, Gauge, Histogram, HistogramDataPoint,
    InstrumentationScope, KeyValue, Metric, NumberDataPoint, Resource, ResourceMetrics,
    ScopeMetrics, Sum, Summary, SummaryDataPoint, ValueAtQuantile,
};

/// When counting began and when it was read, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// All that is sent at once.
pub(super) fn request(
    families: &[Family],
    resource: &[(String, String)],
    times: Times,
) -> ExportMetricsServiceRequest {
    let told = families.iter().filter(|family| !family.samples.is_empty());
    let scope = InstrumentationScope {
        name: "phalanx".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let metrics = ScopeMetrics {
        scope: Some(scope),
        metrics: told.map(|family| metric(family, times)).collect(),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: attributes(resource),
            }),
            scope_metrics: vec![metrics],
        }],
    }
}

fn metric(family: &Family, times: Times) -> Metric {
    let mut metric = Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        unit: unit(&family.unit).to_owned(),
        ..Metric::default()
    };
    let samples = &family.samples;
    match family.kind {
        Kind::Counter => {
            metric.sum = Some(Sum {
                data_points: numbers(samples, times),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            });
        }
        Kind::Gauge | Kind::Unknown => {
            let data_points = numbers(samples, times);
            metric.gauge = Some(Gauge { data_points });
        }
        Kind::Histogram => {
            let points = groups(samples, "le").into_iter();
            metric.histogram = Some(Histogram {
                data_points: points.map(|group| group.histogram(times)).collect(),
                aggregation_temporality: CUMULATIVE,
            });
        }
        Kind::Summary => {
            let points = groups(samples, "quantile").into_iter();
            let data_points = points.map(|group| group.summary(times)).collect();
            metric.summary = Some(Summary { data_points });
        }
    }
    metric
}

/// Units as OpenTelemetry writes them (UCUM).
fn unit(prometheus: &str) -> &str {
    match prometheus {
        "seconds" => "s",
        "bytes" => "By",
        other => other,
    }
}

fn attributes(pairs: &[(String, String)]) -> Vec<KeyValue> {
    let attribute = |(key, value): &(String, String)| KeyValue {
        key: key.clone(),
        value: Some(AnyValue {
            string_value: Some(value.clone()),
        }),
    };
    pairs.iter().map(attribute).collect()
}

fn numbers(samples: &[Sample], times: Times) -> Vec<NumberDataPoint> {
    let point = |sample: &Sample| NumberDataPoint {
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        as_double: Some(sample.value),
        attributes: attributes(&sample.labels),
    };
    samples.iter().map(point).collect()
}

/// The samples of a histogram or summary that differ in their class alone.
#[derive(Debug, Default)]
struct Group {
    labels: Vec<(String, String)>,
    /// Ends of classes with the count below, or quantiles with their values.
    parts: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

fn groups(samples: &[Sample], class: &str) -> Vec<Group> {
    let mut groups: BTreeMap<Vec<(String, String)>, Group> = BTreeMap::new();
    for sample in samples {
        let (of_class, labels): (Vec<_>, Vec<_>) = sample
            .labels
            .iter()
            .cloned()
            .partition(|(name, _)| name == class);
        let group = groups.entry(labels).or_insert_with_key(|labels| Group {
            labels: labels.clone(),
            ..Group::default()
        });
        match (sample.suffix.as_str(), of_class.first()) {
            ("_sum", _) => group.sum = sample.value,
            ("_count", _) => group.count = sample.value,
            (_, Some((_, end))) => {
                // `+Inf` is a number for Rust too.
                if let Ok(end) = end.parse() {
                    group.parts.push((end, sample.value));
                }
            }
            (_, None) => {}
        }
    }
    groups.into_values().collect()
}

impl Group {
    fn histogram(mut self, times: Times) -> HistogramDataPoint {
        self.parts.sort_by(|one, other| one.0.total_cmp(&other.0));
        let bounds = self.parts.iter().map(|(end, _)| *end);
        let explicit_bounds = bounds.filter(|end| end.is_finite()).collect();
        // Each class has those below it in Prometheus, and not here.
        let mut below = 0;
        let finite = self.parts.iter().filter(|(end, _)| end.is_finite());
        let counts = finite.map(|(_, count)| *count).chain([self.count]);
        let bucket_counts = counts.map(|count| {
            let upto = whole(count);
            upto.saturating_sub(std::mem::replace(&mut below, upto))
        });
        HistogramDataPoint {
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            count: whole(self.count),
            sum: Some(self.sum),
            bucket_counts: bucket_counts.collect(),
            explicit_bounds,
            attributes: attributes(&self.labels),
        }
    }

    fn summary(self, times: Times) -> SummaryDataPoint {
        let quantiles = self.parts.into_iter();
        let quantile_values =
            quantiles.map(|(quantile, value)| ValueAtQuantile { quantile, value });
        SummaryDataPoint {
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            count: whole(self.count),
            sum: self.sum,
            quantile_values: quantile_values.collect(),
            attributes: attributes(&self.labels),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and not negative; of anything else the nearest is taken"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { start: 1, now: 2 };

    fn family(kind: Kind, samples: Vec<Sample>) -> Family {
        Family {
            name: "x".to_owned(),
            help: "X".to_owned(),
            kind,
            unit: "seconds".to_owned(),
            samples,
        }
    }

    #[test]
    fn a_counter_is_a_sum_that_only_rises() {
        let counter = family(
            Kind::Counter,
            vec![Sample::new("_total", &[("app", "a")], 3.0)],
        );
        let metric = metric(&counter, TIMES);
        assert_eq!((metric.name.as_str(), metric.unit.as_str()), ("x", "s"));
        let sum = metric.sum.unwrap();
        assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
        let point = &sum.data_points[0];
        assert_eq!(
            (point.as_double, point.start_time_unix_nano),
            (Some(3.0), 1)
        );
        assert_eq!(point.attributes[0].key, "app");
    }

    #[test]
    fn classes_have_their_own_counts() {
        let class = |end, count| Sample::new("_bucket", &[("app", "a"), ("le", end)], count);
        let samples = vec![
            class("0.5", 2.0),
            class("1.0", 5.0),
            class("+Inf", 6.0),
            Sample::new("_sum", &[("app", "a")], 4.5),
            Sample::new("_count", &[("app", "a")], 6.0),
        ];
        let metric = metric(&family(Kind::Histogram, samples), TIMES);
        let points = metric.histogram.unwrap().data_points;
        assert_eq!(points.len(), 1);
        assert_eq!(points[0].bucket_counts, [2, 3, 1]);
        assert_eq!(points[0].explicit_bounds, [0.5, 1.0]);
        assert_eq!((points[0].count, points[0].sum), (6, Some(4.5)));
    }

    #[test]
    fn families_without_figures_are_not_sent() {
        let sent = request(&[family(Kind::Gauge, Vec::new())], &[], TIMES);
        assert!(sent.resource_metrics[0].scope_metrics[0].metrics.is_empty());
    }
}
