//! Unix listeners with a path: the socket's file is made, changed and removed as that file, whatever its path
//! leads to by then.
//!
//! The kernel knows no bind(2) relative to a directory. Where nobody else can move a part of the way, the path
//! leads where it led, and the socket is bound to it as it is written. Elsewhere it is bound by way of the
//! directory's descriptor, and getsockname(2) names that.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};

use super::bind::{listen, socket};
use crate::directory::{Directory, Pinned};
use crate::identity;
use crate::lock::FileLock;

/// How a Unix listener with a path is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathOptions {
    /// The permissions of its file. Default: those that the umask leaves.
    pub mode: Option<u32>,
    /// Permissions that it has besides. Default: none.
    pub more_mode: u32,
    /// Who it belongs to. Default: this user.
    pub owner: Option<u32>,
    /// Its group. Default: this process's.
    pub group: Option<u32>,
    /// As for [`listen`]. Default: 511.
    pub backlog: u32,
}

impl Default for PathOptions {
    fn default() -> PathOptions {
        PathOptions {
            mode: None,
            more_mode: 0,
            owner: None,
            group: None,
            backlog: 511,
        }
    }
}

/// The file of a Unix listener that this process has made.
#[derive(Debug)]
pub struct SocketFile {
    place: SocketPlace,
    /// Holds the inode, so that no other file is taken for this one.
    file: Pinned,
}

impl SocketFile {
    /// Where it was made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Which file it is.
    #[must_use]
    pub fn id(&self) -> crate::directory::FileId {
        self.file.id()
    }

    /// Whether its path, walked anew, leads to it: whether clients find it.
    #[must_use]
    pub fn is_found(&self) -> bool {
        let found = Directory::of(&self.place.path);
        found.is_ok_and(|(directory, name)| directory.holds(name, self.file.id()))
    }

    /// Removes it from the directory in which it was made, if it is there still; says whether it was.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self) -> io::Result<bool> {
        let SocketPlace {
            directory, name, ..
        } = &self.place;
        directory.remove(name, self.file.id())
    }
}

/// The place of a Unix listener: a name in a directory that is held.
#[derive(Debug)]
pub struct SocketPlace {
    /// As it was asked for.
    asked: PathBuf,
    /// The same, absolute.
    path: PathBuf,
    directory: Directory,
    name: OsString,
}

impl SocketPlace {
    /// The place that `path` leads to now.
    ///
    /// # Errors
    /// `InvalidInput` when it ends with no name; as [`Directory::open`].
    pub fn find(path: &Path) -> io::Result<SocketPlace> {
        let (directory, name) = Directory::of(path)?;
        Ok(SocketPlace {
            asked: path.to_owned(),
            path: std::path::absolute(path)?,
            name: name.to_owned(),
            directory,
        })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where it is, without links.
    ///
    /// # Errors
    /// As [`Directory::real_path`].
    pub fn real_path(&self) -> io::Result<PathBuf> {
        Ok(self.directory.real_path()?.join(&self.name))
    }

    /// Opens a listener here. It listens only when its file is as it is to be. A socket that was left here is
    /// replaced if nobody serves it and nobody else made it; nothing else ever is.
    ///
    /// # Errors
    /// `EADDRINUSE` when there is anything that may not be replaced; `ENAMETOOLONG`; `ESTALE` when the file
    /// was taken away while it was made; those of bind(2), chown(2) and chmod(2).
    pub fn listen(self, options: &PathOptions) -> io::Result<(OwnedFd, SocketFile)> {
        let (socket, file) = self.make(options)?;
        Ok((socket, SocketFile { place: self, file }))
    }

    /// The file that is here, for a process that goes on with another's listener.
    ///
    /// # Errors
    /// `NotFound`; those of [`Directory::pin`].
    pub fn file(self) -> io::Result<SocketFile> {
        let file = self.directory.pin(&self.name)?;
        Ok(SocketFile { place: self, file })
    }

    fn make(&self, options: &PathOptions) -> io::Result<(OwnedFd, Pinned)> {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM)?;
        // Whoever takes over excludes others that do, and those that are between bind and listen.
        let lock = PlaceLock::take(&self.directory, &self.name).ok().flatten();
        match self.bind(&socket) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && lock.is_some() => {
                if !self.clear(options)? {
                    return Err(error);
                }
                self.bind(&socket)?;
            }
            bound => bound?,
        }
        let file = self.directory.pin(&self.name)?;
        let made = furnish(&file, options).and_then(|()| listen(socket.as_fd(), options.backlog));
        if let Err(error) = made {
            // The error to tell is the first one.
            drop(self.directory.remove(&self.name, file.id()));
            return Err(error);
        }
        drop(lock);
        Ok((socket, file))
    }

    fn bind(&self, socket: &OwnedFd) -> io::Result<()> {
        let address = match self.directory.exposed() {
            None => SocketAddrUnix::new(&self.asked),
            Some(_) => Err(Errno::NAMETOOLONG),
        };
        // Also the way out for a path that is too long for an address.
        let address =
            address.or_else(|_| SocketAddrUnix::new(self.directory.path_of(&self.name)))?;
        Ok(net::bind(socket, &address)?)
    }

    /// Removes a socket that nobody serves; says whether it did.
    fn clear(&self, options: &PathOptions) -> io::Result<bool> {
        let found = match self.directory.pin(&self.name) {
            // It is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            found => found?,
        };
        let own = [Some(identity::effective_uid()), options.owner];
        if !found.is_socket() || !own.contains(&Some(found.uid())) || is_served(&found)? {
            return Ok(false);
        }
        self.directory.remove(&self.name, found.id())
    }
}

