//! Circles in a graph of imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use phalanx_testkit::fixtures;

use crate::imports::Imports;

/// Each set of files of which every one can be reached from every other, with what ties them.
pub(crate) fn of(imports: &Imports) -> Vec<String> {
    let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = imports
        .keys()
        .map(|file| (file, reached(imports, file)))
        .collect();
    let reaches =
        |from: &PathBuf, to: &PathBuf| reach.get(from).is_some_and(|found| found.contains(to));
    let mut seen: BTreeSet<&PathBuf> = BTreeSet::new();
    let mut circles = Vec::new();
    for (file, found) in &reach {
        let circle: BTreeSet<&PathBuf> = found
            .iter()
            .copied()
            .filter(|other| reaches(other, file))
            .collect();
        if !circle.is_empty() && seen.insert(file) {
            seen.extend(&circle);
            circles.push(described(imports, &circle));
        }
    }
    circles
}

/// The files that a file imports from, directly or by others.
fn reached<'a>(imports: &'a Imports, file: &PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<&PathBuf> = imports
        .get(file)
        .into_iter()
        .flat_map(|to| to.keys())
        .collect();
    while let Some(next) = ahead.pop() {
        if reached.insert(next) {
            ahead.extend(imports.get(next).into_iter().flat_map(|to| to.keys()));
        }
    }
    reached
}

fn described(imports: &Imports, circle: &BTreeSet<&PathBuf>) -> String {
    let mut text = format!("a circle of {} files:\n", circle.len());
    for from in circle {
        for (to, names) in imports[*from].iter().filter(|(to, _)| circle.contains(to)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (from, to) = (short(from), short(to));
            writeln!(text, "  {from} takes {} from {to}", names.join(", ")).unwrap();
        }
    }
    text
}

fn short(path: &Path) -> String {
    let root = fixtures::root();
    let inside = path.strip_prefix(&root).unwrap_or(path);
    inside.display().to_string()
}
