//! Control groups (cgroups(7), version 2): one around everything that a process starts, whatever becomes of it.
//!
//! A process is in the group of the one that started it. Neither a session of its own nor another parent, an empty
//! environment or another user takes it out, so a group is what tells without a gap who descends from whom. No
//! controller is needed for that, and none is enabled: nothing is limited or counted.
//!
//! A group is made inside this process's own, where that was left to it ([`Root::make`]). Groups are addressed by a
//! descriptor of the directory above and a name, and are never renamed.

mod place;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, mkdirat, openat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use crate::directory::FileId;
use crate::process::Pid;
pub use place::NoCgroup;

/// What the groups of this product are called, before whatever makes them unique.
const PREFIX: &str = "phalanx-";
/// Groups that lie deeper than this below one of ours are not looked at; they are killed nevertheless.
const DEPTH_MAX: u32 = 32;
/// Whoever sweeps may take a group away between its making and its locking.
const ATTEMPTS: u32 = 8;

/// A control group, by the directory above it and its name.
#[derive(Clone)]
pub struct Cgroup {
    parent: Arc<OwnedFd>,
    name: String,
}

impl fmt::Debug for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cgroup").field(&self.name).finish()
    }
}

impl Cgroup {
    /// The group with this name in a directory; it need not be there.
    #[must_use]
    pub fn below(parent: Arc<OwnedFd>, name: String) -> Self {
        Self { parent, name }
    }

    /// The group with this name in the directory that this process has inherited as descriptor `number`.
    ///
    /// # Errors
    /// `EBADF` when that is not open, or was not inherited.
    pub fn inherited(number: i32, name: String) -> io::Result<Self> {
        let parent = crate::fd::adopt_inherited(number)?;
        Ok(Self::below(Arc::new(parent), name))
    }

    /// Its directory, for [`SpawnPlan::cgroup`](crate::process::SpawnPlan::cgroup).
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(&self) -> io::Result<OwnedFd> {
        open_directory(self.parent.as_fd(), &self.name)
    }

    /// Who is in it or in a group below it, without those that this process cannot see (`pid_namespaces(7)`). Zombies
    /// are not.
    #[must_use]
    pub fn pids(&self) -> BTreeSet<Pid> {
        let mut pids = BTreeSet::new();
        if let Ok(directory) = self.open() {
            collect(directory.as_fd(), DEPTH_MAX, &mut pids);
        }
        pids
    }

    /// Whether anything lives in it or below it.
    ///
    /// # Errors
    /// Those of open(2) and read(2); `NotFound` when there is no such group any more.
    pub fn is_populated(&self) -> io::Result<bool> {
        let directory = self.open()?;
        let events = read_file(directory.as_fd(), "cgroup.events")?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Kills everything in it and below it in one step, whoever's it is by now: what is being started at this moment,
    /// too.
    ///
    /// # Errors
    /// `NotFound` before Linux 5.14 and when there is no such group any more; those of open(2) and write(2).
    pub fn kill(&self) -> io::Result<()> {
        let directory = self.open()?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&directory, "cgroup.kill", flags, Mode::empty())?;
        retry_on_intr(|| rustix::io::write(&file, b"1"))?;
        Ok(())
    }

    /// Removes it with the groups below it. Harmless when it is gone.
    ///
    /// # Errors
    /// `ResourceBusy` while something lives in it.
    pub fn remove(&self) -> io::Result<()> {
        remove(self.parent.as_fd(), &self.name, DEPTH_MAX)
    }
}

/// The group of an app, in which its workers have theirs. It is locked (flock(2)) as long as this lives, which tells
/// whoever sweeps that it is in use.
#[derive(Debug)]
pub struct Root {
    group: Cgroup,
    directory: Arc<OwnedFd>,
    path: PathBuf,
}

impl Root {
    /// Makes a group inside this process's own, if that may be done and surprises nobody; `unique` is its name's end.
    /// Removes those that others have left behind.
    ///
    /// # Errors
    /// Why there is none.
    pub fn make(unique: &str) -> Result<Self, NoCgroup> {
        let place = place::own()?;
        let parent = Arc::new(place.directory);
        sweep(parent.as_fd());
        let name = format!("{PREFIX}{unique}");
        let path = place.path.join(&name);
        match make_locked(parent.as_fd(), &name) {
            Ok(directory) => Ok(Self {
                group: Cgroup::below(parent, name),
                directory: Arc::new(directory),
                path,
            }),
            Err(source) => Err(NoCgroup::Make { path, source }),
        }
    }

    /// Makes a group inside of this one.
    ///
    /// # Errors
    /// Those of mkdir(2); `WouldBlock` when there may be no more (`cgroup.max.descendants`).
    pub fn child(&self, name: String) -> io::Result<Cgroup> {
        mkdirat(&self.directory, &name, Mode::from_raw_mode(0o755))?;
        Ok(Cgroup::below(Arc::clone(&self.directory), name))
    }

    /// The group itself.
    #[must_use]
    pub fn group(&self) -> &Cgroup {
        &self.group
    }

    /// The directory above it and its name there, for another process that is to end it.
    #[must_use]
    pub fn place(&self) -> (&Arc<OwnedFd>, &str) {
        (&self.group.parent, &self.group.name)
    }

    /// Where it is, to be shown.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a group and holds its lock. A sweep of another primary may remove it before it is locked.
fn make_locked(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    for _ in 0..ATTEMPTS {
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let directory = match open_directory(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        // Whoever sweeps holds it for a moment only.
        retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))?;
        let found = open_directory(parent, name).and_then(FileId::of);
        if found.is_ok_and(|found| FileId::of(&directory).is_ok_and(|own| own == found)) {
            return Ok(directory);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Removes the groups of primaries that are gone, as far as nothing lives in them.
fn sweep(parent: BorrowedFd<'_>) {
    for name in names_below(parent) {
        if !name.starts_with(PREFIX) {
            continue;
        }
        let Ok(directory) = open_directory(parent, &name) else {
            continue;
        };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // What lives in it belongs to a keeper that is about to end it.
            let _removed = remove(parent, &name, DEPTH_MAX);
        }
    }
}

fn remove(parent: BorrowedFd<'_>, name: &str, depth: u32) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // There may be groups below it.
        Err(Errno::BUSY | Errno::NOTEMPTY) if depth > 0 => {}
        Err(errno) => return Err(errno.into()),
    }
    let directory = open_directory(parent, name)?;
    for below in names_below(directory.as_fd()) {
        remove(directory.as_fd(), &below, depth - 1)?;
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn collect(directory: BorrowedFd<'_>, depth: u32, pids: &mut BTreeSet<Pid>) {
    // Of a threaded group the processes are listed above it.
    let listed = read_file(directory, "cgroup.procs").unwrap_or_default();
    let numbers = listed.lines().filter_map(|line| line.parse().ok());
    pids.extend(numbers.filter_map(Pid::from_number));
    if depth == 0 {
        return;
    }
    for name in names_below(directory) {
        if let Ok(below) = open_directory(directory, &name) {
            collect(below.as_fd(), depth - 1, pids);
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn read_file(directory: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    io::read_to_string(std::fs::File::from(file))
}

fn names_below(directory: BorrowedFd<'_>) -> Vec<String> {
    let Ok(entries) = Dir::read_from(directory) else {
        return Vec::new();
    };
    let entries = entries.filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type() == FileType::Directory);
    let names = directories.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "." && name != "..").collect()
}
