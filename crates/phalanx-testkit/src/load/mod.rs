//! Bounded HTTP/1.1 load on loopback.
//!
//! Client threads send one request after the other and account for each: answered, or failed with
//! a class that names the moment ([`Failure`]). What RFC 9112 section 9.3.1 lets a client repeat —
//! the server closed a reused connection before any byte of the response — is repeated once on a
//! new connection and counted apart ([`Report::retryable`]), never hidden.
//!
//! INVARIANT: every request begun is counted exactly once, as answered or as failed.

mod client;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use report::{Failure, FailureSample, Report};

use crate::socket::Target;
use crate::wait::{self, Deadline, LIMIT};
use client::Client;
use report::Tally;

/// How clients use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// A new connection for each request, with `Connection: close`.
    ConnectionPerRequest,
    /// Connections are reused as long as the server lets them be.
    KeepAlive,
}

/// A load to drive. Without [`Load::requests`] and [`Load::time`] it runs until stopped.
#[derive(Clone, Debug)]
#[must_use]
pub struct Load {
    target: Target,
    mode: Mode,
    clients: usize,
    path: String,
    requests: u64,
    time: Option<Duration>,
    request_limit: Duration,
    pause: Option<Duration>,
}

/// How long a client of a load without a count rests between two requests: what is tested beside it, and other tests, need
/// the processors, too.
const BREATH: Duration = Duration::from_millis(1);

impl Load {
    /// `GET /` from one client with a connection for each request, [`LIMIT`] for each at most.
    pub fn new(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            mode: Mode::ConnectionPerRequest,
            clients: 1,
            path: "/".to_owned(),
            requests: u64::MAX,
            time: None,
            request_limit: LIMIT,
            pause: None,
        }
    }

    /// How connections are used.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The number of clients, each a thread with one request at a time.
    pub fn clients(mut self, count: usize) -> Self {
        self.clients = count;
        self
    }

    /// The request's target, `/` unless told otherwise.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Ends after this many requests of all clients together.
    pub fn requests(mut self, count: u64) -> Self {
        self.requests = count;
        self
    }

    /// Ends after this time; requests begun are finished.
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// The longest time a request may take, from connecting to the last byte.
    pub fn request_limit(mut self, limit: Duration) -> Self {
        self.request_limit = limit;
        self
    }

    /// How long each client rests between two requests. A kept connection that the server closes
    /// meanwhile is noticed before the next request and is no failure. Without this: a millisecond, or not at all in a load
    /// of so many requests.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = Some(pause);
        self
    }

    fn rest(&self) -> Duration {
        let is_counted = self.requests < u64::MAX;
        let usual = if is_counted { Duration::ZERO } else { BREATH };
        self.pause.unwrap_or(usual)
    }

    /// Starts the clients.
    pub fn start(self) -> RunningLoad {
        let progress = Arc::new(Progress {
            started_at: wait::now(),
            ..Progress::default()
        });
        let ends_at = self.time.map(Deadline::after);
        let spawn = |_| {
            let (load, progress) = (self.clone(), Arc::clone(&progress));
            thread::spawn(move || Client::new(&load, &progress).run(ends_at))
        };
        RunningLoad {
            clients: (0..self.clients).map(spawn).collect(),
            progress,
        }
    }

    /// Drives the load to its end.
    ///
    /// # Panics
    /// When the load has no end, neither a count nor a time.
    #[must_use]
    #[track_caller]
    pub fn run(self) -> Report {
        assert!(
            self.requests < u64::MAX || self.time.is_some(),
            "a load without end"
        );
        self.start().finish()
    }
}

/// What the clients share while they run.
#[derive(Debug)]
struct Progress {
    started_at: Instant,
    stop: AtomicBool,
    begun: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started_at: wait::now(),
            stop: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

/// A load under way. Dropping it stops the clients.
#[derive(Debug)]
pub struct RunningLoad {
    clients: Vec<JoinHandle<Tally>>,
    progress: Arc<Progress>,
}

impl RunningLoad {
    /// The number of requests answered so far.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.progress.ok.load(Ordering::Relaxed)
    }

    /// The number of requests failed so far; retryable closes are not among them.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.progress.failed.load(Ordering::Relaxed)
    }

    /// Waits until `count` requests have been answered since the start.
    #[track_caller]
    pub fn wait_until_ok(&self, count: u64, deadline: impl Into<Deadline>) {
        let reached = wait::try_eventually(deadline, || (self.ok() >= count).then_some(()));
        let (ok, failed) = (self.ok(), self.failed());
        assert!(
            reached.is_some(),
            "{count} answers wanted, {ok} got, {failed} requests failed"
        );
    }

    /// Waits until `count` more requests have been answered than there are now.
    #[track_caller]
    pub fn wait_for_more(&self, count: u64, deadline: impl Into<Deadline>) {
        self.wait_until_ok(self.ok() + count, deadline);
    }

    /// Lets each client finish the request it has begun, and reports.
    #[must_use]
    #[track_caller]
    pub fn stop(self) -> Report {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the load's own end, and reports.
    #[must_use]
    #[track_caller]
    pub fn finish(mut self) -> Report {
        let clients = std::mem::take(&mut self.clients);
        let tallies = clients
            .into_iter()
            .map(|client| client.join().expect("no client panics"));
        let tally = tallies.fold(Tally::default(), Tally::merge);
        tally.into_report(self.progress.started_at.elapsed())
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // A client's panic was the test's failure already, or becomes it in `finish`.
            client.join().ok();
        }
    }
}
