//! A lock that one process holds and that the kernel gives back when it is gone.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::{Errno, retry_on_intr};

/// An exclusive lock on a file (flock(2)), held until it is dropped or its process ends in
/// whatever way. The file stays.
#[derive(Debug)]
pub struct FileLock {
    file: OwnedFd,
}

impl FileLock {
    /// Locks the file at `path`, which is created with mode 0600 if it is missing. `None` when
    /// somebody else, in this process or another, holds the lock. Never waits.
    ///
    /// # Errors
    ///
    /// Those of open(2) and flock(2). A symbolic link is refused with `ELOOP`.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<FileLock>> {
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = retry_on_intr(|| open(path, flags, mode))?;
            match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            // The file may have been removed between open and flock, and then a lock on it
            // would exclude nobody.
            if is_still_at(&file, path)? {
                return Ok(Some(FileLock { file }));
            }
        }
    }
}

impl AsFd for FileLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_still_at(file: &OwnedFd, path: &Path) -> io::Result<bool> {
    let held = fstat(file)?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.dev() == held.st_dev && found.ino() == held.st_ino),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
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
        assert!(is_still_at(&first.file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_still_at(&first.file, &path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(!is_still_at(&first.file, &path).unwrap());
    }
}
