//! Metrics of the application itself, as `prom-client` gives them in each worker, merged over all workers.
//!
//! A worker tells all its metrics at once. What one has told stands until it tells again; when it is gone, its counters and the counts of
//! its histograms stay in the sum for ever, so that they never fall, and its gauges go with it. Merging follows each metric's
//! `aggregator`, as prom-client's own primary does.
//!
//! INVARIANT: nothing that a worker tells is trusted. What has no valid name, a label that is too long, or comes beyond
//! [`SERIES_MAX`] is left out and counted; the memory of one answer is bounded by the channel, that of the sums by the same number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::exposition::{Family, Kind, Sample, class_end, number, sort_parts};
use crate::ids::{Position, WorkerId};

/// So many series a worker may have, and so many those that are gone may leave.
pub const SERIES_MAX: usize = 20_000;
/// The longest name and value of a label, in bytes.
pub(crate) const TEXT_MAX: usize = 1024;
/// The last answer of a worker that is gone may come so much later than its end is seen.
const LATE: Duration = Duration::from_secs(10);
/// Names of phalanx's own metrics.
pub(crate) const OWN: &str = "phalanx_";

/// How values of several workers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregator {
    Sum,
    First,
    Min,
    Max,
    Average,
    Omit,
}

impl Aggregator {
    fn named(name: Option<&str>) -> Option<Self> {
        Some(match name {
            None | Some("sum") => Self::Sum,
            Some("first") => Self::First,
            Some("min") => Self::Min,
            Some("max") => Self::Max,
            Some("average") => Self::Average,
            Some("omit") => Self::Omit,
            Some(_) => return None,
        })
    }

    fn of(self, values: &[f64]) -> f64 {
        match self {
            Self::Sum => values.iter().sum(),
            Self::First | Self::Omit => values.first().copied().unwrap_or(f64::NAN),
            Self::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Average => {
                let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
                values.iter().sum::<f64>() / f64::from(count)
            }
        }
    }
}

/// A name with its labels, in order.
type Series = (String, Vec<(String, String)>);

/// A metric of one worker, or what is left of those that are gone.
#[derive(Clone, Debug, PartialEq)]
struct Metric {
    help: String,
    kind: Kind,
    aggregator: Aggregator,
    /// In the order of telling: classes of a histogram must not be sorted as text.
    series: Vec<(Series, f64)>,
}

/// All metrics of one worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    metrics: BTreeMap<String, Metric>,
    left_out: usize,
}

impl Told {
    /// From the JSON of prom-client's `getMetricsRes`: its `metrics` is an array with an array for each registry.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(answer: &str) -> Result<Self, String> {
        let answer: Value = serde_json::from_str(answer).map_err(|error| error.to_string())?;
        if let Some(error) = answer["error"].as_str() {
            return Err(error.chars().take(TEXT_MAX).collect());
        }
        let registries = answer["metrics"].as_array().ok_or("it has no metrics")?;
        let mut told = Self::default();
        let mut room = SERIES_MAX;
        let metrics = registries.iter().filter_map(Value::as_array).flatten();
        for metric in metrics {
            if told.take(metric, &mut room).is_none() {
                told.left_out += 1;
            }
        }
        Ok(told)
    }

    fn take(&mut self, metric: &Value, room: &mut usize) -> Option<()> {
        let name = metric["name"].as_str().filter(|name| is_name(name, ':'))?;
        let aggregator = Aggregator::named(metric["aggregator"].as_str())?;
        if name.starts_with(OWN) || aggregator == Aggregator::Omit {
            return None;
        }
        let kind = match metric["type"].as_str()? {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "summary" => Kind::Summary,
            _ => Kind::Unknown,
        };
        let values = metric["values"].as_array()?;
        *room = room.checked_sub(values.len())?;
        let series = values.iter().filter_map(|value| series_of(name, value));
        let help = metric["help"].as_str().unwrap_or(name);
        let new = Metric {
            help: help.chars().take(TEXT_MAX).collect(),
            kind,
            aggregator,
            series: series.collect(),
        };
        // The same name in a second registry is the first one's.
        self.metrics.entry(name.to_owned()).or_insert(new);
        Some(())
    }

    /// Whether the worker has any metrics.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// How many metrics were left out.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

fn series_of(name: &str, value: &Value) -> Option<(Series, f64)> {
    // JSON has no infinity and no NaN: JavaScript writes null for both.
    let given = &value["value"];
    let number_of = if given.is_null() {
        f64::NAN
    } else {
        given.as_f64()?
    };
    let own_name = value["metricName"].as_str().unwrap_or(name);
    if !own_name.starts_with(name) || !is_name(own_name, ':') {
        return None;
    }
    let mut labels = Vec::new();
    for (label, text) in value["labels"].as_object().into_iter().flatten() {
        let text = match text {
            Value::String(text) => text.clone(),
            Value::Number(number) if label == "le" => class_end(number.as_f64()?),
            Value::Number(number_) => number(number_.as_f64()?),
            Value::Null => continue,
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => text.to_string(),
        };
        if text.len() > TEXT_MAX || !is_name(label, '_') {
            return None;
        }
        labels.push((label.clone(), text));
    }
    labels.sort_unstable();
    Some(((own_name.to_owned(), labels), number_of))
}

/// A name of a metric (which may contain colons) or of a label.
pub(crate) fn is_name(text: &str, also: char) -> bool {
    let is_first = |letter: char| letter.is_ascii_alphabetic() || letter == '_' || letter == also;
    text.len() <= TEXT_MAX
        && text.chars().next().is_some_and(is_first)
        && text
            .chars()
            .all(|letter| is_first(letter) || letter.is_ascii_digit())
}

