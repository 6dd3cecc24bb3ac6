//! A log file of our own, turned over by size or by age.
//!
//! The full file is renamed, and a new one is made: so no line is lost or copied, and whoever reads the old one reads on to
//! its end. `PATH.1` is the newest of those that are kept. Ready-made crates for this open by path, do not know that somebody else
//! has moved the file, and have no word for a disk that is full; here the directory is held, and the file is known by device and inode.
//!
//! INVARIANT: a line is in one file, whole. Nothing but regular files of this user's or root's with one name is written to.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use phalanx_control::level::now_millis;
use phalanx_sys::directory::{Directory, FileId};
use phalanx_sys::identity;

use super::stream::write_all;

/// For its owner to read and write, for the group to read.
const MODE: u32 = 0o640;

/// One that could not be turned over is tried again after so long.
const STUCK_MILLIS: u64 = 60_000;

/// When a file is turned over, and how many are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turning {
    /// Before it becomes larger than this.
    pub(crate) size: Option<u64>,
    /// When it is older than this.
    pub(crate) age: Option<Duration>,
    /// So many of those before are kept.
    pub(crate) keep: u32,
}

/// The file that is written to.
pub(crate) struct LogFile {
    directory: Directory,
    name: OsString,
    path: PathBuf,
    file: File,
    size: u64,
    /// When it was begun, in milliseconds since the Unix epoch.
    begun_at: u64,
    turning: Turning,
    /// It could not be turned over, which was told then; in milliseconds since the Unix epoch.
    stuck_at: Option<u64>,
}

