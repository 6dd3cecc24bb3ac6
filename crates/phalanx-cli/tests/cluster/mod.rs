//! What the tests of real clusters share: the binary, a small HTTP client, views of status and events.
#![allow(dead_code, reason = "each test file uses its part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation of a test is a panic"
)]

pub(crate) mod burst;
pub(crate) mod dropin;
pub(crate) mod far;
pub(crate) mod kept;
pub(crate) mod release;
pub(crate) mod scrape;
pub(crate) mod session;
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::control::Events;
pub(crate) use phalanx_testkit::free_port;
use phalanx_testkit::{App, LIMIT, Load, Process, Report, Target, fixtures};
use serde_json::Value;

/// The binary under test.
pub(crate) const PHALANX: &str = env!("CARGO_BIN_EXE_phalanx");

/// An app of the binary under test.
pub(crate) fn app() -> AppBuilder {
    App::builder(PHALANX)
}

/// An example of the library as a program, built when first asked for: `cargo test` builds only the
/// examples of the package that it tests.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/PROFILE/phalanx
        let profile = Path::new(PHALANX).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            // With the features that `cargo test --workspace` has chosen: it has built them already, then.
            .args(["build", "--quiet", "--offline", "--workspace", "--examples"])
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            // Set by who wants the times of the tests; cargo would build everything anew for it.
            .env_remove("RUSTC_BOOTSTRAP")
            .current_dir(fixtures::root());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let output = build.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
    fixtures::example(name)
}

/// So many cells of a test run side by side.
const SIDE_BY_SIDE: usize = 6;

/// Tests each of the cells, some side by side: for tests that wait more than they compute. All of them are tested, also when
/// one fails.
pub(crate) fn side_by_side<T: Send>(
    cells: impl IntoIterator<Item = T, IntoIter: Send>,
    test: impl Fn(T) + Sync,
) {
    let cells = Mutex::new(cells.into_iter());
    let next = || cells.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let tests = std::iter::from_fn(next)
            .map(|cell| panic::catch_unwind(panic::AssertUnwindSafe(|| test(cell))));
        tests.fold(Ok(()), Result::and)
    };
    let failed = thread::scope(|scope| {
        let threads = [(); SIDE_BY_SIDE].map(|()| scope.spawn(work));
        let results = threads.map(|thread| thread.join().and_then(|result| result));
        results.into_iter().find_map(Result::err)
    });
    if let Some(failure) = failed {
        panic::resume_unwind(failure);
    }
}

/// Whether tests may take minutes.
pub(crate) fn is_long() -> bool {
    env::var_os("PHALANX_TEST_LONG").is_some()
}

/// A stream to a server, whose reads and writes fail when they take too long.
pub(crate) trait Connection: Read + Write + Send {}

impl Connection for TcpStream {}
impl Connection for UnixStream {}

/// Connects.
pub(crate) fn connect(target: &Target) -> io::Result<Box<dyn Connection>> {
    match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Ok(Box::new(stream))
        }
        Target::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Ok(Box::new(stream))
        }
        other => panic!("no way to connect to {other}"),
    }
}

/// Writes a request for `path`, which asks the server to close the connection afterwards.
pub(crate) fn ask(connection: &mut dyn Connection, path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())
}

/// Reads a response to the end of the connection, and returns its body.
pub(crate) fn answer(connection: &mut dyn Connection) -> io::Result<String> {
    let mut response = String::new();
    connection.read_to_string(&mut response)?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    assert!(head.starts_with("HTTP/1.1 200"), "{response}");
    Ok(body.to_owned())
}

/// The body that a request on a connection of its own is answered with.
pub(crate) fn try_get(target: &Target, path: &str) -> io::Result<String> {
    let mut connection = connect(target)?;
    ask(connection.as_mut(), path)?;
    answer(connection.as_mut())
}

/// As [`try_get`]; a failure is the test's.
#[track_caller]
pub(crate) fn get(target: &Target, path: &str) -> String {
    match try_get(target, path) {
        Ok(body) => body,
        Err(error) => panic!("GET {path} of {target}: {error}"),
    }
}

