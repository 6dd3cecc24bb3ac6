//! Metrics of Python applications, as `prometheus_client` keeps them in multiprocess mode, merged over all processes and those before them.
//!
//! Merging is the same for processes that live and for what others have left, in any order: counters, histograms and summaries are
//! added, gauges as their `multiprocess_mode` says. What is gone is folded by [`Figures::lasting`]: counts stay for ever, so that they never
//! fall, and so do the gauges that the application wants of dead processes too; those of the living go. A gauge of the mode `all` stands for
//! one process, by its position.
//!
//! INVARIANT: nothing of what a process has written is trusted. What has no valid name, a label that is too long, or comes beyond
//! [`SERIES_MAX`] is left out.

mod file;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::app_metrics::{OWN, SERIES_MAX, TEXT_MAX, is_name};
use crate::exposition::{Family, Kind as Exposed, Sample, sort_parts};
use file::{Entries, Key, Kind, Merge, Point};

pub use file::{Corrupt, FileName};

/// A sample's name with its labels, in order.
type Series = (String, Vec<(String, String)>);

/// Values of one metric.
#[derive(Clone, Debug, PartialEq)]
struct Metric {
    help: String,
    kind: Kind,
    series: BTreeMap<Series, Point>,
}

/// Metrics by name. See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    metrics: BTreeMap<String, Metric>,
    series: usize,
}

impl Figures {
    /// Adds what a file has. `labels` tell one process from the others, where each stands for itself.
    ///
    /// # Errors
    /// [`Corrupt`] where the file contradicts itself; what comes before is added.
    pub fn read(
        &mut self,
        name: FileName<'_>,
        bytes: &[u8],
        labels: &[(&str, &str)],
    ) -> Result<(), Corrupt> {
        for entry in Entries::of(bytes) {
            let (key, point) = entry?;
            if let Some(key) = Key::parse(key).filter(is_valid) {
                self.take(name.kind, key, point, labels);
            }
        }
        Ok(())
    }

    fn take(&mut self, kind: Kind, mut key: Key, point: Point, labels: &[(&str, &str)]) {
        if kind.merge() == Merge::Each {
            for (name, value) in labels {
                // What the application calls so is its own.
                let is_taken = key.labels.iter().any(|(taken, _)| taken == name);
                let prefix = if is_taken { OWN } else { "" };
                key.labels
                    .push((format!("{prefix}{name}"), (*value).to_owned()));
            }
            key.labels.sort_unstable();
        }
        let help = key.help.chars().take(TEXT_MAX).collect();
        self.add(&key.metric, (help, kind), (key.sample, key.labels), point);
    }

    fn add(&mut self, metric: &str, (help, kind): (String, Kind), series: Series, point: Point) {
        let metric = self.metrics.entry(metric.to_owned()).or_insert(Metric {
            help,
            kind,
            series: BTreeMap::new(),
        });
        // A name is of one kind: that of whoever came first.
        if metric.kind != kind {
            return;
        }
        match metric.series.entry(series) {
            Entry::Occupied(mut known) => merge(kind.merge(), known.get_mut(), point),
            Entry::Vacant(place) if self.series < SERIES_MAX => {
                self.series += 1;
                place.insert(point);
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Adds other figures. Where each process stands for itself, those that are there already stay.
    pub fn merge(&mut self, other: &Self) {
        for (name, metric) in &other.metrics {
            for (series, point) in &metric.series {
                let what = (metric.help.clone(), metric.kind);
                self.add(name, what, series.clone(), *point);
            }
        }
    }

    /// What stays of them when their process is gone.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.metrics.retain(|_, metric| metric.kind.lasts());
        let counts = self.metrics.values().map(|metric| metric.series.len());
        self.series = counts.sum();
        self
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// The metrics as families.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let all = self.metrics.iter();
        all.map(|(name, metric)| metric.family(name)).collect()
    }
}

fn is_valid(key: &Key) -> bool {
    let labels_fit = key
        .labels
        .iter()
        .all(|(name, value)| is_name(name, '_') && value.len() <= TEXT_MAX);
    is_name(&key.metric, ':')
        && is_name(&key.sample, ':')
        && key.sample.starts_with(&key.metric)
        && !key.metric.starts_with(OWN)
        && labels_fit
}

fn merge(how: Merge, known: &mut Point, other: Point) {
    match how {
        Merge::Sum => known.value += other.value,
        Merge::Min => known.value = known.value.min(other.value),
        Merge::Max => known.value = known.value.max(other.value),
        Merge::Latest if other.at > known.at => *known = other,
        Merge::Latest | Merge::Each => {}
    }
}

impl Metric {
    fn family(&self, name: &str) -> Family {
        let samples = self.series.iter().map(|((sample, labels), point)| Sample {
            suffix: sample.strip_prefix(name).unwrap_or_default().to_owned(),
            labels: labels.clone(),
            value: point.value,
        });
        let mut samples: Vec<Sample> = samples.collect();
        let kind = match self.kind {
            Kind::Counter => Exposed::Counter,
            Kind::Gauge { .. } => Exposed::Gauge,
            Kind::Summary => Exposed::Summary,
            Kind::Histogram => Exposed::Histogram,
        };
        if self.kind == Kind::Histogram {
            samples.retain(|sample| sample.suffix != "_count");
            sort_parts(&mut samples);
            samples = add_up(samples);
        }
        if matches!(self.kind, Kind::Histogram | Kind::Summary) {
            sort_parts(&mut samples);
        }
        Family {
            name: name.to_owned(),
            help: self.help.clone(),
            kind,
            unit: String::new(),
            samples,
        }
    }
}

/// The library counts each class by itself, and no sum of them: here each has those below it, and the count is that of the last.
fn add_up(samples: Vec<Sample>) -> Vec<Sample> {
    let mut sums: BTreeMap<Vec<(String, String)>, f64> = BTreeMap::new();
    let mut out = Vec::with_capacity(samples.len());
    for mut sample in samples {
        if sample.suffix == "_bucket" {
            let rest = sample.labels.iter().filter(|(name, _)| name != "le");
            let sum = sums.entry(rest.cloned().collect()).or_default();
            *sum += sample.value;
            sample.value = *sum;
        }
        out.push(sample);
    }
    out.extend(sums.into_iter().map(|(labels, value)| Sample {
        suffix: "_count".to_owned(),
        labels,
        value,
    }));
    out
}

#[cfg(test)]
mod tests;
