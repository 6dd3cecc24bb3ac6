//! Starts real clusters, drives load, injects faults.
//!
//! Every part is blocking and uses threads of the standard library only, so that what is measured
//! and tested never shares a runtime with the tool that tests it.
//!
//! * [`app`] starts the real `phalanx` binary in a directory of its own and talks to its socket;
//! * [`process`] starts any other program with the same captured output and the same cleanup;
//! * [`load`] drives HTTP load and gives every failure a name and a moment;
//! * [`wait`] is the only place that waits, always with a deadline;
//! * [`node`] finds the Node versions, [`procs`] reads `/proc`, [`fixtures`] finds files, [`free_port`] a port.
//!
//! INVARIANT: whatever a test starts ends with the value that started it, even when the test
//! panics: [`process::Process`] marks its descendants by an environment variable and kills them
//! through pidfds.
//!
//! A failed expectation is a panic that carries the captured output; no function here returns an
//! error that a test would only unwrap.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a failed expectation of a test is a panic"
)]
#![allow(
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "most calls are made for what they wait for or check, whatever they return"
)]

pub mod app;
pub mod control;
pub mod fixtures;
mod http;
pub mod lines;
pub mod load;
pub mod node;
mod ports;
pub mod process;
pub mod procs;
mod socket;
pub mod wait;

pub use app::App;
pub use load::{Load, Mode, Report, RunningLoad};
pub use ports::free_port;
pub use process::Process;
pub use rustix::process::Signal;
pub use socket::Target;
pub use wait::{Deadline, LIMIT};

/// Says that a test could not run because something is missing: a panic where `CI=true`, else a
/// loud line on stderr. Takes the arguments of [`format!`].
#[macro_export]
macro_rules! missing {
    ($($what:tt)*) => { $crate::report_missing(&format!($($what)*)) };
}

/// The function behind [`missing!`].
#[track_caller]
pub fn report_missing(what: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "needed in CI and missing: {what}"
    );
    say(&format!("NOT RUN: missing {what}"));
}

/// Says something to whoever watches the tests.
#[expect(clippy::print_stderr, reason = "a test that does not run must be seen")]
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// The path of `program` on `PATH`; when absent, that is reported by [`missing!`].
#[track_caller]
pub fn require(program: &str) -> Option<std::path::PathBuf> {
    let found = fixtures::on_path(program);
    if found.is_none() {
        missing!("the program {program}");
    }
    found
}