/// Whether there is anybody behind this socket's file. The very file is asked, not its path.
fn is_served(file: &Pinned) -> io::Result<bool> {
    let asking = socket(AddressFamily::UNIX, SocketType::STREAM)?;
    let address = SocketAddrUnix::new(file.path())?;
    // Anything else than a refusal, as a full queue or another kind of socket, tells of somebody.
    Ok(net::connect(&asking, &address) != Err(Errno::CONNREFUSED))
}

/// Gives the file that was made just now its owner and its permissions.
fn furnish(file: &Pinned, options: &PathOptions) -> io::Result<()> {
    let mode = options.mode.unwrap_or(file.mode()) | options.more_mode;
    let has_owner = options.owner.is_some() || options.group.is_some();
    if mode == file.mode() && !has_owner {
        return Ok(());
    }
    // Somebody may have put another file in its place before it was looked at: only a socket that this user
    // made and that is nowhere else may be changed.
    let is_own = file.is_socket() && file.uid() == identity::effective_uid() && file.has_one_name();
    if !is_own {
        return Err(Errno::STALE.into());
    }
    if has_owner {
        let owner = options.owner.map(Uid::from_raw);
        let group = options.group.map(Gid::from_raw);
        fs::chownat(file, c"", owner, group, AtFlags::EMPTY_PATH)?;
    }
    // After the owner, because chown(2) takes bits away.
    Ok(fs::chmod(file.path(), Mode::from_raw_mode(mode))?)
}

/// Held while a place is taken. Its file is there no longer than that.
struct PlaceLock<'a> {
    directory: &'a Directory,
    name: OsString,
    _lock: FileLock,
}

impl<'a> PlaceLock<'a> {
    fn take(directory: &'a Directory, name: &OsStr) -> io::Result<Option<Self>> {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".lock");
        let lock = FileLock::try_exclusive_in(directory, &hidden)?;
        Ok(lock.map(|lock| Self {
            directory,
            name: hidden,
            _lock: lock,
        }))
    }
}

impl Drop for PlaceLock<'_> {
    fn drop(&mut self) {
        if let Ok(file) = self.directory.pin(&self.name) {
            // What stays is locked by nobody, and taken over by the next.
            drop(self.directory.remove(&self.name, file.id()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs as files;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_socket_of_ones_own_without_another_name_is_changed() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let _socket = UnixListener::bind(at("socket")).unwrap();
        files::write(at("file"), "").unwrap();
        symlink("file", at("link")).unwrap();
        let options = PathOptions {
            more_mode: 0o222,
            ..PathOptions::default()
        };
        let directory = Directory::open(place.path()).unwrap();
        let furnish = |name: &str| {
            let before = files::metadata(at(name)).unwrap().permissions();
            let done = furnish(&directory.pin(OsStr::new(name)).unwrap(), &options);
            let after = files::metadata(at(name)).unwrap().permissions();
            (done.is_ok(), before != after, after.mode() & 0o222)
        };
        assert_eq!(furnish("socket"), (true, true, 0o222));
        assert!(matches!(furnish("file"), (false, false, _)));
        assert!(matches!(furnish("link"), (_, false, _)));
        files::hard_link(at("socket"), at("other")).unwrap();
        files::set_permissions(at("socket"), files::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(furnish("socket"), (false, false, _)));
    }
}
