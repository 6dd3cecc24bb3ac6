//! Figures as text, for Prometheus and whatever reads its formats: the text format 0.0.4 and `OpenMetrics` 1.0.
//!
//! The two differ in small things that matter: 0.0.4 knows a counter by its whole name, `OpenMetrics` by its name without `_total`; `OpenMetrics`
//! has types and units that 0.0.4 has not, and an end that tells a whole answer from a cut one.

use std::fmt::Write;

/// What of HTTP's `Accept` names `OpenMetrics`.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// How the figures are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "these two are spoken")]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    #[default]
    Text,
    /// `OpenMetrics`, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a client wants that accepts this (`Accept`, RFC 9110, 12.5.1): `OpenMetrics` where it is named with a weight of no less
    /// than text, and text otherwise.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let weight = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next()?.eq_ignore_ascii_case(wanted);
                let weight = parts.find_map(|part| part.strip_prefix("q="));
                is_it.then(|| weight.map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0)))
            });
            ranges.fold(0.0, f64::max)
        };
        let open = weight(OPEN_METRICS);
        if open > 0.0 && open >= weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of the text.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What kind of figures a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "what both formats have")]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by classes.
    Histogram,
    /// Quantiles.
    Summary,
    /// Nobody said.
    Unknown,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Unknown => "unknown",
        }
    }
}

/// Figures of one name.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "what both formats have")]
pub struct Family {
    /// The name, of a counter without `_total`.
    pub name: String,
    /// What it is.
    pub help: String,
    /// Its kind.
    pub kind: Kind,
    /// Its unit, with which the name ends; empty where it has none.
    pub unit: String,
    /// The figures.
    pub samples: Vec<Sample>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "what both formats have")]
pub struct Sample {
    /// What follows the family's name: `_total`, `_bucket`, `_sum`, `_count`, or nothing.
    pub suffix: String,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The figure.
    pub value: f64,
}

impl Sample {
    /// A sample with these labels; those without a value are left out.
    #[must_use]
    pub fn new(suffix: &str, labels: &[(&str, &str)], value: f64) -> Self {
        let labels = labels.iter().filter(|(_, value)| !value.is_empty());
        Self {
            suffix: suffix.to_owned(),
            labels: labels
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            value,
        }
    }
}