/// What a worker told, and when it was seen to be gone.
#[derive(Clone, Debug)]
struct Page {
    position: Position,
    told: Told,
    gone_at: Option<Duration>,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct AppMetrics {
    pages: BTreeMap<WorkerId, Page>,
    /// What those that are gone had counted.
    left: BTreeMap<String, Metric>,
    left_series: usize,
}

impl AppMetrics {
    /// A worker told its metrics. One that is gone for long is not heard any more.
    pub fn tell(&mut self, worker: WorkerId, position: Position, told: Told, lives: bool) {
        match self.pages.get_mut(&worker) {
            Some(page) => page.told = told,
            None if lives => {
                let page = Page {
                    position,
                    told,
                    gone_at: None,
                };
                self.pages.insert(worker, page);
            }
            None => {}
        }
    }

    /// Only these live now: what the others had counted stays.
    pub fn live(&mut self, live: &BTreeSet<WorkerId>, now: Duration) {
        for (worker, page) in &mut self.pages {
            if !live.contains(worker) {
                page.gone_at.get_or_insert(now);
            }
        }
        let is_over = |page: &Page| {
            page.gone_at
                .is_some_and(|at| now.saturating_sub(at) >= LATE)
        };
        let over = self.pages.iter().filter(|(_, page)| is_over(page));
        let over: Vec<WorkerId> = over.map(|(&worker, _)| worker).collect();
        for worker in over {
            if let Some(page) = self.pages.remove(&worker) {
                self.fold(page.told);
            }
        }
    }

    fn fold(&mut self, told: Told) {
        for (name, metric) in told.metrics {
            if !lasts(&metric) {
                continue;
            }
            let series = metric
                .series
                .iter()
                .filter(|(key, _)| is_count(&metric, key));
            let series: Vec<(Series, f64)> = series.cloned().collect();
            let left = self.left.entry(name).or_insert_with(|| Metric {
                series: Vec::new(),
                ..metric
            });
            let mut known: BTreeMap<Series, usize> = BTreeMap::new();
            for (index, (key, _)) in left.series.iter().enumerate() {
                known.insert(key.clone(), index);
            }
            for (key, value) in series {
                match known.get(&key) {
                    Some(&index) => left.series[index].1 += value,
                    None if self.left_series < SERIES_MAX => {
                        self.left_series += 1;
                        left.series.push((key, value));
                    }
                    None => {}
                }
            }
        }
    }

    /// Workers that live and have told any metrics.
    #[must_use]
    pub fn workers(&self) -> usize {
        let live = self.pages.values().filter(|page| page.gone_at.is_none());
        live.filter(|page| !page.told.is_empty()).count()
    }

    /// The metrics of all workers as one.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut pages: Vec<&Page> = self.pages.values().collect();
        pages.sort_by_key(|page| page.position);
        let mut merged: BTreeMap<&str, Merging<'_>> = BTreeMap::new();
        let told = pages.iter().flat_map(|page| {
            let all = page.told.metrics.iter();
            all.map(|(name, metric)| (name, metric, page.gone_at.is_some()))
        });
        let left = self.left.iter().map(|(name, metric)| (name, metric, true));
        for (name, metric, is_gone) in told.chain(left) {
            if !is_gone || lasts(metric) {
                let merging = merged.entry(name).or_insert_with(|| Merging::new(metric));
                merging.add(metric, is_gone);
            }
        }
        let families = merged.into_iter().map(|(name, all)| all.family(name));
        families.collect()
    }
}

/// Whether what a worker has counted stays when it is gone.
fn lasts(metric: &Metric) -> bool {
    metric.aggregator == Aggregator::Sum
        && matches!(metric.kind, Kind::Counter | Kind::Histogram | Kind::Summary)
}

/// Quantiles of a summary are no counts.
fn is_count(metric: &Metric, (name, _): &Series) -> bool {
    metric.kind != Kind::Summary || name.ends_with("_sum") || name.ends_with("_count")
}

/// A metric of several workers.
struct Merging<'a> {
    metric: &'a Metric,
    order: Vec<&'a Series>,
    values: BTreeMap<&'a Series, Vec<f64>>,
}

impl<'a> Merging<'a> {
    fn new(metric: &'a Metric) -> Self {
        Self {
            metric,
            order: Vec::new(),
            values: BTreeMap::new(),
        }
    }

    fn add(&mut self, metric: &'a Metric, is_gone: bool) {
        if metric.kind != self.metric.kind {
            return;
        }
        for (key, value) in &metric.series {
            if is_gone && !is_count(metric, key) {
                continue;
            }
            let values = self.values.entry(key).or_insert_with(|| {
                self.order.push(key);
                Vec::new()
            });
            values.push(*value);
        }
    }

    fn family(self, name: &str) -> Family {
        let is_total = self.metric.kind == Kind::Counter && name.ends_with("_total");
        let bare = if is_total {
            name.trim_end_matches("_total")
        } else {
            name
        };
        let samples = self.order.iter().map(|key| {
            let (own_name, labels) = key;
            Sample {
                suffix: own_name.strip_prefix(bare).unwrap_or_default().to_owned(),
                labels: labels.clone(),
                value: self.metric.aggregator.of(&self.values[key]),
            }
        });
        let mut samples: Vec<Sample> = samples.collect();
        if matches!(self.metric.kind, Kind::Histogram | Kind::Summary) {
            sort_parts(&mut samples);
        }
        Family {
            name: bare.to_owned(),
            help: self.metric.help.clone(),
            kind: self.metric.kind,
            unit: String::new(),
            samples,
        }
    }
}

#[cfg(test)]
mod tests;
