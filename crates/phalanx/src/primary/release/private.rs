//! The cluster's private directory: for what workers read and speak to, as the script of Node workers and the sockets
//! on which programs speak of themselves.
//!
//! Only this user can change it, and everybody can pass through: a worker may run as another user. Nobody else can
//! move it either, or it lies elsewhere. It is removed when the cluster ends. Until then it is locked: what nobody has
//! locked was left by a primary that was killed, and by its holder if it had one. Its pid would not tell: a primary in another container may share the
//! place, and does not see this one's processes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use phalanx_sys::directory::{Directory, FileId};
use phalanx_sys::lock::FileLock;
use phalanx_sys::notify::{self, NotifySocket};

use crate::primary::release::metrics_directory::{MetricsDirectory, clear_files};

/// The file that is locked; it is always there.
const LOCK: &str = "worker.cjs";

/// The private directories of a cluster, under a lock of their own: files are made where blocking is allowed, and the
/// one lock is not held meanwhile.
#[derive(Debug, Default)]
pub(in crate::primary) struct Places(Mutex<Vec<Private>>);

impl Places {
    /// Does something in the private directory, which is made, with this text as its script, if it is not there.
    ///
    /// # Errors
    /// When there is no place for it, and those of `act`.
    pub(in crate::primary) fn with<T>(
        &self,
        script: &str,
        act: impl FnOnce(&Private) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers may still speak to the one before.
        if !places.last().is_some_and(Private::is_there) {
            places.push(Private::place(script)?);
        }
        act(places.last().ok_or(io::ErrorKind::NotFound)?)
    }
}

/// A private directory in its place.
#[derive(Debug)]
pub(in crate::primary) struct Private {
    base: Directory,
    directory: Directory,
    name: OsString,
    path: PathBuf,
    lock: FileLock,
}

