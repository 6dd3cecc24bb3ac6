//! The walks of ARCHITECTURE.md: each names files that are there, as many as it says, and no more than a walk may have.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use phalanx_testkit::fixtures;

/// How many files a walk may pass, by its first words.
pub(crate) const LIMITS: [(&str, usize); 5] = [
    ("A connection by handoff", 10),
    ("A reload", 16),
    ("A crash", 10),
    ("A message", 10),
    ("A bind", 9),
];

/// What is wrong with the walks of this page.
pub(crate) fn faults(page: &str) -> Vec<String> {
    let sources = sources();
    let walks = walks(page);
    let mut faults = Vec::new();
    for (start, limit) in LIMITS {
        let Some(walk) = walks.iter().find(|walk| walk.starts_with(start)) else {
            faults.push(format!("no walk begins with {start:?}"));
            continue;
        };
        let mut passed = BTreeSet::new();
        for name in files(walk) {
            let there: Vec<&PathBuf> = sources
                .iter()
                .filter(|path| path.ends_with(name) || is_of_crate(path, name))
                .collect();
            match there[..] {
                [path] => drop(passed.insert(path)),
                [] => faults.push(format!("{start}: there is no {name}")),
                _ => faults.push(format!("{start}: {name} may be {there:?}")),
            }
        }
        let said = number(walk);
        if said != Some(passed.len()) {
            faults.push(format!(
                "{start}: says {said:?}, and names {} files",
                passed.len()
            ));
        }
        if passed.len() > limit {
            faults.push(format!(
                "{start}: passes {} files, and may pass {limit}",
                passed.len()
            ));
        }
    }
    faults
}

/// `core/src/ledger.rs` is `phalanx-core/src/ledger.rs`.
fn is_of_crate(path: &Path, name: &str) -> bool {
    let (room, _) = name.split_once('/').unwrap_or((name, ""));
    matches!(room, "core" | "sys") && path.ends_with(format!("phalanx-{name}"))
}

/// The items of the list of walks, each on one line.
fn walks(page: &str) -> Vec<String> {
    let list = page.split("Five walks").nth(1).unwrap_or_default();
    let list = list.split("\n\nA file counts").next().unwrap_or_default();
    list.split("\n* ")
        .skip(1)
        .map(|walk| walk.replace('\n', " "))
        .collect()
}

/// The names in backquotes that are files with a room; `any_port.rs` alone is none.
fn files(walk: &str) -> impl Iterator<Item = &str> {
    let quoted = walk.split('`').skip(1).step_by(2);
    let is_rust = |name: &str| Path::new(name).extension() == Some(OsStr::new("rs"));
    quoted.filter(move |name| name.contains('/') && is_rust(name))
}

/// The number in the first parentheses.
fn number(walk: &str) -> Option<usize> {
    walk.split_once('(')?.1.split_once(')')?.0.parse().ok()
}

/// Every source file, by its path below `crates`.
fn sources() -> Vec<PathBuf> {
    let root = fixtures::root().join("crates");
    let mut found = Vec::new();
    let mut ahead = vec![root.clone()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.strip_prefix(&root).unwrap();
            if path.is_dir() {
                ahead.push(path);
            } else if inside
                .components()
                .nth(1)
                .is_some_and(|part| part.as_os_str() == "src")
            {
                found.push(inside.to_owned());
            }
        }
    }
    found
}
