//! Finds the files that tests start: fixtures of the repository, examples, programs on `PATH`.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;
use crate::wait::LIMIT;

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .expect("the kit is two levels below the root")
}

/// A file of `fixtures/`; panics when there is none of that name.
#[must_use]
#[track_caller]
pub fn fixture(name: &str) -> PathBuf {
    let path = root().join("fixtures").join(name);
    assert!(path.is_file(), "no such fixture: {}", path.display());
    path
}

/// A built example of the workspace, beside the running test in the target directory.
#[must_use]
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of the running test");
    // target/PROFILE/deps/TEST-HASH
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests run from target/PROFILE/deps");
    let path = profile.join("examples").join(name);
    assert!(
        path.is_file(),
        "not built (cargo build --examples): {}",
        path.display()
    );
    path
}

/// Copies a program that is to be executed.
///
/// A process of its own does it: what another thread of this one forks meanwhile would have the copy open for writing
/// until it executes, and so long the copy could not be executed (`ETXTBSY`, execve(2)).
#[track_caller]
pub fn copy_program(program: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg("--").arg(program).arg(to);
    Process::run(copy, LIMIT).expect_success();
}

/// The first executable file of that name on `PATH`.
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| is_program(file))
}

/// The first program of this name on `PATH` that every user may execute: what lies in somebody's home is left out.
pub fn on_path_for_all(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let may_all = |path: &Path| {
        path.metadata()
            .is_ok_and(|data| data.permissions().mode() & 0o001 != 0)
    };
    env::split_paths(&path)
        .filter_map(|directory| directory.join(program).canonicalize().ok())
        .find(|file| is_program(file) && file.ancestors().all(may_all))
}

pub(crate) fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(on_path("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(on_path("no-such-program-anywhere"), None);
        assert!(on_path_for_all("sh").is_some_and(|path| path.is_absolute()));
    }
}
