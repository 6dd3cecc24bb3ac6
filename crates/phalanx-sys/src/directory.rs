//! Directories held open: what is done in one is done there, wherever its path leads by now.
//!
//! Whoever may write to a directory may move what lies in it, and put a link in its place. So nothing is
//! done twice by one path: the way is walked once, link by link, and from then on names are looked up in the
//! descriptor at its end and never followed. The walk also tells whether somebody else could have moved
//! a part of the way: then the same path may lead elsewhere the next time.

mod walk;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use crate::identity;
use walk::Walk;

/// By its group or by everybody.
const FOR_OTHERS_TO_WRITE: u32 = 0o022;

/// A directory, and the way to it.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    exposed: Option<Exposed>,
}

/// A part of a way that somebody else than this user and root can move.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exposed {
    /// The directory that somebody else can change, or what belongs to somebody else.
    pub path: PathBuf,
    /// Its owner.
    pub uid: u32,
    /// Its mode, without the kind of file.
    pub mode: u32,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, uid, mode } = self;
        let path = path.display();
        write!(
            f,
            "others can move what lies in {path} (owner {uid}, mode {mode:04o})"
        )
    }
}

/// Which file something is, as long as it is held open.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file with these numbers, as stat(2) tells them.
    pub(crate) fn numbered(device: u64, inode: u64) -> FileId {
        FileId { device, inode }
    }

    /// Which file this descriptor is of.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn of(fd: impl AsFd) -> io::Result<FileId> {
        let stat = fs::fstat(fd)?;
        Ok(FileId {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

/// A file of whatever kind, held without being opened (`O_PATH`, open(2)): it stays what it is, and nobody
/// else gets its [`FileId`] meanwhile.
#[derive(Debug)]
pub struct Pinned {
    fd: OwnedFd,
    stat: Stat,
}

impl Pinned {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = fs::fstat(&fd)?;
        Ok(Self { fd, stat })
    }

    /// Which file it is.
    #[must_use]
    pub fn id(&self) -> FileId {
        FileId {
            device: self.stat.st_dev,
            inode: self.stat.st_ino,
        }
    }

    /// Its owner, when it was found.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.stat.st_uid
    }

    /// Its permissions, when it was found.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }

    /// Whether it has no other name.
    pub(crate) fn has_one_name(&self) -> bool {
        self.stat.st_nlink == 1
    }

    /// Whether it is a socket.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.kind() == FileType::Socket
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// A path that leads to this very file, in this process (`/proc/self/fd`, proc(5)).
    #[must_use]
    pub fn path(&self) -> PathBuf {
        descriptor_path(self.fd.as_fd())
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens the directory at `path`; links on the way are followed. One that may be searched
    /// and not read can be opened too.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP` and the like (`path_resolution(7)`).
    pub fn open(path: &Path) -> io::Result<Directory> {
        Walk::start(path)?.finish()
    }

    /// Opens the directory in which `path` lies, and says what `path` is called there.
    ///
    /// # Errors
    /// As [`Directory::open`]; `InvalidInput` when `path` ends with no name.
    pub fn of(path: &Path) -> io::Result<(Directory, &OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((Directory::open(parent)?, name))
    }

    /// What somebody else could move on the way here. `None`: the same path leads here as long as this
    /// user and root want it.
    #[must_use]
    pub fn exposed(&self) -> Option<&Exposed> {
        self.exposed.as_ref()
    }

    /// Whether somebody else than this user and root can change what lies in it; stickiness is no help to
    /// who looks for a name that is not there yet.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn changeable(&self) -> io::Result<Option<Exposed>> {
        let stat = fs::fstat(&self.fd)?;
        if identity::is_trusted(stat.st_uid) && stat.st_mode & FOR_OTHERS_TO_WRITE == 0 {
            return Ok(None);
        }
        Ok(Some(Exposed::new(self.real_path()?, &stat)))
    }

    /// The owner.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn owner(&self) -> io::Result<u32> {
        Ok(fs::fstat(&self.fd)?.st_uid)
    }

    /// Whether it was removed: it is still held, and nothing can be made in it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Where it is now, without links.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        let path = fs::readlink(descriptor_path(self.fd.as_fd()), Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
    }

    /// A path to `name` in this very directory, in this process.
    #[must_use]
    pub fn path_of(&self, name: &OsStr) -> PathBuf {
        descriptor_path(self.fd.as_fd()).join(name)
    }

    /// What is there under this name; a link is not followed.
    ///
    /// # Errors
    /// `ENOENT` and the like.
    pub fn pin(&self, name: &OsStr) -> io::Result<Pinned> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| fs::openat(&self.fd, name, flags, Mode::empty()))?;
        Pinned::new(fd)
    }

    /// Whether this very file has this name here.
    #[must_use]
    pub fn holds(&self, name: &OsStr, id: FileId) -> bool {
        self.pin(name).is_ok_and(|found| found.id() == id)
    }

    /// Opens the file of this name for reading; no link, and nothing that one would wait for.
    ///
    /// # Errors
    /// `ELOOP` for a link, `InvalidInput` for what is no regular file, `ENOENT` and the like.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.open_file(name, flags, Mode::empty())
    }

    /// The first `limit` bytes of the file of this name, as [`Directory::read`].
    ///
    /// # Errors
    /// As [`Directory::read`]; `InvalidData` when they are no text.
    pub fn read_text(&self, name: &OsStr, limit: u64) -> io::Result<String> {
        let mut text = String::new();
        self.read(name)?.take(limit).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Makes a file that is not there yet, for writing. Nothing is followed, nothing is overwritten.
    ///
    /// # Errors
    /// `EEXIST` when there is anything of this name; those of open(2).
    pub fn create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_file(name, flags, Mode::from_raw_mode(mode))
    }

    /// Opens the file of this name for appending, or makes it. Nothing is followed.
    ///
    /// # Errors
    /// `ELOOP` for a link, `InvalidInput` for what is no regular file; those of open(2).
    pub fn append(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        self.open_file(name, flags, Mode::from_raw_mode(mode))
    }

    pub(crate) fn open_or_create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.open_file(name, flags, Mode::from_raw_mode(mode))
    }

    fn open_file(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
        let fd = retry_on_intr(|| fs::openat(&self.fd, name, flags, mode))?;
        if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) == FileType::RegularFile {
            Ok(File::from(fd))
        } else {
            let reason = "it is no regular file";
            Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
        }
    }

    /// The names of what is in it.
    ///
    /// # Errors
    /// `EACCES` when it may not be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(self.path_of(OsStr::new(".")))?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// The same directory once more.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn try_clone(&self) -> io::Result<Directory> {
        Ok(Directory {
            fd: self.fd.try_clone()?,
            exposed: self.exposed.clone(),
        })
    }

    /// Makes a directory that is not there yet, and opens it.
    ///
    /// # Errors
    /// `EEXIST`; those of mkdir(2).
    pub fn make(&self, name: &OsStr, mode: u32) -> io::Result<Directory> {
        fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))?;
        self.enter(name)
    }

    /// Opens a directory in this one; not through a link.
    ///
    /// # Errors
    /// `ENOTDIR` when it is none, a link included; `ENOENT` and the like.
    pub fn enter(&self, name: &OsStr) -> io::Result<Directory> {
        let mut walk = Walk::from(self.fd.try_clone()?, PathBuf::new());
        walk.exposed.clone_from(&self.exposed);
        let found = self.pin(name)?;
        if !found.is_directory() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        walk.look_at_entry(name, &found.stat)?;
        Ok(Directory {
            fd: found.fd,
            exposed: walk.exposed,
        })
    }

    /// Changes its permissions.
    ///
    /// # Errors
    /// Those of chmod(2).
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let path = descriptor_path(self.fd.as_fd());
        Ok(fs::chmod(path, Mode::from_raw_mode(mode))?)
    }

    /// Gives it to another user and group, where they are named.
    ///
    /// # Errors
    /// Those of chown(2): `EPERM` without `CAP_CHOWN`.
    pub fn give_to(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.map(fs::Uid::from_raw), gid.map(fs::Gid::from_raw));
        Ok(fs::chownat(&self.fd, c"", uid, gid, AtFlags::EMPTY_PATH)?)
    }

    /// Renames within this directory, over what was there.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Removes this very file if it has this name here still; says whether it had.
    ///
    /// Whoever may write here could put something else under the name at the last moment: then
    /// that is removed, which he could have removed himself.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self, name: &OsStr, id: FileId) -> io::Result<bool> {
        if !self.holds(name, id) {
            return Ok(false);
        }
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes an empty directory in this one.
    ///
    /// # Errors
    /// Those of rmdir(2).
    pub fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Exposed {
    fn new(path: PathBuf, stat: &Stat) -> Self {
        Self {
            path,
            uid: stat.st_uid,
            mode: stat.st_mode & 0o7777,
        }
    }
}

fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests;
