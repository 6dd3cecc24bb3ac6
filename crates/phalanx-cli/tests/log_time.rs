//! The time in the lines of a primary's log.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use support::{directory, phalanx};

const REFUSED: &str = "phalanx: program \"no-such-program-anywhere\" not found";

/// What the log says of a start that fails, to the letter. It goes into a file, of which `journal` makes the words that journald would
/// set.
fn log_of(options: &[&str], journal: impl Fn(&File) -> Option<String>) -> String {
    let place = directory();
    let path = place.path().join("log");
    let file = File::create(&path).unwrap();
    let words = [&["run"], options, &["--", "no-such-program-anywhere"]].concat();
    let mut command = phalanx(place.path(), &words);
    command.env_remove("JOURNAL_STREAM");
    if let Some(journal) = journal(&file) {
        command.env("JOURNAL_STREAM", journal);
    }
    let status = command.stdin(Stdio::null()).stderr(file).status().unwrap();
    assert!(!status.success());
    fs::read_to_string(path).unwrap()
}

fn without_journald(_: &File) -> Option<String> {
    None
}

fn is_timed(log: &str) -> bool {
    let (time, rest) = log.split_once(' ').unwrap();
    let is_time = time.len() == 24 && time.starts_with("20") && time.ends_with('Z');
    assert_eq!(is_time, rest.starts_with(REFUSED), "{log}");
    is_time
}

#[test]
fn each_line_begins_with_the_time() {
    assert!(is_timed(&log_of(&[], without_journald)));
    assert!(!is_timed(&log_of(
        &["--log-time", "never"],
        without_journald
    )));
}

#[test]
fn journald_adds_the_time_itself() {
    let names_it = |file: &File| {
        let status = file.metadata().unwrap();
        Some(format!("{}:{}", status.dev(), status.ino()))
    };
    assert!(!is_timed(&log_of(&[], names_it)));
    assert!(is_timed(&log_of(&["--log-time", "always"], names_it)));
    // A file to which somebody has redirected it, below a service whose output journald takes.
    assert!(is_timed(&log_of(&[], |_| Some("1:2".to_owned()))));
}
