//! The structure of the code: no circle of imports between files, and walks that the code really takes.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod circles;
mod imports;
mod walks;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use phalanx_testkit::fixtures;

/// The root files of all crates: each library and each program.
fn roots() -> Vec<PathBuf> {
    let crates = fs::read_dir(fixtures::root().join("crates")).unwrap();
    let sources = crates.map(|entry| entry.unwrap().path().join("src"));
    let mut roots: Vec<PathBuf> = sources
        .flat_map(|source| ["lib.rs", "main.rs"].map(|name| source.join(name)))
        .filter(|path| path.is_file())
        .collect();
    roots.sort();
    roots
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found: Vec<String> = roots()
        .iter()
        .flat_map(|root| circles::of(&imports::of(root)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_circle_that_is_planted_is_found() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    file("lib.rs", "mod one;\nmod two;\npub use two::Two;\n");
    file("one.rs", "use crate::Two;\npub struct One(Two);\n");
    file(
        "two.rs",
        "pub struct Two;\n#[cfg(test)]\nmod tests { use crate::one::One; }\n",
    );
    let root = place.path().join("lib.rs");
    assert_eq!(circles::of(&imports::of(&root)), [""; 0]);
    file(
        "two.rs",
        "pub struct Two;\nfn back() { matches!(1, crate::one::ONE); }\n",
    );
    file(
        "one.rs",
        "use crate::Two;\npub struct One(Two);\npub const ONE: u8 = 1;\n",
    );
    let found = circles::of(&imports::of(&root));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("takes ONE from"), "{found:?}");
}

/// What these rooms of the primary take from its state.
fn taken_from_the_state(imports: &imports::Imports) -> Vec<String> {
    let is_in = |file: &Path, rooms: &[&str]| {
        let text = file.to_string_lossy();
        rooms
            .iter()
            .any(|room| text.contains(&format!("/primary/{room}")))
    };
    let rooms = ["tasks/", "release/", "sockets/", "mailbox.rs", "clock.rs"];
    let from_rooms = imports.iter().filter(|(file, _)| is_in(file, &rooms));
    let taken = from_rooms.flat_map(|(file, to)| to.keys().map(move |to| (file, to)));
    let from_the_state = taken.filter(|(_, to)| is_in(to, &["state/", "fork.rs", "worker.rs"]));
    from_the_state
        .map(|(file, to)| format!("{} takes from {}", file.display(), to.display()))
        .collect()
}

#[test]
fn tasks_sockets_and_releases_know_nothing_of_the_state() {
    let root = fixtures::root().join("crates/phalanx/src/lib.rs");
    let mut imports = imports::of(&root);
    let found = taken_from_the_state(&imports);
    assert!(found.is_empty(), "{}", found.join("\n"));
    // One that is planted is found.
    let file = |name: &str| root.with_file_name("primary").join(name);
    let task = imports.get_mut(&file("tasks/accept.rs")).unwrap();
    task.insert(file("state/open.rs"), BTreeSet::default());
    assert_eq!(taken_from_the_state(&imports).len(), 1);
}

#[test]
fn the_walks_of_the_architecture_page_hold() {
    let page = fs::read_to_string(fixtures::root().join("ARCHITECTURE.md")).unwrap();
    let faults = walks::faults(&page);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let wrong = page.replace("`state/dispatch.rs`", "`state/dispatched.rs`");
    let faults = walks::faults(&wrong);
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("there is no state/dispatched.rs")),
        "{faults:?}"
    );
}
