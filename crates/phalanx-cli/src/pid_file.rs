//! The pid file: says which process is the primary and, where that was asked for, reloads the app when
//! somebody deletes it.
//!
//! INVARIANT: the file is complete whenever it is there (written beside, then renamed), this process
//! removes none but its own, and no link is followed: its directory may be one where others write.

use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use phalanx_sys::directory::{Directory, FileId};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tokio::io::unix::AsyncFd;

use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;

/// The pid file of this process. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct PidFile {
    directory: Directory,
    name: OsString,
}

/// A pid and its end of line fit.
const BYTES_MAX: u64 = 32;
/// Everybody may know who the primary is.
const MODE: u32 = 0o644;

impl PidFile {
    /// Writes the file. One that names a living process is left alone, and so is what can be no pid file.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let cannot = |error: io::Error| {
            let what = format!("cannot write the pid file {}", path.display());
            Failure::caused(Exit::CannotCreate, &what, &error)
        };
        let (directory, name) = Directory::of(path).map_err(cannot)?;
        let file = Self {
            directory,
            name: name.to_owned(),
        };
        file.may_be_replaced().map_err(cannot)?;
        if let Some(pid) = file
            .named_process()
            .filter(|pid| *pid != own_pid() && is_alive(*pid))
        {
            let reason = format!(
                "the pid file {} names a living process, {}; stop it, or choose another --pid-file",
                path.display(),
                pid.as_raw_nonzero()
            );
            return Err(Failure::new(Exit::Taken, reason));
        }
        file.write().map_err(cannot)?;
        Ok(file)
    }

    /// Writes the file, again if need be.
    pub(crate) fn write(&self) -> io::Result<()> {
        let mut beside = OsString::from(".");
        beside.push(&self.name);
        beside.push(format!(".{}", phalanx_sys::random::name()?));
        let mut new = self.directory.create(&beside, MODE)?;
        let id = FileId::of(&new)?;
        let written = writeln!(new, "{}", std::process::id());
        let placed = written.and_then(|()| self.directory.rename(&beside, &self.name));
        placed.inspect_err(|_| drop(self.directory.remove(&beside, id)))
    }

    /// Watches the file from now on. Needs a runtime.
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types that may give their descriptor away; OwnedFd does not"
    )]
    pub(crate) fn deletions(&self) -> io::Result<Deletions<'_>> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let directory = self.directory.path_of(OsStr::new("."));
        let flags = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, directory, flags)?;
        Ok(Deletions {
            file: self,
            queue: AsyncFd::new(queue)?,
        })
    }

    /// A mistyped path must not cost a file, and still less a device. Nothing is opened for it: that can have an effect.
    fn may_be_replaced(&self) -> io::Result<()> {
        let Ok(found) = self.directory.pin(&self.name) else {
            return Ok(());
        };
        let stat = fstat(&found)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let reason = if kind == FileType::Symlink {
            return Ok(());
        } else if kind != FileType::RegularFile {
            "it is no regular file"
        } else if u64::try_from(stat.st_size).is_ok_and(|bytes| bytes > BYTES_MAX) {
            "there is a file of this name, and it holds more than a pid"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::AlreadyExists, reason))
    }

    fn named_process(&self) -> Option<Pid> {
        let text = self.directory.read_text(&self.name, BYTES_MAX).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let found = self.directory.pin(&self.name);
        if let (Ok(file), true) = (found, self.named_process() == Some(own_pid())) {
            drop(self.directory.remove(&self.name, file.id()));
        }
    }
}

fn own_pid() -> Pid {
    rustix::process::getpid()
}

fn is_alive(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(Errno::SRCH))
}

/// Tells when a file is deleted, or moved away (inotify(7)).
#[derive(Debug)]
pub(crate) struct Deletions<'a> {
    file: &'a PidFile,
    queue: AsyncFd<OwnedFd>,
}

impl Deletions<'_> {
    /// Waits until the file is gone.
    ///
    /// # Errors
    /// When its directory is gone too, and no file will be seen any more.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.queue.readable().await?;
            match self.drain() {
                Ok(true) if self.is_gone() => return Ok(()),
                Ok(_) => guard.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }

    fn is_gone(&self) -> bool {
        self.file.directory.pin(&self.file.name).is_err()
    }

    /// Reads what the kernel has to tell; true if it tells that the file was deleted.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.queue, &mut buffer);
        let mut deleted = false;
        loop {
            match reader.next() {
                // After an overflow of the queue anything may have happened.
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => deleted = true,
                Ok(event) => {
                    let name = event.file_name().map(CStr::to_bytes);
                    deleted |= name == Some(self.file.name.as_bytes());
                }
                // Held as it is, a directory tells nothing of its own end.
                Err(Errno::WOULDBLOCK) if self.file.directory.is_removed() => {
                    let gone = "its directory is gone";
                    return Err(io::Error::new(io::ErrorKind::NotFound, gone));
                }
                Err(Errno::WOULDBLOCK) => return Ok(deleted),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_file_is_written_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.pid");
        let file = PidFile::create(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_a_living_process_is_left_alone_and_one_of_a_dead_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.pid");
        fs::write(&path, "1\n").unwrap();
        let failure = PidFile::create(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Taken);
        assert!(failure.reason.contains("living process, 1;"), "{failure}");
        for stale in ["999999999\n", "", "junk"] {
            fs::write(&path, stale).unwrap();
            drop(PidFile::create(&path).unwrap());
        }
    }

    #[test]
    fn what_can_be_no_pid_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("server.js");
        let text = "require('http').createServer().listen(3000);\n";
        fs::write(&script, text).unwrap();
        let socket = directory.path().join("app.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let cases = [
            (&script, "holds more than a pid"),
            (&socket, "no regular file"),
        ];
        for (path, reason) in cases {
            let failure = PidFile::create(path).unwrap_err();
            assert_eq!(failure.exit, Exit::CannotCreate);
            assert!(failure.reason.contains(reason), "{failure}");
        }
        assert_eq!(fs::read_to_string(&script).unwrap(), text);
        assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    #[test]
    fn no_link_that_waits_for_the_file_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let path = directory.path().join("app.pid");
        let guessed = format!("app.pid.{}.new", std::process::id());
        symlink(&precious, directory.path().join(guessed)).unwrap();
        symlink(&precious, &path).unwrap();
        let file = PidFile::create(&path).unwrap();
        assert!(!path.is_symlink());
        drop(file);
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn a_file_of_somebody_else_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.pid");
        let file = PidFile::create(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn deletion_is_seen_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.pid");
        let file = PidFile::create(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut deletions = file.deletions().unwrap();
            for _ in 0..3 {
                file.write().unwrap();
                fs::write(directory.path().join("other"), "").unwrap();
                fs::remove_file(directory.path().join("other")).unwrap();
                fs::remove_file(&path).unwrap();
                deletions.next().await.unwrap();
            }
            file.write().unwrap();
            fs::remove_dir_all(directory.path()).unwrap();
            // The file's own deletion may be told first.
            while deletions.next().await.is_ok() {}
        });
    }
}