/// As [`get`], for bodies that are JSON.
#[track_caller]
pub(crate) fn get_json(target: &Target, path: &str) -> Value {
    let body = get(target, path);
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// The first line that a server sends of itself.
#[track_caller]
pub(crate) fn greeting(target: &Target) -> String {
    let mut line = String::new();
    let connection = connect(target).unwrap();
    BufReader::new(connection).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The number in `pid = N`.
#[track_caller]
pub(crate) fn pid_in(text: &str) -> u32 {
    let number = text.rsplit_once("pid = ").map(|(_, rest)| rest.trim());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no pid: {text:?}"))
}

/// Sends `each` sequential requests a worker, and expects that every worker answered as many.
#[track_caller]
pub(crate) fn expect_in_turn(app: &mut App, target: &Target, each: u64) -> Report {
    let pids = app.worker_pids();
    let count = each * u64::try_from(pids.len()).unwrap();
    let report = Load::new(target.clone()).requests(count).run();
    report.expect_none_lost();
    let even: BTreeMap<u32, u64> = pids.into_iter().map(|pid| (pid, each)).collect();
    assert_eq!(report.pids, even, "{report}");
    report
}

/// Begins a reload, and waits until the old worker was told to leave: it serves nobody new then.
#[track_caller]
pub(crate) fn begin_reload(app: &mut App) -> Process {
    let reload = app.start_verb(["reload"]);
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().into_iter().flatten();
        let drains = workers.filter(|one| one["state"] == "draining").count() == 1;
        drains && status["listeners"][0]["workers"] == 1
    });
    reload
}

/// Reloads and scales an app under load, and stops it: no request is lost.
#[track_caller]
pub(crate) fn expect_none_lost_in_changes(app: &mut App) {
    let target = app.address();
    let load = Load::new(target).clients(4).request_limit(LIMIT).start();
    load.wait_until_ok(50, LIMIT);
    for words in [
        &["reload"][..],
        &["scale", "4"],
        &["scale", "1"],
        &["reload"],
    ] {
        app.verb(words).expect_success();
        load.wait_for_more(50, LIMIT);
    }
    load.stop().expect_none_lost();
    assert!(app.stop().success());
}

/// Kills a worker under load: another one takes its place, and serves what waited for it.
#[track_caller]
pub(crate) fn expect_served_after_a_kill(app: &mut App) {
    let target = app.address();
    let before = app.status();
    let events = app.events();
    let load = Load::new(target).clients(4).request_limit(LIMIT).start();
    load.wait_until_ok(50, LIMIT);
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    wait_state(&events, "ready");
    load.wait_for_more(50, LIMIT);
    let report = load.stop();
    // At most what each client had in the hands of the killed worker.
    assert!(report.disturbed() <= 4, "{report}");
    let after = app.wait_ready(LIMIT);
    assert_eq!(restarts(&after), restarts(&before) + 1);
}

/// The sum of the workers' restarts after crashes.
pub(crate) fn restarts(status: &Value) -> u64 {
    let workers = status["workers"].as_array().into_iter().flatten();
    workers
        .filter_map(|worker| worker["restarts"].as_u64())
        .sum()
}

/// The ids of the workers in a status, in its order.
pub(crate) fn ids(status: &Value) -> Vec<u64> {
    let workers = status["workers"].as_array().into_iter().flatten();
    workers.filter_map(|worker| worker["id"].as_u64()).collect()
}

/// Whether the status shows so many listeners, each served by so many workers.
pub(crate) fn has_listeners(status: &Value, count: usize, workers: u32) -> bool {
    let listeners = status["listeners"].as_array().unwrap();
    listeners.len() == count
        && listeners
            .iter()
            .all(|listener| listener["workers"] == workers)
}

/// Waits for a report of the supervisor.
#[track_caller]
pub(crate) fn wait_report(events: &Events, report: &str) -> Value {
    events.wait_for(LIMIT, report, |event| event["report"] == report)
}

/// Waits until a worker has come into this state, by the supervisor's report.
#[track_caller]
pub(crate) fn wait_state(events: &Events, state: &str) -> Value {
    events.wait_for(LIMIT, state, |event| {
        event["report"] == "changed" && event["to"] == state
    })
}
