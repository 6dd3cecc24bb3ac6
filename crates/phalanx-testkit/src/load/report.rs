//! What became of the requests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How many failures are kept one by one.
const MAX_SAMPLES: usize = 100;

/// What went wrong with a request, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Failure {
    /// Nobody listens: the connection was refused.
    Refused,
    /// Reset while connecting, or before the request was written.
    ConnectReset,
    /// Reset after the request was written and before any byte of the response.
    Reset,
    /// Closed after the request was written and before any byte of the response.
    ClosedBeforeResponse,
    /// Closed or reset within the response.
    Truncated,
    /// Not done within the limit for one request.
    TimedOut,
    /// A complete response whose status is not 2xx.
    BadStatus(u16),
    /// The bytes were no HTTP response, or came unasked.
    Malformed,
    /// The client itself could not: no ports or descriptors left. Says nothing about the server.
    ClientFault,
}

/// One failure, for finding out why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailureSample {
    /// When it was noticed, counted from the start of the load.
    pub at: Duration,
    /// Its class.
    pub failure: Failure,
    /// Whether the connection had served a request before.
    pub on_reused_connection: bool,
    /// Whether it was counted as retryable and repeated.
    pub retried: bool,
    /// The error, where there was one.
    pub detail: String,
}

/// The account of one client.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) latencies: Vec<Duration>,
    pub(super) failures: BTreeMap<Failure, u64>,
    pub(super) retryable: BTreeMap<Failure, u64>,
    pub(super) pids: BTreeMap<u32, u64>,
    pub(super) samples: Vec<FailureSample>,
    pub(super) connections: u64,
    pub(super) announced_closes: u64,
    pub(super) idle_closes: u64,
}

impl Tally {
    pub(super) fn sample(&mut self, sample: FailureSample) {
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(sample);
        }
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.latencies.extend(other.latencies);
        self.samples.extend(other.samples);
        add_counts(&mut self.failures, other.failures);
        add_counts(&mut self.retryable, other.retryable);
        add_counts(&mut self.pids, other.pids);
        self.connections += other.connections;
        self.announced_closes += other.announced_closes;
        self.idle_closes += other.idle_closes;
        self
    }

    pub(super) fn into_report(mut self, elapsed: Duration) -> Report {
        self.latencies.sort_unstable();
        self.samples.sort_by_key(|sample| sample.at);
        self.samples.truncate(MAX_SAMPLES);
        Report {
            elapsed,
            ok: u64::try_from(self.latencies.len()).expect("usize is 64 bits here"),
            failures: self.failures,
            retryable: self.retryable,
            pids: self.pids,
            samples: self.samples,
            connections: self.connections,
            announced_closes: self.announced_closes,
            idle_closes: self.idle_closes,
            latencies: self.latencies,
        }
    }
}

fn add_counts<K: Ord>(to: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key).or_default() += count;
    }
}

/// The account of a load. Printing it shows everything that failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// From the start to the last client's end.
    pub elapsed: Duration,
    /// Requests answered with 2xx.
    pub ok: u64,
    /// Requests that failed, by class.
    pub failures: BTreeMap<Failure, u64>,
    /// Reused connections that the server closed or reset before any byte of a response, by what
    /// the client saw. Each of these requests was repeated, and counts as its repetition went.
    pub retryable: BTreeMap<Failure, u64>,
    /// Answers by the `pid = N` in their bodies (also `pid=N`, `"pid":N`).
    pub pids: BTreeMap<u32, u64>,
    /// The first failures, in order of time.
    pub samples: Vec<FailureSample>,
    /// Connections made.
    pub connections: u64,
    /// Connections that the server ended the proper way, by `Connection: close` in its response.
    pub announced_closes: u64,
    /// Idle connections that the server had closed before the client wanted to use them again.
    pub idle_closes: u64,
    latencies: Vec<Duration>,
}

impl Report {
    /// Requests that failed, retryable closes not included.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Requests that failed or had to be repeated.
    #[must_use]
    pub fn disturbed(&self) -> u64 {
        self.failed() + self.retryable.values().sum::<u64>()
    }

    /// The number of failures of one class.
    #[must_use]
    pub fn count(&self, failure: Failure) -> u64 {
        self.failures.get(&failure).copied().unwrap_or_default()
    }

    /// Panics unless requests were answered and none failed; repeated ones are allowed.
    #[track_caller]
    pub fn expect_none_failed(&self) {
        assert!(self.ok > 0 && self.failed() == 0, "{self}");
    }

    /// Panics unless requests were answered and none failed or had to be repeated.
    #[track_caller]
    pub fn expect_none_lost(&self) {
        assert!(self.ok > 0 && self.disturbed() == 0, "{self}");
    }

    /// The latency that the share `quantile` (0 to 1) of the answered requests did not exceed.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list; a rounding error in it is harmless"
        )]
        let index = (quantile.clamp(0.0, 1.0) * self.latencies.len() as f64) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies
            .get(index.min(last))
            .copied()
            .unwrap_or_default()
    }

    /// Answered requests a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn throughput(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ok, rate) = (self.ok, self.throughput());
        writeln!(
            f,
            "{ok} ok in {:.1?} ({rate:.0}/s), {} failed",
            self.elapsed,
            self.failed()
        )?;
        let (connections, announced, idle) =
            (self.connections, self.announced_closes, self.idle_closes);
        writeln!(
            f,
            "  {connections} connections, {announced} announced closes, {idle} while idle"
        )?;
        let (half, most, all) = (self.latency(0.5), self.latency(0.99), self.latency(1.0));
        writeln!(f, "  latency p50 {half:.1?}, p99 {most:.1?}, max {all:.1?}")?;
        for (failure, count) in &self.failures {
            writeln!(f, "  failed: {failure:?} × {count}")?;
        }
        for (failure, count) in &self.retryable {
            writeln!(f, "  retryable: {failure:?} × {count}")?;
        }
        for (pid, count) in &self.pids {
            writeln!(f, "  pid {pid}: {count}")?;
        }
        for sample in self.samples.iter().take(10) {
            let FailureSample {
                at,
                failure,
                on_reused_connection,
                retried,
                detail,
            } = sample;
            let connection = if *on_reused_connection {
                "reused"
            } else {
                "fresh"
            };
            let retried = if *retried { ", retried" } else { "" };
            writeln!(
                f,
                "  at {at:.3?}: {failure:?} on a {connection} connection{retried} {detail}"
            )?;
        }
        Ok(())
    }
}