impl Private {
    /// Makes one in the first place that will do, with this text as its script.
    ///
    /// # Errors
    /// The last of the reasons why no place would do.
    pub(in crate::primary) fn place(script: &str) -> io::Result<Self> {
        let mut fault = io::Error::from(io::ErrorKind::NotFound);
        for base in bases() {
            match Self::place_in(&base, script) {
                Ok(placed) => return Ok(placed),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    pub(in crate::primary) fn place_in(base: &Path, script: &str) -> io::Result<Self> {
        static PLACED: AtomicU32 = AtomicU32::new(0);
        let held = Directory::open(base)?;
        if let Some(exposed) = held.exposed() {
            let reason = exposed.to_string();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        // Node names the script by its real path; what it is started with must be the same.
        let base = held.real_path()?;
        let mut bytes = base.as_os_str().as_encoded_bytes().iter().copied();
        if bytes.any(needs_quotes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sweep(&held, &base);
        let number = PLACED.fetch_add(1, Ordering::Relaxed);
        let stamp = fs::metadata("/proc/self")?.ctime_nsec();
        let name = OsString::from(format!("phalanx-{}-{number}-{stamp}", std::process::id()));
        // Nobody sweeps it under its first name, before it is locked.
        let mut unlocked = OsString::from(".");
        unlocked.push(&name);
        let directory = held.make(&unlocked, 0o700)?;
        let locked = lock(&directory, script);
        let renamed = locked.and_then(|lock| {
            directory.set_mode(0o711)?;
            held.rename(&unlocked, &name)?;
            Ok(lock)
        });
        match renamed {
            Ok(lock) => Ok(Self {
                path: base.join(&name),
                base: held,
                directory,
                name,
                lock,
            }),
            Err(error) => {
                clear(&directory);
                drop(held.remove_directory(&unlocked));
                Err(error)
            }
        }
    }

    /// The script's path.
    pub(in crate::primary) fn script(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// The lock, for another process too: nobody sweeps the directory while one of them has it.
    ///
    /// # Errors
    /// As dup(2).
    pub(in crate::primary) fn share_lock(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    /// Directories for temporary files are swept, on some machines.
    pub(in crate::primary) fn is_there(&self) -> bool {
        let held = FileId::of(&self.lock);
        held.is_ok_and(|held| self.directory.holds(OsStr::new(LOCK), held)) && self.is_found()
    }

    /// A directory for what a worker writes that runs as this user and group.
    ///
    /// # Errors
    /// As mkdir(2) and chown(2).
    pub(in crate::primary) fn metrics_directory(
        &self,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<MetricsDirectory> {
        MetricsDirectory::make(&self.directory, &self.path, (uid, gid))
    }

    fn is_found(&self) -> bool {
        let here = FileId::of(&self.directory);
        here.is_ok_and(|here| self.base.holds(&self.name, here))
    }

    /// A socket on which a worker that runs as `uid` speaks of itself, and the name that it is told.
    ///
    /// # Errors
    /// As bind(2); `ENAMETOOLONG` where the directory's path is too long for a socket.
    pub(in crate::primary) fn notify_socket(&self, uid: Option<u32>) -> io::Result<NotifySocket> {
        notify::bind_in(&self.directory, &self.path, uid)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What is swept already need not be removed.
        clear(&self.directory);
        drop(self.base.remove_directory(&self.name));
    }
}

fn lock(directory: &Directory, script: &str) -> io::Result<FileLock> {
    let name = OsStr::new(LOCK);
    let mut file = directory.create(name, 0o644)?;
    file.write_all(script.as_bytes())?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    let lock = FileLock::try_exclusive_in(directory, name)?;
    lock.ok_or_else(|| io::ErrorKind::ResourceBusy.into())
}

/// Removes all files of it, and its directories with the files that they have.
fn clear(directory: &Directory) {
    for name in directory.names().into_iter().flatten() {
        match directory.pin(&name) {
            Ok(found) if found.is_directory() => {
                if let Ok(inner) = directory.enter(&name) {
                    clear_files(&inner);
                    drop(directory.remove_directory(&name));
                }
            }
            Ok(file) => drop(directory.remove(&name, file.id())),
            Err(_) => {}
        }
    }
}

/// Removes what primaries of this user have left behind that were killed.
fn sweep(held: &Directory, base: &Path) {
    let own = phalanx_sys::identity::effective_uid();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(is_name) {
            continue;
        }
        let Ok(left) = held.enter(&name) else {
            continue;
        };
        if left.owner().is_ok_and(|owner| owner != own) {
            continue;
        }
        if let Ok(Some(_lock)) = FileLock::try_exclusive_in(&left, OsStr::new(LOCK)) {
            clear(&left);
            drop(held.remove_directory(&name));
        }
    }
}

/// Whether such a directory is called so: `phalanx-PID-NUMBER-STAMP`.
fn is_name(name: &str) -> bool {
    let Some(numbers) = name.strip_prefix("phalanx-") else {
        return false;
    };
    let numbers: Option<Vec<u32>> = numbers
        .split('-')
        .map(|number| number.parse().ok())
        .collect();
    numbers.is_some_and(|numbers| numbers.len() == 3)
}

fn needs_quotes(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\') || byte.is_ascii_control() || !byte.is_ascii()
}

/// Where to put it, the better places first: those that are not swept.
pub(in crate::primary) fn bases() -> impl Iterator<Item = PathBuf> {
    let is_root = phalanx_sys::identity::is_root();
    let system = is_root.then(|| PathBuf::from("/run"));
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // Root's own directory is closed to the user that root's workers run as.
    let own = own.filter(|path| path.is_absolute() && !is_root);
    own.into_iter().chain(system).chain([std::env::temp_dir()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "script";

    #[test]
    fn the_script_is_readable_for_everybody_and_gone_at_the_end() {
        let base = tempfile::tempdir().unwrap();
        let placed = Private::place_in(base.path(), SCRIPT).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&placed.path), 0o711);
        assert_eq!(mode(&placed.script()), 0o644);
        let _socket = placed.notify_socket(None).unwrap();
        let kept = placed.metrics_directory(None, None).unwrap();
        fs::write(kept.path().join("counter_1.db"), "").unwrap();
        let passed = placed.metrics_directory(None, None).unwrap();
        fs::write(passed.path().join("counter_1.db"), "").unwrap();
        drop(passed);
        assert!(placed.is_there());
        drop(placed);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_primary_left_is_swept_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let directory = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let left = directory("phalanx-1-0-77");
        fs::write(left.join(LOCK), "").unwrap();
        fs::write(left.join("notify-1"), "").unwrap();
        fs::create_dir(left.join("metrics-1")).unwrap();
        fs::write(left.join("metrics-1/counter_1.db"), "").unwrap();
        // No process has this number here, as if its primary were in another container.
        let locked = directory("phalanx-4194999-0-77");
        let lock = FileLock::try_exclusive(&locked.join(LOCK)).unwrap();
        assert!(lock.is_some());
        let others = ["phalanx-4194999", "phalanx-1-0-7-7", "phalanx-1-a-7"].map(directory);
        let placed = Private::place_in(base.path(), SCRIPT).unwrap();
        let again = || sweep(&Directory::open(base.path()).unwrap(), base.path());
        again();
        assert!(!left.exists() && locked.exists() && placed.is_there());
        assert!(others.iter().all(|path| path.exists()));
        drop(lock);
        again();
        assert!(!locked.exists() && placed.is_there());
    }

    #[test]
    fn a_place_that_others_can_move_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let inner = base.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Private::place_in(&inner, SCRIPT).is_err());
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
    }
}