/// The text of all families that have figures.
#[must_use]
pub fn encode(families: &[Family], format: Format) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        write_head(&mut text, family, format);
        for sample in &family.samples {
            write_sample(&mut text, &family.name, sample);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn write_head(text: &mut String, family: &Family, format: Format) {
    let is_total = |sample: &Sample| sample.suffix == "_total";
    let totals = family.samples.iter().all(is_total);
    let Family {
        name, help, unit, ..
    } = family;
    let (name, kind) = match (format, family.kind) {
        (Format::Text, Kind::Counter) if totals => (format!("{name}_total"), "counter"),
        (Format::Text, Kind::Unknown) => (name.clone(), "untyped"),
        // OpenMetrics has no counter whose name does not end in _total.
        (Format::OpenMetrics, Kind::Counter) if !totals => (name.clone(), "unknown"),
        (_, kind) => (name.clone(), kind.as_str()),
    };
    let help = match format {
        Format::Text => help.replace('\\', "\\\\").replace('\n', "\\n"),
        Format::OpenMetrics => escaped(help),
    };
    // Writing to a string does not fail.
    _ = writeln!(text, "# HELP {name} {help}");
    _ = writeln!(text, "# TYPE {name} {kind}");
    if format == Format::OpenMetrics && !unit.is_empty() && name.ends_with(&format!("_{unit}")) {
        _ = writeln!(text, "# UNIT {name} {unit}");
    }
}

fn write_sample(text: &mut String, name: &str, sample: &Sample) {
    text.push_str(name);
    text.push_str(&sample.suffix);
    for (index, (label, value)) in sample.labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        _ = write!(text, "{label}=\"{}\"", escaped(value));
    }
    if !sample.labels.is_empty() {
        text.push('}');
    }
    text.push(' ');
    text.push_str(&number(sample.value));
    text.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

/// A number as both formats have it.
#[must_use]
pub fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

/// The end of a class as the label `le` has it: with a fraction always, so that it is the same label in both formats.
#[must_use]
pub fn class_end(value: f64) -> String {
    if value.is_infinite() {
        number(value)
    } else {
        format!("{value:?}")
    }
}

/// The samples of one set of labels stand together, its classes in order, as the formats want it.
pub(crate) fn sort_parts(samples: &mut [Sample]) {
    let key = |sample: &Sample| -> (Vec<(String, String)>, u8, f64) {
        let is_class = |(name, _): &&(String, String)| name == "le" || name == "quantile";
        let rest = sample.labels.iter().filter(|label| !is_class(label));
        let class = sample.labels.iter().find(is_class);
        let class = class.map_or(f64::INFINITY, |(_, end)| match end.as_str() {
            "+Inf" => f64::INFINITY,
            end => end.parse().unwrap_or(f64::INFINITY),
        });
        let part = match sample.suffix.as_str() {
            "_sum" => 1,
            "_count" => 2,
            _ => 0,
        };
        (rest.cloned().collect(), part, class)
    };
    samples.sort_by(|one, other| {
        let (one, other) = (key(one), key(other));
        (one.0, one.1)
            .cmp(&(other.0, other.1))
            .then(one.2.total_cmp(&other.2))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &str, kind: Kind, samples: Vec<Sample>) -> Family {
        Family {
            name: name.to_owned(),
            help: "Says \"hi\"\nand \\".to_owned(),
            kind,
            unit: "seconds".to_owned(),
            samples,
        }
    }

    #[test]
    fn a_counter_has_the_name_that_each_format_wants() {
        let sample = Sample::new("_total", &[("app", "a\"b\\c\nd"), ("none", "")], 3.0);
        let counter = [family("x_seconds", Kind::Counter, vec![sample])];
        assert_eq!(
            encode(&counter, Format::Text),
            "# HELP x_seconds_total Says \"hi\"\\nand \\\\\n# TYPE x_seconds_total counter\n\
             x_seconds_total{app=\"a\\\"b\\\\c\\nd\"} 3\n"
        );
        assert_eq!(
            encode(&counter, Format::OpenMetrics),
            "# HELP x_seconds Says \\\"hi\\\"\\nand \\\\\n# TYPE x_seconds counter\n# UNIT x_seconds seconds\n\
             x_seconds_total{app=\"a\\\"b\\\\c\\nd\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn a_counter_without_total_is_none_for_openmetrics() {
        let counter = [family(
            "hits",
            Kind::Counter,
            vec![Sample::new("", &[], 0.5)],
        )];
        assert!(encode(&counter, Format::Text).contains("# TYPE hits counter\nhits 0.5\n"));
        assert!(encode(&counter, Format::OpenMetrics).contains("# TYPE hits unknown\nhits 0.5\n"));
    }

    #[test]
    fn families_without_figures_are_left_out() {
        let empty = [family("x", Kind::Gauge, Vec::new())];
        assert_eq!(encode(&empty, Format::Text), "");
        assert_eq!(encode(&empty, Format::OpenMetrics), "# EOF\n");
    }

    #[test]
    fn the_format_is_what_the_client_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            (prometheus, Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            (
                "application/openmetrics-text;q=0.2, text/plain;q=0.5",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn numbers_are_written_as_the_formats_want_them() {
        let written = [1.0, 0.5, 1e12, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(number);
        assert_eq!(
            written,
            ["1", "0.5", "1000000000000", "+Inf", "-Inf", "NaN"]
        );
        let ends = [1.0, 0.000_512, f64::INFINITY].map(class_end);
        assert_eq!(ends, ["1.0", "0.000512", "+Inf"]);
    }
}
