//! A script that a test replaces by its next release.

use std::fs;
use std::path::PathBuf;

use phalanx_testkit::fixtures;

/// A release: a script that a test replaces by the next one, in a directory of its own.
pub(crate) struct Release {
    directory: tempfile::TempDir,
}

impl Release {
    pub(crate) fn of(fixture: &str) -> Self {
        let release = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        release.deploy(fixture);
        release
    }

    pub(crate) fn script(&self) -> PathBuf {
        self.directory.path().join("server.js")
    }

    /// Puts the next version in the place of the one that is there, as a rename does it.
    pub(crate) fn deploy(&self, fixture: &str) {
        let next = self.directory.path().join("next");
        fs::copy(fixtures::fixture(fixture), &next).unwrap();
        fs::rename(next, self.script()).unwrap();
    }
}
