//! The pages: every link leads somewhere, and the book has every page.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use phalanx_testkit::fixtures;

/// All Markdown files below a directory.
fn pages_in(directory: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(pages_in(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

fn pages() -> Vec<PathBuf> {
    let root = fixtures::root();
    let mut pages = pages_in(&root.join("docs"));
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "RELEASING.md",
    ] {
        pages.push(root.join(name));
    }
    pages
}

/// The targets of a page's links (`[text](target)`) that are files, without the part after `#`.
fn links(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files
        .map(|target| target.split('#').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for page in pages() {
        let directory = page.parent().unwrap();
        for link in links(&page) {
            if !directory.join(&link).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_book_has_every_page() {
    let docs = fixtures::root().join("docs");
    let summary = docs.join("SUMMARY.md");
    let listed: BTreeSet<PathBuf> = links(&summary).iter().map(|link| docs.join(link)).collect();
    let mut there: BTreeSet<PathBuf> = pages_in(&docs).into_iter().collect();
    there.remove(&summary);
    assert_eq!(listed, there);
}

#[test]
fn every_check_runs_with_the_oldest_rust_that_is_promised() {
    let quoted = |file: &str, key: &str| {
        let text = fs::read_to_string(fixtures::root().join(file)).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.split('"').nth(1));
        value.unwrap().to_owned()
    };
    let promised = quoted("Cargo.toml", "rust-version = ");
    let used = quoted("rust-toolchain.toml", "channel = ");
    assert!(
        used.starts_with(&format!("{promised}.")),
        "{promised}, {used}"
    );
    let page = fs::read_to_string(fixtures::root().join("README.md")).unwrap();
    assert!(page.contains(&format!("Rust {promised} or newer")));
}
