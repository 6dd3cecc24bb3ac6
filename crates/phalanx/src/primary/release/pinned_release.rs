//! What a release was made of, found again after a deploy: the executable, the files named among its
//! arguments, and the directory, as they were when its generation began.
//!
//! A deploy moves a link (`current`) or renames a new file over the old one. Whoever is started for
//! the older generation afterwards, by a respawn or by a revert, must not get the newer release
//! under the older number. As long as nothing has moved, everything is passed on as it was written.
//!
//! What is overwritten in place, without a rename, and what a script loads by itself, cannot be kept.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An executable, as it was found.
#[derive(Clone, Debug)]
pub(in crate::primary) struct PinnedProgram {
    /// As it was looked up; may lead through links.
    path: PathBuf,
    /// The same without links.
    real: PathBuf,
    identity: Option<Identity>,
    /// The open file: also good when nobody can find it any more. None for a file that starts with
    /// `#!`, whose interpreter could not open it again, and for one that cannot be read.
    file: Option<Arc<OwnedFd>>,
}

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl PinnedProgram {
    pub(in crate::primary) fn new(path: PathBuf) -> Self {
        Self {
            real: fs::canonicalize(&path).unwrap_or_else(|_| path.clone()),
            identity: Identity::of(&path),
            file: open_binary(&path),
            path,
        }
    }

    /// Where it is now, and the open file if it is nowhere any more.
    pub(in crate::primary) fn find(&self) -> (PathBuf, Option<Arc<OwnedFd>>) {
        let is_there = |path: &&PathBuf| {
            self.identity
                .is_some_and(|it| Identity::of(path) == Some(it))
        };
        match [&self.path, &self.real].into_iter().find(is_there) {
            Some(path) => (path.clone(), None),
            None if self.file.is_some() => (self.path.clone(), self.file.clone()),
            None => (self.real.clone(), None),
        }
    }
}

fn open_binary(path: &Path) -> Option<Arc<OwnedFd>> {
    let mut file = File::open(path).ok()?;
    let mut start = [0; 2];
    let is_script = file.read_exact(&mut start).is_ok() && &start == b"#!";
    (!is_script).then(|| Arc::new(OwnedFd::from(file)))
}

/// An argument; if it names a regular file, with the place where that was found.
#[derive(Clone, Debug)]
pub(in crate::primary) struct PinnedArgument {
    text: OsString,
    real: Option<PathBuf>,
}

impl PinnedArgument {
    pub(in crate::primary) fn new(text: &OsStr, directory: &Path) -> Self {
        Self {
            text: text.to_owned(),
            real: real_file(text, directory),
        }
    }

    /// As it was written, unless that leads elsewhere by now.
    pub(in crate::primary) fn find(&self, directory: &Path) -> OsString {
        match &self.real {
            Some(real) if real_file(&self.text, directory).as_ref() != Some(real) => {
                real.clone().into_os_string()
            }
            Some(_) | None => self.text.clone(),
        }
    }
}

fn real_file(text: &OsStr, directory: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(directory.join(text)).ok()?;
    real.is_file().then_some(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `one/server` and `two/server`, and a link `current` to `one`.
    fn releases() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for release in ["one", "two"] {
            fs::create_dir(place.path().join(release)).unwrap();
            fs::write(place.path().join(release).join("server"), release).unwrap();
        }
        symlink("one", place.path().join("current")).unwrap();
        place
    }

    fn switch(place: &Path) {
        symlink("two", place.join("next")).unwrap();
        fs::rename(place.join("next"), place.join("current")).unwrap();
    }

    #[test]
    fn while_nothing_moves_everything_stays_as_it_was_written() {
        let place = releases();
        let path = place.path().join("current/server");
        let (found, file) = PinnedProgram::new(path.clone()).find();
        assert_eq!((found, file.is_none()), (path, true));
        let argument = PinnedArgument::new(OsStr::new("current/server"), place.path());
        assert_eq!(argument.find(place.path()), "current/server");
    }

    #[test]
    fn a_link_that_moves_is_seen_through() {
        let place = releases();
        let program = PinnedProgram::new(place.path().join("current/server"));
        let argument = PinnedArgument::new(OsStr::new("current/server"), place.path());
        let other = PinnedArgument::new(OsStr::new("--port"), place.path());
        switch(place.path());
        let real = fs::canonicalize(place.path().join("one/server")).unwrap();
        assert_eq!(program.find().0, real);
        assert_eq!(argument.find(place.path()), real);
        assert_eq!(other.find(place.path()), "--port");
    }

    #[test]
    fn a_binary_that_is_renamed_over_is_kept_open() {
        let place = releases();
        let path = place.path().join("one/server");
        let program = PinnedProgram::new(path.clone());
        fs::rename(place.path().join("two/server"), &path).unwrap();
        let (found, file) = program.find();
        assert_eq!(found, path);
        let mut kept = File::from(file.unwrap().try_clone().unwrap());
        let mut text = String::new();
        std::io::Seek::rewind(&mut kept).unwrap();
        kept.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
    }

    #[test]
    fn a_script_that_is_renamed_over_cannot_be_kept() {
        let place = releases();
        let path = place.path().join("one/server");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        let program = PinnedProgram::new(path.clone());
        fs::rename(place.path().join("two/server"), &path).unwrap();
        assert!(program.find().1.is_none());
    }
}