impl LogFile {
    /// Opens the file, or makes it; what is in it stays.
    ///
    /// # Errors
    /// When it cannot be opened, is none to write to, or lies where others decide what lies there.
    pub(crate) fn open(path: &Path, turning: Turning) -> io::Result<Self> {
        let (directory, name) = Directory::of(path)?;
        if let Some(exposed) = directory.exposed().filter(|_| identity::is_root()) {
            return Err(io::Error::other(exposed.to_string()));
        }
        let file = open_in(&directory, name)?;
        let found = file.metadata()?;
        Ok(Self {
            name: name.to_owned(),
            directory,
            path: path.to_owned(),
            size: found.len(),
            begun_at: if found.len() == 0 {
                now_millis()
            } else {
                begun_at(&found)
            },
            file,
            turning,
            stuck_at: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes whole lines, and turns the file over where it is time. What is left after a failure stays in `bytes`.
    pub(super) fn write(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let fits = self.fits(bytes);
            if fits == 0 {
                self.turn_over();
                continue;
            }
            let mut part = &bytes[..fits];
            let written = write_all(&mut self.file, &mut part);
            let count = fits - part.len();
            *bytes = &bytes[count..];
            self.size += u64::try_from(count).unwrap_or(u64::MAX);
            written?;
        }
        Ok(())
    }

    /// How much of these lines goes into this file: as many as there is room for, and one at least into an empty file.
    fn fits(&self, bytes: &[u8]) -> usize {
        let is_stuck = |at| now_millis().saturating_sub(at) < STUCK_MILLIS;
        if self.stuck_at.is_some_and(is_stuck) {
            return bytes.len();
        }
        if self.size > 0 && self.is_old() {
            return 0;
        }
        let Some(limit) = self.turning.size else {
            return bytes.len();
        };
        let room = usize::try_from(limit.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return bytes.len();
        }
        let newline = bytes[..room].iter().rposition(|&byte| byte == b'\n');
        let first = || bytes.iter().position(|&byte| byte == b'\n');
        match newline {
            Some(newline) => newline + 1,
            None if self.size > 0 => 0,
            None => first().map_or(bytes.len(), |newline| newline + 1),
        }
    }

    fn is_old(&self) -> bool {
        let Some(age) = self.turning.age else {
            return false;
        };
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        now_millis().saturating_sub(self.begun_at) >= age
    }

    /// Renames the file and makes a new one. Where that cannot be done, the old one is written on; the log tells it once.
    fn turn_over(&mut self) {
        if let Err(error) = self.try_turn_over() {
            let path = self.path.display();
            tracing::error!(%error, "cannot turn over {path}, and writes on into it");
            self.stuck_at = Some(now_millis());
        }
    }

    fn try_turn_over(&mut self) -> io::Result<()> {
        let id = FileId::of(&self.file)?;
        if self.directory.holds(&self.name, id) {
            self.shift()?;
        }
        // Somebody has moved it otherwise, and what is there now is written to.
        self.reopen()
    }

    /// `PATH.1` becomes `PATH.2`, and so on; the oldest goes.
    fn shift(&self) -> io::Result<()> {
        let keep = self.turning.keep;
        if keep == 0 {
            let id = FileId::of(&self.file)?;
            return self.directory.remove(&self.name, id).map(drop);
        }
        let last = (1..keep).find(|&number| self.directory.pin(&self.numbered(number)).is_err());
        for number in (1..last.unwrap_or(keep)).rev() {
            self.directory
                .rename(&self.numbered(number), &self.numbered(number + 1))?;
        }
        self.directory.rename(&self.name, &self.numbered(1))
    }

    fn numbered(&self, number: u32) -> OsString {
        let mut name = self.name.clone();
        name.push(format!(".{number}"));
        name
    }

    /// Opens the file of this name, or makes it, for what comes from now on.
    ///
    /// # Errors
    /// As [`LogFile::open`]; then the old one is written on.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let file = open_in(&self.directory, &self.name)?;
        let found = file.metadata()?;
        self.size = found.len();
        self.begun_at = if found.len() == 0 {
            now_millis()
        } else {
            begun_at(&found)
        };
        self.file = file;
        self.stuck_at = None;
        Ok(())
    }
}

/// When a file was made, as far as its file system tells.
fn begun_at(found: &std::fs::Metadata) -> u64 {
    let since = found.created().ok();
    let since = since.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or_else(now_millis, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn open_in(directory: &Directory, name: &OsStr) -> io::Result<File> {
    let file = directory.append(name, MODE)?;
    let found = file.metadata()?;
    // Who may write to the directory may have put somebody's file there by another name of it.
    if found.nlink() > 1 || !identity::is_trusted(found.uid()) {
        return Err(io::Error::other(
            "it has another name or another owner: remove it, or choose another --log-file",
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir_in("/tmp").unwrap()
    }

    fn open(directory: &tempfile::TempDir, turning: Turning) -> LogFile {
        LogFile::open(&directory.path().join("log"), turning).unwrap()
    }

    fn write(file: &mut LogFile, text: &str) {
        let mut bytes = text.as_bytes();
        file.write(&mut bytes).unwrap();
        assert!(bytes.is_empty());
    }

    fn content(directory: &tempfile::TempDir, name: &str) -> Option<String> {
        fs::read_to_string(directory.path().join(name)).ok()
    }

    fn by_size(size: u64, keep: u32) -> Turning {
        Turning {
            size: Some(size),
            keep,
            ..Turning::default()
        }
    }

    #[test]
    fn a_file_is_turned_over_before_it_is_too_large_and_the_oldest_goes() {
        let directory = directory();
        let mut file = open(&directory, by_size(10, 2));
        write(&mut file, "one\ntwo\nthree\nfour\n");
        write(&mut file, "five\nsix\nlonger than a file\nend\n");
        let there = |name| content(&directory, name);
        assert_eq!(there("log").unwrap(), "end\n");
        assert_eq!(there("log.1").unwrap(), "longer than a file\n");
        assert_eq!(there("log.2").unwrap(), "six\n");
        assert_eq!(there("log.3"), None);
        let mode = fs::metadata(directory.path().join("log.1")).unwrap().mode();
        assert_eq!(mode & 0o137, 0);
    }

    #[test]
    fn none_is_kept_where_none_is_wanted() {
        let directory = directory();
        let mut file = open(&directory, by_size(5, 0));
        write(&mut file, "one\ntwo\n");
        assert_eq!(content(&directory, "log").unwrap(), "two\n");
        assert_eq!(content(&directory, "log.1"), None);
    }

    #[test]
    fn what_is_there_is_kept_and_counts() {
        let directory = directory();
        fs::write(directory.path().join("log"), "before\n").unwrap();
        let mut file = open(&directory, by_size(10, 1));
        write(&mut file, "after\n");
        assert_eq!(content(&directory, "log.1").unwrap(), "before\n");
        assert_eq!(content(&directory, "log").unwrap(), "after\n");
    }

    #[test]
    fn a_file_that_is_old_is_turned_over() {
        let directory = directory();
        let turning = Turning {
            age: Some(Duration::from_mins(1)),
            keep: 1,
            size: None,
        };
        let mut file = open(&directory, turning);
        write(&mut file, "one\n");
        write(&mut file, "two\n");
        assert_eq!(content(&directory, "log.1"), None);
        file.begun_at -= 60_000;
        write(&mut file, "three\n");
        assert_eq!(content(&directory, "log.1").unwrap(), "one\ntwo\n");
        assert_eq!(content(&directory, "log").unwrap(), "three\n");
    }

    #[test]
    fn a_file_that_somebody_moved_is_left_alone_and_made_anew_when_asked() {
        let directory = directory();
        let mut file = open(&directory, by_size(5, 3));
        write(&mut file, "one\n");
        fs::rename(directory.path().join("log"), directory.path().join("old")).unwrap();
        write(&mut file, "2");
        assert_eq!(content(&directory, "old").unwrap(), "one\n2");
        file.reopen().unwrap();
        write(&mut file, "3\n");
        fs::rename(directory.path().join("log"), directory.path().join("older")).unwrap();
        // Full, and moved away: nothing of what is there is renamed.
        write(&mut file, "four\n");
        assert_eq!(content(&directory, "log").unwrap(), "four\n");
        assert_eq!(content(&directory, "log.1"), None);
    }

    #[test]
    fn what_cannot_be_turned_over_is_written_on() {
        let directory = directory();
        let mut file = open(&directory, by_size(5, 1));
        write(&mut file, "one\n");
        // Nothing can be renamed over a directory.
        fs::create_dir_all(directory.path().join("log.1/there")).unwrap();
        write(&mut file, "two\nthree\n");
        assert_eq!(content(&directory, "log").unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn nothing_is_written_through_a_link_or_to_a_file_of_two_names() {
        let directory = directory();
        let refused = |name: &str| {
            let path = directory.path().join(name);
            LogFile::open(&path, Turning::default()).err().unwrap()
        };
        fs::write(directory.path().join("theirs"), "").unwrap();
        symlink("theirs", directory.path().join("link")).unwrap();
        refused("link");
        fs::hard_link(
            directory.path().join("theirs"),
            directory.path().join("two"),
        )
        .unwrap();
        assert!(refused("two").to_string().contains("another name"));
        fs::create_dir(directory.path().join("directory")).unwrap();
        refused("directory");
        refused("not/there");
        if identity::is_root() {
            let open_to_all = directory.path().join("open");
            fs::create_dir_all(open_to_all.join("inner")).unwrap();
            fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
            assert!(
                refused("open/inner/log")
                    .to_string()
                    .contains("others can move")
            );
        }
    }
}
