//! What the tests of the command itself share.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed expectation of a test is a panic"
)]

pub(crate) mod browser;
#[cfg(feature = "top")]
pub(crate) mod terminal;
pub(crate) mod view;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::process::Output;
use phalanx_testkit::{App, LIMIT, Process, fixtures};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const PHALANX: &str = env!("CARGO_BIN_EXE_phalanx");

/// An app of the binary under test.
pub(crate) fn app() -> AppBuilder {
    App::builder(PHALANX)
}

/// The binary under test, with its sockets in `directory` and nowhere else.
pub(crate) fn phalanx(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PHALANX);
    command
        .args(words)
        .env("PHALANX_RUNTIME_DIR", directory)
        .env_remove("PHALANX_NAME");
    command
}

/// Runs the binary under test, in a directory of its own, to its end.
pub(crate) fn run_alone(words: &[&str]) -> Output {
    let directory = directory();
    Process::run(phalanx(directory.path(), words), LIMIT)
}

/// A directory whose path leaves room for a socket's name.
pub(crate) fn directory() -> TempDir {
    let builder = tempfile::Builder::new().prefix("px").tempdir_in("/tmp");
    builder.expect("a writable temp directory")
}

/// The path of a fixture, as a word of a command line.
pub(crate) fn fixture(name: &str) -> String {
    fixtures::fixture(name).display().to_string()
}

/// A copy of a fixture that a test may change.
pub(crate) fn changeable(directory: &Path, name: &str) -> PathBuf {
    let copy = directory.join("server.js");
    fs::copy(fixtures::fixture(name), &copy).expect("fixtures are readable");
    copy
}

/// Panics unless the program ended with this status and said this on standard error.
#[track_caller]
pub(crate) fn expect_refused(output: &Output, code: i32, parts: &[&str]) {
    let stderr = &output.stderr;
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}
