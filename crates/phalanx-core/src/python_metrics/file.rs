//! The files that Python's `prometheus_client` writes in multiprocess mode: one for each process and kind of metric, mapped into its
//! memory, so that what a process has counted survives it however it ends.
//!
//! Such a file begins with a number: how many bytes of it are in use, these eight included. Entries follow: the length of a key, the key,
//! spaces up to a multiple of eight bytes, the value, and the time of the value in seconds. Numbers are as the machine writes them: 32 bits
//! for lengths, doubles for the rest. The key is JSON: the metric's name, the sample's name, labels, help.
//!
//! INVARIANT: any bytes may be in it. The process writes while this reads: an entry is complete before it counts as used.

use std::fmt;

use serde_json::Value;

/// How values of several processes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    Sum,
    Min,
    Max,
    /// The one with the latest time.
    Latest,
    /// None: each stands for itself.
    Each,
}

/// What kind of metrics a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Histogram,
    Summary,
    Gauge { merge: Merge, live: bool },
}

impl Kind {
    fn named(text: &str) -> Option<Self> {
        Some(match text {
            "counter" => Self::Counter,
            "histogram" => Self::Histogram,
            "summary" => Self::Summary,
            gauge => {
                let mode = gauge.strip_prefix("gauge_")?;
                let merge = match mode.strip_prefix("live").unwrap_or(mode) {
                    "sum" => Merge::Sum,
                    "min" => Merge::Min,
                    "max" => Merge::Max,
                    "mostrecent" => Merge::Latest,
                    "all" => Merge::Each,
                    _ => return None,
                };
                let live = mode.starts_with("live");
                Self::Gauge { merge, live }
            }
        })
    }

    /// How its values are merged.
    pub(super) fn merge(self) -> Merge {
        match self {
            Self::Counter | Self::Histogram | Self::Summary => Merge::Sum,
            Self::Gauge { merge, .. } => merge,
        }
    }

    /// Whether values stay when their process is gone. What stands for one process goes with it.
    pub(super) fn lasts(self) -> bool {
        match self {
            Self::Counter | Self::Histogram | Self::Summary => true,
            Self::Gauge { merge, live } => !live && merge != Merge::Each,
        }
    }
}

/// The name of such a file: `KIND_PROCESS.db`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName<'a> {
    name: &'a str,
    pub(super) kind: Kind,
    process: &'a str,
}

impl<'a> FileName<'a> {
    /// None if no file of the library is called so.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let (kind, process) = name.strip_suffix(".db")?.rsplit_once('_')?;
        let kind = Kind::named(kind)?;
        Some(Self {
            name,
            kind,
            process,
        })
    }

    /// The process that writes it, as it calls itself: its pid, unless the application has chosen something else.
    #[must_use]
    pub fn process(self) -> &'a str {
        self.process
    }

    /// Whether each value stands for this process alone.
    #[must_use]
    pub fn is_of_one(self) -> bool {
        self.kind.merge() == Merge::Each
    }
}

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A value, and when it was set; 0 where nobody said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) value: f64,
    pub(super) at: f64,
}

/// What a file ends with that its own numbers contradict. What came before is good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at} it is no file of prometheus_client")]
pub struct Corrupt {
    at: usize,
}

/// The entries of a file, in its order; after an error there is no other.
pub(super) struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    used: usize,
}

impl<'a> Entries<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let used = number(bytes, 0).unwrap_or(0);
        Self { bytes, at: 8, used }
    }

    fn entry(&self) -> Option<(&'a [u8], Point, usize)> {
        let length = number(self.bytes, self.at)?;
        let key = self.bytes.get(self.at + 4..)?.get(..length)?;
        // At least one space follows, also where the key ends at a multiple of eight.
        let value_at = (self.at + 4 + length) / 8 * 8 + 8;
        let end = value_at.checked_add(16).filter(|end| *end <= self.used)?;
        let value = double(self.bytes, value_at)?;
        let at = double(self.bytes, value_at + 8)?;
        Some((key, Point { value, at }, end))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(&'a [u8], Point), Corrupt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.used {
            return None;
        }
        let Some((key, point, end)) = self.entry() else {
            let at = std::mem::replace(&mut self.at, usize::MAX);
            return Some(Err(Corrupt { at }));
        };
        self.at = end;
        Some(Ok((key, point)))
    }
}

/// A length; none where it is negative.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk()?;
    usize::try_from(i32::from_ne_bytes(*four)).ok()
}

fn double(bytes: &[u8], at: usize) -> Option<f64> {
    let eight = bytes.get(at..)?.first_chunk()?;
    Some(f64::from_ne_bytes(*eight))
}

/// A key, taken apart.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) metric: String,
    pub(super) sample: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) help: String,
}

impl Key {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (metric, sample, labels, help): (String, String, serde_json::Map<_, _>, String) =
            serde_json::from_slice(bytes).ok()?;
        let text = |value: Value| match value {
            Value::String(text) => text,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => value.to_string(),
        };
        let labels = labels.into_iter().map(|(name, value)| (name, text(value)));
        let mut labels: Vec<_> = labels.collect();
        labels.sort_unstable();
        Some(Self {
            metric,
            sample,
            labels,
            help,
        })
    }
}
