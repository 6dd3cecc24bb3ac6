//! A lock that one process holds and that the kernel gives back when it is gone.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::fstat;
use rustix::io::Errno;

use crate::directory::{Directory, FileId};
use crate::identity;

/// An exclusive lock on a file (flock(2)), held until it is dropped or its process ends in
/// whatever way. The file stays.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Locks the file at `path`, which is created with mode 0600 if it is missing. `None` when
    /// somebody else, in this process or another, holds the lock. Never waits.
    ///
    /// # Errors
    ///
    /// Those of open(2) and flock(2). A symbolic link is refused with `ELOOP`.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<FileLock>> {
        let (directory, name) = Directory::of(path)?;
        FileLock::try_exclusive_in(&directory, name)
    }

    /// The same in a directory that is held, whatever its path leads to.
    ///
    /// # Errors
    ///
    /// As [`FileLock::try_exclusive`]; `EACCES` for a file of somebody else.
    pub fn try_exclusive_in(directory: &Directory, name: &OsStr) -> io::Result<Option<FileLock>> {
        loop {
            let file = directory.open_or_create(name, 0o600)?;
            // Somebody else could hold his own for ever.
            if !identity::is_trusted(fstat(&file)?.st_uid) {
                return Err(Errno::ACCESS.into());
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The file may have been removed between open and flock, and then a lock on it
            // would exclude nobody.
            if is_still_in(&file, directory, name)? {
                return Ok(Some(FileLock { file }));
            }
        }
    }

    /// Writes the whole content of the file, in the place of what it has.
    ///
    /// # Errors
    ///
    /// Those of ftruncate(2) and write(2).
    pub fn write(&self, content: &[u8]) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(content)
    }
}

impl AsFd for FileLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_still_in(file: &File, directory: &Directory, name: &OsStr) -> io::Result<bool> {
    let held = FileId::of(file)?;
    match directory.pin(name) {
        Ok(found) => Ok(found.id() == held),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_lock_excludes_others_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::try_exclusive(&path).unwrap();
        assert!(first.is_some());
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(first);
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn the_file_is_private_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(FileLock::try_exclusive(&path).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let error = FileLock::try_exclusive(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_removed_file_is_not_mistaken_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::try_exclusive(&path).unwrap().unwrap();
        let (directory, name) = Directory::of(&path).unwrap();
        let is_still = || is_still_in(&first.file, &directory, name).unwrap();
        assert!(is_still());
        fs::remove_file(&path).unwrap();
        assert!(!is_still());
        fs::write(&path, "").unwrap();
        assert!(!is_still());
    }

    #[test]
    fn what_is_written_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::try_exclusive(&path).unwrap().unwrap();
        for text in ["long and longer", "short"] {
            lock.write(text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
